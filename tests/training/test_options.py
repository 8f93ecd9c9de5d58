"""Options that change what a run does, keeps and says, through the command."""

import itertools
import json
import os
import shutil
import signal
from contextlib import contextmanager
from random import Random

import pytest
import torch
from runs import SignalAtForward, assert_equal, load, metrics, path, run, same
from tiny import Tiny
from torch.optim.optimizer import register_optimizer_step_post_hook
from torchvision.transforms import v2

from networks import MODELS, create_model
from networks.cifar.resnet import CifarResNet
from networks.init import zero_init_residual
from utils.data.images import PillowImage, TrainTransform

ALL = (
    "--accumulate 2 --amp fp16 --auto-augment ra --clip-grad 1 --cutmix 1 --ema 0.9 "
    "--label-smoothing 0.1 --mixup 0.2 --nesterov --no-wd-norm-bias --sched cosine "
    "--warmup-epochs 1 --zero-init-residual"
)
PREVIOUS = "checkpoint_previous.pth.tar"


def test_all_options_together_stopped_and_resumed(digits, tmp_path):
    """Two updates an epoch, each in two parts."""
    assert run(digits, tmp_path / "whole", "--epochs", 2, *ALL.split()) == 0
    rates = [line["lr"] for line in metrics(tmp_path / "whole")]
    assert rates == pytest.approx([0.006, 0.003])  # the end of the warm-up, half a cosine
    # the FLOPs, two steps in two parts, two networks on two batches each, and one pass more
    with SignalAtForward(CifarResNet, 1 + 4 + 4 + 1, signal.SIGTERM):
        assert run(digits, tmp_path / "parts", "--epochs", 2, *ALL.split()) == 143
    stopped = load(tmp_path / "parts")
    assert (stopped["epoch"], stopped["step"]) == (1, 1)
    assert stopped["batch_size"] == 12
    assert run(digits, tmp_path / "parts", "--epochs", 2, "--resume", "auto", *ALL.split()) == 0
    assert_equal(load(tmp_path / "parts"), load(tmp_path / "whole"), "checkpoint")


@pytest.fixture(scope="module")
def default(digits, tmp_path_factory):
    """Weights after an epoch without options."""
    root = tmp_path_factory.mktemp("default")
    assert run(digits, root, "--epochs", 1) == 0
    return load(root)["state_dict"]


@pytest.mark.parametrize(
    "words",
    [
        *("--label-smoothing 0.1", "--clip-grad 0.01", "--mixup 0.5", "--cutmix 1"),
        *("--auto-augment ra", "--nesterov", "--momentum 0.5", "--wd 0.1", "--optimizer adamw"),
        *("--accumulate 2", "--zero-init-residual", "--no-wd-norm-bias", "--warmup-epochs 1"),
        *("--amp bf16", "--amp fp16", "--crop-scale 0.9", "--hflip 0", "--backbone-lr 0.5"),
    ],
)
def test_an_option_reaches_the_weights(words, default, digits, tmp_path):
    assert run(digits, tmp_path, "--epochs", 1, *words.split()) == 0
    assert not same(load(tmp_path)["state_dict"], default)


def test_the_average_is_saved_evaluated_and_judges_the_best(undisturbed, digits, tmp_path, capsys):
    root = tmp_path / "root"
    assert run(digits, root, "--epochs", 2, "--ema", 0.9) == 0
    content, lines = load(root), metrics(root)
    # it leaves the weights alone
    assert same(content["state_dict"], load(undisturbed, PREVIOUS)["state_dict"])
    assert not same(content["state_dict_ema"], content["state_dict"])
    assert max(line["val_ema_acc1"] for line in lines) == content["best_acc1"]
    assert " (average)\n" in capsys.readouterr().out
    for more, prefix in (([], "val"), (["--ema", 0.9], "val_ema")):
        assert run(digits, root, "-e", "--resume", path(root), *more) == 0
        found = capsys.readouterr().out.splitlines()[-1]
        assert found == f" * Acc@1 {lines[-1][f'{prefix}_acc1']:.3f}"
    target = tmp_path / "average.pth"
    more = ["--resume", path(root), "--save-weights", target, "--ema", 0.9]
    assert run(digits, root, *more) == 0
    assert same(torch.load(target, weights_only=True), content["state_dict_ema"])


def test_an_average_that_forgets_at_once_is_the_network(digits, tmp_path):
    assert run(digits, tmp_path, "--epochs", 1, "--ema", 0) == 0
    content = load(tmp_path)
    assert same(content["state_dict_ema"], content["state_dict"])
    (line,) = metrics(tmp_path)
    assert line["val_ema_loss"] == line["val_loss"]


def test_other_precisions_go_on_and_skipped_steps_are_told(undisturbed, digits, tmp_path, capsys):
    """From a run without a scaler to one that has one, and back to none."""
    root = shutil.copytree(undisturbed, tmp_path / "root")
    assert run(digits, root, "--epochs", 4, "--resume", "auto", "--amp", "fp16") == 0
    content = load(root)
    assert content["scaler"]["scale"] > 0
    content["scaler"]["scale"] = 1e34  # which half precision can't hold
    torch.save(content, path(root))
    capsys.readouterr()
    assert run(digits, root, "--epochs", 5, "--resume", "auto", "--amp", "fp16", "--lr", 0) == 0
    assert "  4 steps skipped\n" in capsys.readouterr().out
    skipped = [line.get("skipped_steps") for line in metrics(root)]
    assert skipped[:3] == [None] * 3
    assert skipped[3] < skipped[4] == 4
    assert run(digits, root, "--epochs", 6, "--resume", "auto", "--amp", "bf16") == 0
    assert load(root)["epoch"] == 6


def test_profile_leaves_a_table_and_a_trace(digits, tmp_path, capsys):
    assert run(digits, tmp_path, "--epochs", 2, "--profile", 3) == 0
    trace = json.loads(path(tmp_path, "profile.pt.trace.json").read_text())
    names = [event.get("name") for event in trace["traceEvents"]]
    steps = {name for name in names if str(name).startswith("ProfilerStep#")}
    assert len(steps) == 3
    assert "SimAMFunction" in names
    assert "aten::mkldnn_convolution" in capsys.readouterr().out


@contextmanager
def signal_after_update(count: int):
    """Send SIGTERM to this process after the update number `count`, which is never compiled."""
    updates = itertools.count(1)

    def after_update(_optimizer, _args, _kwargs):
        if next(updates) == count:
            os.kill(os.getpid(), signal.SIGTERM)

    handle = register_optimizer_step_post_hook(after_update)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.slow
def test_compiled_with_all_options_stopped_and_resumed(digits, tmp_path, monkeypatch, capsys):
    """The same numbers as without --compile, too, as long as rounding can't add up."""
    monkeypatch.setitem(MODELS, "tiny", Tiny)
    words = ALL.replace("--zero-init-residual", "")  # it has no branches
    options = ["-a", "tiny", "--epochs", 2, "--lr", 1e-6, *words.split()]

    def trained(name, *more):
        torch.compiler.reset()
        return run(digits, tmp_path / name, *options, *more)

    assert trained("whole", "--compile") == 0
    assert "\ncompiled    in " in capsys.readouterr().out
    with signal_after_update(1):
        assert trained("parts", "--compile") == 143
    assert (load(tmp_path / "parts")["epoch"], load(tmp_path / "parts")["step"]) == (0, 1)
    assert trained("parts", "--compile", "--resume", "auto") == 0
    assert_equal(load(tmp_path / "parts"), load(tmp_path / "whole"), "checkpoint")
    assert trained("eager") == 0
    eager = load(tmp_path / "eager")["state_dict"]
    assert load(tmp_path / "whole")["state_dict"].keys() == eager.keys()
    for found, wanted in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "eager"), strict=True):
        for name in ("train_loss", "val_loss", "val_ema_loss"):
            assert found[name] == pytest.approx(wanted[name], rel=1e-3)


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
