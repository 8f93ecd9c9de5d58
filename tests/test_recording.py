"""What is replayed does what the function does, step after step, bit for bit."""

import pytest
import replays
import torch
from tiny import Tiny

from utils import recording
from utils.config import Optim
from utils.processes.dist import Dist
from utils.recording import Recorded
from utils.training.engine import Learner, Precision, train_steps
from utils.training.metrics import Totals
from utils.training.optim import make_optimizer

SIZES = 6, 6, 4, 6, 4, 6  # of batches; with a look at every other gradient there are four kinds


def trained(record: bool, dtype: torch.dtype | None, device: str, optim: Optim) -> dict:
    """All that two epochs change."""
    torch.manual_seed(3)
    dist = Dist(0, 1, torch.device(device))
    model = dist.place(Tiny(num_classes=4))
    optimizer, precision = make_optimizer(model, optim), Precision(device, dtype)
    learner = Learner(model, optimizer, optim, precision, dist, norm_every=2, record=record)
    totals, batches = Totals.zero(dist.device), []
    for size in SIZES:
        images = torch.randn(size, 3, 8, 8).to(device, memory_format=torch.channels_last)
        batches.append((images, torch.randint(4, (size,)).to(device)))
    told = {}
    for epoch in range(2):
        totals.clear()
        for _ in train_steps(learner, batches, totals, lambda step: 0.1 / (step + 1)):  # noqa: B023
            pass
        told[f"epoch {epoch}"] = totals.sums.clone()
    momentum = {
        str(i): each["momentum_buffer"] for i, each in optimizer.state_dict()["state"].items()
    }
    return model.state_dict() | momentum | told | learner.scaler.state_dict()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("optim", [Optim(), Optim(accumulate=2, clip_grad=0.5)])
def test_a_replayed_training_is_the_eager_one(dtype, optim, device, monkeypatch):
    """On a GPU its own graphs, on the CPU those of tests/replays.py."""
    if device.type == "cpu":
        monkeypatch.setattr(recording, "record", replays.record)
    else:
        torch.use_deterministic_algorithms(True, warn_only=True)
    eager, replayed = (trained(record, dtype, device.type, optim) for record in (False, True))
    assert eager.keys() == replayed.keys()
    for name, value in eager.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(replayed[name])), name


def test_each_kind_of_call_has_a_record_of_its_own(device, monkeypatch):
    if device.type == "cpu":
        monkeypatch.setattr(recording, "record", replays.record)
    calls = []

    def scaled(x: torch.Tensor, factor: int) -> torch.Tensor:
        calls.append(x.shape)
        return x * factor

    replayed = Recorded(scaled)
    for x, factor in [(1.0, 2), (2.0, 2), (2.0, 3), (3.0, 3), (4.0, 2)]:
        for size in (3, 5):
            given = torch.full((size,), x, device=device)
            assert torch.equal(replayed(given, factor), given * factor)
    assert len(calls) == 2 * 2 * 2  # two sizes, two factors: run, then recorded
