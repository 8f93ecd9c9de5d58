"""What each option changes in a step, against the same computed by hand."""

from random import Random

import pytest
import torch
import torch.nn.functional as F
from test_engine import ALONE, batches, small_network
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms import v2

from networks import create_model
from networks.init import zero_init_residual
from utils.data.images import PillowImage, TrainTransform
from utils.data.loader import SyntheticLoader, TrainBatches
from utils.data.mixing import MixingLoader
from utils.processes.dist import Dist
from utils.training.engine import Precision, Recipe, train_one_epoch
from utils.training.metrics import Totals
from utils.training.optim import MovingAverage, make_optimizer


def normless() -> nn.Module:
    """A network whose gradient is the sum of its images'."""
    torch.manual_seed(5)
    layers = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4)
    return nn.Sequential(*layers).double()


def doubled(data):
    return [(images.double(), targets) for images, targets in data]


def train(model, data, recipe=Recipe(), optimizer=None, average=None, precision=None):  # noqa: B008
    precision = precision or Precision("cpu")
    return train_one_epoch(
        model,
        data,
        optimizer or torch.optim.SGD(model.parameters(), 0.1),
        lambda _step: 0.1,
        Totals.zero(ALONE.device),
        ALONE,
        precision,
        precision.scaler(),
        recipe=recipe,
        average=average,
    )


def vector(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


@pytest.mark.parametrize("size", [12, 11, 5], ids=["even", "uneven", "fewer than two each"])
def test_accumulation_makes_the_update_of_the_whole_batch(size):
    whole, parts, data = normless(), normless(), doubled(batches(2, size))
    seen = []
    parts.register_forward_pre_hook(lambda _m, inputs: seen.append(len(inputs[0])))
    means = [train(whole, data), train(parts, data, Recipe(accumulate=3))]
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
        means = train(model, data, Recipe(clip_grad=limit))
        moved = (vector(model) - before).norm().item()
        assert moved == pytest.approx(0.1 * min(limit, norm), rel=1e-5)
        assert means["grad_norm"] == pytest.approx(norm)


def test_the_gradients_norm_is_looked_at_now_and_then():
    model, data = normless(), doubled(batches(3, 4))
    assert train(model, data)["grad_norm"] is None
    model, norms = normless(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def note(*_):
        grads = [each.grad.flatten() for each in model.parameters()]
        norms.append(torch.cat(grads).norm().item())

    optimizer.register_step_pre_hook(note)
    assert train(model, data, Recipe(norm_every=2), optimizer)["grad_norm"] == pytest.approx(
        norms[1]
    )


def test_label_smoothing_is_the_textbooks():
    model, data = normless(), doubled(batches(1, 8))
    logits, targets = model(data[0][0]), data[0][1]
    shares = 0.9 * F.one_hot(targets, 4) + 0.1 / 4
    expected = -(shares * logits.log_softmax(1)).sum(1).mean().item()
    assert train(model, data, Recipe(label_smoothing=0.1))["loss"] == pytest.approx(expected)


def test_the_average_is_the_one_computed_by_hand():
    model, data = small_network(), batches(4, 6)
    average = MovingAverage(model, 0.8)
    optimizer = make_optimizer(model)
    expected, states = None, []
    optimizer.register_step_post_hook(
        lambda *_: states.append({k: v.double() for k, v in model.state_dict().items()})
    )
    train(model, data, optimizer=optimizer, average=average)
    for state in states:
        expected = expected or state
        expected = {key: 0.8 * expected[key] + 0.2 * state[key] for key in state}
    for key, value in average.module.state_dict().items():
        if value.is_floating_point():  # batch counters are cut to whole numbers
            torch.testing.assert_close(value.double(), expected[key], rtol=1e-5, atol=1e-6)
    assert not torch.equal(average.module[0].weight, model[0].weight)
    assert average.n_averaged == 4


def test_the_average_is_pytorchs():
    """Bit for bit, batch counters too, without a look at the counter on another device."""
    model = small_network()
    stock = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    ours = MovingAverage(model, 0.9)
    optimizer = make_optimizer(model)

    def follow(*_):
        stock.update_parameters(model)
        ours.update_parameters(model)

    optimizer.register_step_post_hook(follow)
    train(model, batches(5, 6), optimizer=optimizer)
    assert stock.state_dict().keys() == ours.state_dict().keys()
    for key, value in stock.state_dict().items():
        assert torch.equal(value, ours.state_dict()[key]), key
    assert not torch.equal(ours.module[0].weight, model[0].weight)


def test_fp16_counts_the_steps_it_skips():
    model = small_network()
    hooks = iter([1.0, float("inf"), 1.0])
    model[4].weight.register_hook(lambda gradient: gradient * next(hooks))
    precision = Precision("cpu", torch.float16)
    means = train(model, batches(3, 6), Recipe(norm_every=1), precision=precision)
    assert means["skipped"] == 1
    assert 0 < means["grad_norm"] < 1000  # of the two steps that were taken, not scaled


def test_shared_targets_train_as_torchs_own_loss():
    model, reference = normless(), normless()
    images, targets = doubled(batches(1, 8))[0]
    shares = 0.7 * F.one_hot(targets, 4).double() + 0.3 * F.one_hot(targets.roll(1), 4)
    means = train(model, [(images, shares)])
    logits = reference(images)
    loss = nn.CrossEntropyLoss()(logits, shares)
    loss.backward()
    torch.optim.SGD(reference.parameters(), 0.1).step()
    assert torch.equal(vector(model), vector(reference))
    assert means["loss"] == pytest.approx(loss.item())
    correct = (logits.argmax(1) == shares.argmax(1)).double().mean().item()
    assert means["acc1"] == pytest.approx(100 * correct)


def mixing(mixup: float, cutmix: float, first_step: int = 0):
    torch.manual_seed(3)
    loader = SyntheticLoader(TrainBatches(24, 6, 0), 16, 5, torch.device("cpu"), torch.float32)
    mixed = MixingLoader(loader, mixup, cutmix, 5, seed=7)
    mixed.batches.start(2, first_step)
    return loader, mixed


def shares_of(targets: torch.Tensor, original: torch.Tensor) -> list[float]:
    """The share of its own class in each row whose two classes differ."""
    differ = original != original.roll(1)
    return targets[differ, original[differ]].tolist()


def test_mixup_blends_images_and_targets_alike():
    loader, mixed = mixing(0.4, 0)
    images, targets = next(iter(loader))
    for blended, shares in mixed:
        first = shares_of(shares, targets)
        share = first[0]
        assert first == pytest.approx([share] * len(first))
        expected = share * images + (1 - share) * images.roll(1, 0)
        torch.testing.assert_close(blended, expected, rtol=1e-4, atol=1e-5)


def test_cutmix_pastes_images_and_shares_targets_by_area():
    loader, mixed = mixing(0, 1.0)
    images, targets = next(iter(loader))
    for pasted, shares in mixed:
        own, other = pasted == images, pasted == images.roll(1, 0)
        assert (own | other).all()
        kept = (~(other & ~own)).float().mean((1, 2, 3))  # pixels that are equal anyway: few
        assert shares_of(shares, targets)[0] == pytest.approx(kept.max().item(), abs=0.05)


def test_mixing_depends_on_the_step_not_on_what_came_before():
    whole = list(mixing(0.4, 1.0)[1])
    torch.rand(9)
    rest = list(mixing(0.4, 1.0, first_step=2)[1])
    assert len(rest) == 2
    for one, other in zip(rest, whole[2:], strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    assert not torch.equal(whole[0][1], whole[1][1])


POLICIES = {
    "imagenet": v2.AutoAugment,
    "ra": v2.RandAugment,
    "ta_wide": v2.TrivialAugmentWide,
    "augmix": v2.AugMix,
}


@pytest.mark.parametrize("name", POLICIES)
def test_policies_are_torchvisions(name, digits):
    image = PillowImage((digits / "train" / "1" / "000.png").read_bytes())
    changed = 0
    for seed in range(8):
        rng = Random(seed)
        plain = TrainTransform(32)(image, rng)
        torch.manual_seed(rng.getrandbits(63))
        expected = POLICIES[name]()(plain)
        found = TrainTransform(32, name)(image, Random(seed))
        assert torch.equal(found, expected)
        changed += not torch.equal(found, plain)
    assert changed


@pytest.mark.parametrize("settings", [{}, {"nesterov": True}, {"name": "adamw"}], ids=str)
def test_optimizers_are_pytorchs(settings):
    model, reference, data = normless(), normless(), doubled(batches(3, 6))
    train(model, data, optimizer=make_optimizer(model, weight_decay=0.01, **settings))
    if settings.get("name") == "adamw":
        optimizer = torch.optim.AdamW(reference.parameters(), 0.1, weight_decay=0.01)
    else:
        optimizer = torch.optim.SGD(
            reference.parameters(), 0.1, 0.9, weight_decay=0.01, nesterov="nesterov" in settings
        )
    for images, targets in data:
        optimizer.zero_grad()
        F.cross_entropy(reference(images), targets).backward()
        optimizer.step()
    torch.testing.assert_close(vector(model), vector(reference), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "settings", [{}, {"momentum": 0.0}, {"nesterov": True}, {"name": "adamw"}], ids=str
)
def test_an_overflow_at_the_first_step_leaves_no_trace(settings):
    """The steps after it are those of PyTorch's plain optimizer, which never saw it."""
    model, reference, data = normless(), normless(), doubled(batches(3, 6))
    # memory that is handed out next, as a momentum that was never written would find it
    used = [torch.full_like(each, 1e3) for each in model.parameters()]
    factors = iter([float("inf"), 1.0, 1.0])
    model[3].weight.register_hook(lambda gradient: gradient * next(factors))
    optimizer = make_optimizer(model, weight_decay=0.01, **settings)
    del used
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for images, targets in data:
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(images), targets)).backward()
        scaler.step(optimizer)
        scaler.update()
    name, rest = settings.get("name", "sgd"), {"momentum": 0.9, **settings, "weight_decay": 0.01}
    if name == "adamw":
        plain = torch.optim.AdamW(reference.parameters(), 0.1, weight_decay=0.01, fused=False)
    else:
        plain = torch.optim.SGD(reference.parameters(), 0.1, fused=False, **rest)
    for images, targets in data[1:]:
        plain.zero_grad()
        F.cross_entropy(reference(images), targets).backward()
        plain.step()
    torch.testing.assert_close(vector(model), vector(reference), rtol=1e-10, atol=1e-12)


def test_norms_and_biases_are_left_out_of_the_decay():
    model = create_model("resnet18", "cbam", num_classes=3)
    before = {key: value.clone() for key, value in model.named_parameters()}
    for each in model.parameters():
        each.grad = torch.zeros_like(each)
    make_optimizer(model, lr=0.1, weight_decay=0.5, decay_all=False).step()
    flat = {f"{name}.bias" for name, _ in model.named_modules()}
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    flat |= {f"{name}.weight" for name, each in model.named_modules() if isinstance(each, norms)}
    for key, value in model.named_parameters():
        kept = 1.0 if key in flat else 0.95
        torch.testing.assert_close(value, kept * before[key], msg=key)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "mobilenet_v2", "cifar_mobilenet_v2"])
def test_branches_that_start_at_zero_leave_the_shortcut(arch):
    model = create_model(arch, "simam", num_classes=3).eval()
    x = torch.randn(2, 3, 32, 32)
    assert zero_init_residual(model) > 0
    blocks = [m for m in model.modules() if getattr(m, "last_norm", None) is not None]
    checked = []

    def check(block, inputs, output):
        checked.append(block)
        shortcut = getattr(block, "downsample", None) or getattr(block, "shortcut", None)
        expected = shortcut(inputs[0]) if shortcut else inputs[0]
        torch.testing.assert_close(output, expected.relu() if "resnet" in arch else expected)

    for block in blocks:
        block.register_forward_hook(check)
    model(x)
    assert checked == blocks


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature")
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16], ids=str)
def test_steps_do_not_wait_for_the_gpu(dtype):
    cuda = torch.device("cuda", 0)
    dist, precision = Dist(0, 1, cuda), Precision("cuda", dtype)
    model = dist.place(create_model("resnet18", "simam", 0.1, num_classes=5))
    loader = SyntheticLoader(TrainBatches(24, 6, 0), 64, 5, cuda, precision.input_dtype)
    mixed = MixingLoader(loader, 0.2, 1.0, 5, seed=7)
    state = make_optimizer(model), lambda _step: 0.1, Totals.zero(cuda), dist, precision
    average = MovingAverage(model, 0.9)
    scaler = precision.scaler()
    recipe = Recipe(accumulate=2, clip_grad=1.0, label_smoothing=0.1, norm_every=1)
    done = []

    def after_step(step, _totals):
        # the first step may allocate and choose kernels; the last is followed by the numbers
        torch.cuda.set_sync_debug_mode("default" if step == 4 else "error")
        done.append(step)

    try:
        train_one_epoch(model, mixed, *state, scaler, 0, after_step, recipe, average)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert done == [1, 2, 3, 4]
