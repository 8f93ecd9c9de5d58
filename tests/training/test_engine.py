"""Steps and evaluations, against the same computed by hand."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from networks import create_model
from utils.config import Config, Data, Network, Optim
from utils.data.batches import TrainBatches
from utils.data.cifar import CifarLoader, Images
from utils.data.images import TrainTransform
from utils.data.listing import list_images
from utils.data.loader import DeviceLoader, ImageDataset, SyntheticLoader
from utils.data.mixing import MixingLoader
from utils.data.normalise import Normalise
from utils.processes.dist import Dist
from utils.training.engine import Learner, Precision, evaluate, train_steps
from utils.training.metrics import Totals
from utils.training.optim import MovingAverage, make_optimizer

CPU = torch.device("cpu")
ALONE = Dist(0, 1, CPU)


def batches(count, size, classes=4):
    return [(torch.randn(size, 3, 8, 8), torch.randint(classes, (size,))) for _ in range(count)]


def doubled(data):
    return [(images.double(), targets) for images, targets in data]


def small_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)
    )


def normless() -> nn.Module:
    """A network whose gradient is the sum of its images'; always the same."""
    torch.manual_seed(5)
    layers = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4)
    return nn.Sequential(*layers).double()


def learner_of(model, optim=Optim(), dtype=None, **more) -> Learner:  # noqa: B008
    precision = Precision("cpu", dtype)
    return Learner(model, make_optimizer(model, optim), optim, precision, ALONE, **more)


def train(
    learner, data, lr_at_step=lambda _step: 0.1, first_step=0, after_step=lambda: None
) -> dict[str, float]:
    totals = Totals.zero(CPU)
    for _ in train_steps(learner, data, totals, lr_at_step, first_step):
        after_step()
    return totals.means() | {"grad_norm": totals.grad_norm(), "skipped": totals.skipped()}


def vector(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def test_training_is_the_plain_loop():
    model, reference, data = small_network(), small_network(), batches(5, 6)
    reference.load_state_dict(model.state_dict())
    means = train(learner_of(model), data)
    optimizer = torch.optim.SGD(reference.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    losses, correct = [], 0
    for images, targets in data:
        logits = reference(images)
        loss = F.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        correct += (logits.argmax(1) == targets).sum().item()
    torch.testing.assert_close(model.state_dict(), reference.state_dict())
    assert means["loss"] == pytest.approx(sum(losses) / 5)
    assert means["acc1"] == pytest.approx(100 * correct / 30)
    assert means["acc5"] == 100
    assert means["images"] == 30


def test_learning_rate_is_set_before_each_step():
    learner, seen = learner_of(normless()), []
    learner.optimizer.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["lr"]))
    train(learner, doubled(batches(3, 2)), lambda step: 10.0**-step, first_step=2)
    assert seen == [1e-2, 1e-3, 1e-4]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_runs_the_network_in_that_type(dtype):
    model, seen = small_network(), []
    model[0].register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    assert train(learner_of(model, dtype=dtype), batches(2, 6))["loss"] > 0
    assert seen == [dtype, dtype]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_fp16_skips_and_counts_the_steps_that_overflow():
    model, after = small_network(), []
    factors = iter([1.0, float("inf"), 1.0])
    model[4].weight.register_hook(lambda gradient: gradient * next(factors))
    learner = learner_of(model, dtype=torch.float16, norm_every=1)
    means = train(learner, batches(3, 6), after_step=lambda: after.append(vector(model)))
    assert torch.equal(after[0], after[1])
    assert not torch.equal(after[1], after[2])
    assert means["skipped"] == 1
    assert 0 < means["grad_norm"] < 1000  # of the two steps that were taken, not scaled


@pytest.mark.parametrize("size", [12, 11, 5], ids=["even", "uneven", "fewer than two each"])
def test_accumulation_makes_the_update_of_the_whole_batch(size):
    whole, parts, data = normless(), normless(), doubled(batches(2, size))
    seen = []
    parts.register_forward_pre_hook(lambda _m, inputs: seen.append(len(inputs[0])))
    means = [train(learner_of(whole), data), train(learner_of(parts, Optim(accumulate=3)), data)]
    torch.testing.assert_close(vector(parts), vector(whole), rtol=1e-12, atol=1e-12)
    for name in ("loss", "acc1", "images"):
        assert means[0][name] == pytest.approx(means[1][name])
    assert sum(seen) == 2 * size
    assert min(seen) >= 2
    assert max(seen) <= -(-size // min(3, size // 2))


def test_clipping_bounds_the_update():
    model, data = normless(), doubled(batches(1, 8))
    before = vector(model)
    F.cross_entropy(model(data[0][0]), data[0][1]).backward()
    norm = torch.cat([each.grad.flatten() for each in model.parameters()]).norm().item()
    for limit in (norm / 3, 2 * norm):
        model = normless()
        means = train(learner_of(model, Optim(clip_grad=limit, weight_decay=0)), data)
        moved = (vector(model) - before).norm().item()
        assert moved == pytest.approx(0.1 * min(limit, norm), rel=1e-5)
        assert means["grad_norm"] == pytest.approx(norm)


def test_the_gradients_norm_is_looked_at_now_and_then():
    data = doubled(batches(3, 4))
    assert train(learner_of(normless()), data)["grad_norm"] is None
    learner, norms = learner_of(normless(), norm_every=2), []

    def note(*_):
        grads = [each.grad.flatten() for each in learner.model.parameters()]
        norms.append(torch.cat(grads).norm().item())

    learner.optimizer.register_step_pre_hook(note)
    assert train(learner, data)["grad_norm"] == pytest.approx(norms[1])


def test_label_smoothing_is_the_textbooks():
    model, data = normless(), doubled(batches(1, 8))
    logits, targets = model(data[0][0]), data[0][1]
    shares = 0.9 * F.one_hot(targets, 4) + 0.1 / 4
    expected = -(shares * logits.log_softmax(1)).sum(1).mean().item()
    means = train(learner_of(model, Optim(label_smoothing=0.1)), data)
    assert means["loss"] == pytest.approx(expected)


def test_shared_targets_train_as_torchs_own_loss():
    model, reference = normless(), normless()
    images, targets = doubled(batches(1, 8))[0]
    shares = 0.7 * F.one_hot(targets, 4).double() + 0.3 * F.one_hot(targets.roll(1), 4)
    means = train(learner_of(model), [(images, shares)])
    logits = reference(images)
    loss = nn.CrossEntropyLoss()(logits, shares)
    loss.backward()
    torch.optim.SGD(reference.parameters(), 0.1, weight_decay=1e-4).step()
    torch.testing.assert_close(vector(model), vector(reference), rtol=1e-12, atol=1e-12)
    assert means["loss"] == pytest.approx(loss.item())
    correct = (logits.argmax(1) == shares.argmax(1)).double().mean().item()
    assert means["acc1"] == pytest.approx(100 * correct)


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2"])
def test_evaluation_is_independent_of_the_batch_size_and_changes_nothing(arch):
    model = create_model(arch, "simam", num_classes=7)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images, targets = torch.randn(13, 3, 40, 40), torch.randint(7, (13,))
    results = [
        evaluate(
            model,
            list(zip(images.split(size), targets.split(size), strict=True)),
            ALONE,
            Precision("cpu"),
        )
        for size in (1, 4, 13)
    ]
    with torch.no_grad():
        logits = model.eval()(images)
    assert results[0]["loss"] == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-5)
    for result in results:
        assert result["images"] == 13
        assert result == pytest.approx(results[0], rel=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def from_files(batches: TrainBatches, normalise: Normalise, folder: Path) -> DeviceLoader:
    for number in range(24):
        path = folder / "train" / str(number % 5) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (90, 70), (40, 80, 120)).save(path)
    dataset = ImageDataset(list_images(str(folder), "train"), TrainTransform(64))
    return DeviceLoader(dataset, batches, 0, normalise)


def from_cifar(batches: TrainBatches, normalise: Normalise, _folder: Path) -> CifarLoader:
    pixels, targets = torch.randint(256, (24, 3, 32, 32)).byte(), torch.arange(24) % 5
    return CifarLoader(Images(pixels, targets, list("abcde")), batches, normalise)


LOADERS = {
    "mixed": lambda batches, normalise, _folder: SyntheticLoader(batches, 64, 5, normalise),
    "files": from_files,
    "cifar": from_cifar,
}


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature")
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *(("mixed", dtype) for dtype in (None, torch.bfloat16, torch.float16)),
        ("files", None),
        ("cifar", None),
    ],
)
def test_steps_do_not_wait_for_the_gpu(kind, dtype, tmp_path):
    dist, precision = Dist(0, 1, torch.device("cuda", 0)), Precision("cuda", dtype)
    config = Config(
        network=Network(arch="resnet18", attention="simam", attention_param=0.1, num_classes=5),
        data=Data(mixup=0.2, cutmix=1.0),
        optim=Optim(accumulate=2, clip_grad=1.0, label_smoothing=0.1),
    )
    model = dist.place(config.network.build())
    normalise = Normalise(dist.device, dtype=precision.input_dtype)
    loader = LOADERS[kind](TrainBatches(24, 6, 0), normalise, tmp_path)
    if kind == "mixed":
        loader = MixingLoader(loader, config, seed=7)
    optimizer, average = make_optimizer(model, config.optim), MovingAverage(model, 0.9)
    learner = Learner(model, optimizer, config.optim, precision, dist, average, norm_every=1)
    done = []
    try:
        for step in train_steps(learner, loader, Totals.zero(dist.device), lambda _step: 0.1):
            # the first step may allocate and choose kernels; the last is followed by the end
            torch.cuda.set_sync_debug_mode("default" if step == 4 else "error")
            done.append(step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert done == [1, 2, 3, 4]
