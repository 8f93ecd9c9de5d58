"""What is replayed does what the function does, call after call, bit for bit.

On a GPU its own graphs, on the CPU those of replays.py.
"""

from collections.abc import Iterator

import pytest
import replays
import torch
from operations import Operations
from tiny import Tiny

from scripts.gpu_report.cifar import training as training_on_cifar
from utils import recording
from utils.config import Optim
from utils.data.cifar import Images
from utils.processes.dist import Dist
from utils.recording import Records, on_a_stream
from utils.training.engine import Learner, Precision, train_steps
from utils.training.metrics import Totals
from utils.training.optim import make_optimizer

SIZES = 6, 6, 4, 6, 4, 6  # of batches; with a look at every other gradient there are four kinds


@pytest.fixture
def place(device, monkeypatch):
    """Where work is recorded."""
    if device.type == "cpu":
        monkeypatch.setattr(recording, "new_graph", replays.new_graph)
    else:
        torch.use_deterministic_algorithms(True, warn_only=True)
    return device


def training(record: bool, dtype, optim: Optim, device: torch.device, found: dict) -> Iterator[int]:
    """Two epochs, of which `found` gets all that they change."""
    torch.manual_seed(3)
    dist = Dist(0, 1, device)
    model = dist.place(Tiny(num_classes=4))
    optimizer, precision = make_optimizer(model, optim), Precision(device.type, dtype)
    learner = Learner(model, optimizer, optim, precision, dist, norm_every=2, record=record)
    totals, batches = Totals.zero(device), []
    for size in SIZES:
        images = torch.randn(size, 3, 8, 8).to(device, memory_format=torch.channels_last)
        batches.append((images, torch.randint(4, (size,)).to(device)))
    for epoch in range(2):
        totals.clear()
        yield from train_steps(learner, batches, totals, lambda step: 0.1 / (step + 1))
        found[f"epoch {epoch}"] = totals.counters()
    found |= {name: value.tolist() for name, value in model.state_dict().items()}
    momenta = [state["momentum_buffer"].tolist() for state in optimizer.state.values()]
    found |= {"momenta": momenta, "scaler": learner.scaler.state_dict()}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("optim", [Optim(), Optim(accumulate=2, clip_grad=0.5)])
def test_a_replayed_training_is_the_eager_one(dtype, optim, place):
    eager, replayed = {}, {}
    for record, found in ((False, eager), (True, replayed)):
        steps = on_a_stream(training(record, dtype, optim, place, found), place)
        assert len(list(steps)) == 2 * len(SIZES)
    assert replayed == eager


def test_little_of_a_step_is_left_to_the_cpu(monkeypatch):
    """Of CIFAR's, augmented images and optimizer included: two replays, and what brings them their
    images and learning rate."""
    monkeypatch.setattr(recording, "new_graph", replays.new_graph)
    monkeypatch.setattr(replays.Noted, "replay", lambda noted: None)  # which a GPU does
    pixels = torch.randint(256, (256, 3, 32, 32), dtype=torch.uint8)
    images = Images(pixels, torch.arange(256) % 2, ["even", "odd"])
    counted = []
    for record in (False, True):
        steps = training_on_cifar(images, 0, record, Dist(0, 1, torch.device("cpu")))
        next(steps)
        with Operations() as seen:
            next(steps)
        counted.append(sum(seen.counts.values()))
    assert counted[0] > 200
    assert counted[1] < 12


def test_each_kind_of_call_has_a_record_of_its_own(place):
    calls = []

    def scaled(x: torch.Tensor, factor: int) -> torch.Tensor:
        calls.append(x.shape)
        return x * factor

    def results() -> Iterator[tuple[list[float], list[float]]]:
        records = Records(wanted=True)
        for value, factor in [(1.0, 2), (2.0, 2), (2.0, 3), (3.0, 3), (4.0, 2)]:
            for size in (3, 5):
                x = torch.full((size,), value, device=place)
                yield records.call(scaled, x, factor).tolist(), (x * factor).tolist()

    for result, expected in on_a_stream(results(), place):
        assert result == expected
    assert len(calls) == 2 * 2 * 2  # two sizes, two factors: called, then recorded
