"""Whole runs with options that change what a run does, keeps and says."""

import json
import re
import signal

import pytest
import torch
from jobs import COMMAND, Job, same, training
from runs import SignalAtForward, assert_equal
from test_run import NAME, load, metrics, run

import main_imagenet
from networks.resnet import ResNet

ALL = (
    "--accumulate 2 --amp fp16 --auto-augment ra --clip-grad 1 --cutmix 1 --ema 0.9 "
    "--label-smoothing 0.1 --mixup 0.2 --nesterov --no-wd-norm-bias --sched cosine "
    "--warmup-epochs 1 --zero-init-residual"
)


def test_all_options_together_stopped_and_resumed(digits, tmp_path):
    """Two updates an epoch, each in two parts."""
    assert run(digits, tmp_path / "whole", "--epochs", 2, *ALL.split()) == 0
    # the FLOPs, two steps in two parts, two networks on two batches each, and one pass more
    with SignalAtForward(ResNet, 1 + 4 + 4 + 1, signal.SIGTERM):
        assert run(digits, tmp_path / "parts", "--epochs", 2, *ALL.split()) == 143
    stopped = load(tmp_path / "parts")
    assert (stopped["epoch"], stopped["step"]) == (1, 1)
    assert stopped["batch_size"] == 12
    assert run(digits, tmp_path / "parts", "--epochs", 2, "--resume", "auto", *ALL.split()) == 0
    assert_equal(load(tmp_path / "parts"), load(tmp_path / "whole"), "checkpoint")


def brief(digits, root, *more) -> dict:
    """The checkpoint after four steps of a small network; `more` on top of the defaults."""
    fixed = "--gpu -1 -a cifar_resnet20 --seed 3 --image-size 32 -b 12 -j 0 --lr 0.05 --epochs 2"
    assert main_imagenet.main([str(digits), "--ckpt", str(root), *fixed.split(), *more]) == 0
    name = "imagenet-cifar_resnet20-seed3/checkpoint.pth.tar"
    return torch.load(root / name, weights_only=True)


@pytest.fixture(scope="module")
def default(digits, tmp_path_factory):
    return brief(digits, tmp_path_factory.mktemp("default"))


def test_a_run_without_options_is_the_default(default, digits, tmp_path):
    assert same(brief(digits, tmp_path)["state_dict"], default["state_dict"])


@pytest.mark.parametrize(
    "words",
    [
        *("--label-smoothing 0.1", "--clip-grad 0.01", "--mixup 0.5", "--cutmix 1"),
        *("--auto-augment ra", "--nesterov", "--momentum 0.5", "--wd 0.1", "--optimizer adamw"),
        *("--accumulate 2", "--zero-init-residual", "--no-wd-norm-bias", "--warmup-epochs 1"),
        *("--sched cosine", "--amp bf16", "--amp fp16"),
    ],
)
def test_an_option_reaches_the_weights(words, default, digits, tmp_path):
    assert not same(brief(digits, tmp_path, *words.split())["state_dict"], default["state_dict"])


def test_the_average_leaves_the_weights_alone(default, digits, tmp_path):
    content = brief(digits, tmp_path, "--ema", "0.9")
    assert same(content["state_dict"], default["state_dict"])
    assert not same(content["state_dict_ema"], content["state_dict"])


def test_skipped_steps_are_counted_and_logged(digits, tmp_path, capsys):
    """The scaler of a run that goes on is set to a factor that half precision can't hold."""
    brief(digits, tmp_path, "--amp", "fp16", "--epochs", "1", "--lr", "0")
    content = torch.load(next(tmp_path.rglob("checkpoint.pth.tar")), weights_only=True)
    content["scaler"]["scale"] = 1e34
    torch.save(content, tmp_path / "overflowing.pth.tar")
    capsys.readouterr()
    other = tmp_path / "other"
    brief(digits, other, "--amp", "fp16", "--resume", str(tmp_path / "overflowing.pth.tar"))
    (line,) = (other / "imagenet-cifar_resnet20-seed3/metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["skipped_steps"] == 2
    assert re.search(r"^Epoch 2/2 .* 2 steps skipped$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.slow
def test_compiled_with_all_options_stopped_and_resumed(many_digits, tmp_path):
    """The same numbers as without --compile, too, as long as rounding can't add up."""

    def job(name, *more):
        options = [*ALL.split(), "-a", "cifar_resnet20", "-j", "0", "--lr", "1e-6", *more]
        arguments = training(many_digits, tmp_path / name, *options)
        return Job(tmp_path / "jobs", COMMAND, *arguments, mark=tmp_path / name)

    def result(name) -> tuple[dict, list[dict]]:
        folder = tmp_path / name / "imagenet-cifar_resnet20-seed1"
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        state = torch.load(folder / "checkpoint.pth.tar", weights_only=True)
        return state, [json.loads(line) for line in lines]

    for name, more in (("whole", ["--compile"]), ("eager", [])):
        with job(name, *more) as run:
            assert run.finish(300) == 0, run.err.read_text()
            assert ("\ncompiled    in " in run.out.read_text()) == bool(more)
    with job("parts", "--compile") as run:
        run.wait_until(lambda: run.steps() >= 2, 300)
        run.process.terminate()
        assert run.finish() == 143
    with job("parts", "--compile", "--resume", "auto") as run:
        assert run.finish(300) == 0
    (whole, lines), (eager, expected), (parts, _) = map(result, ("whole", "eager", "parts"))
    assert_equal(parts, whole, "checkpoint")
    assert whole["state_dict"].keys() == eager["state_dict"].keys()
    for found, wanted in zip(lines, expected, strict=True):
        for name in ("train_loss", "val_loss", "val_ema_loss"):
            assert found[name] == pytest.approx(wanted[name], rel=1e-3)


def test_the_average_is_saved_evaluated_and_judges_the_best(digits, tmp_path, capsys):
    assert run(digits, tmp_path, "--epochs", 2, "--ema", 0.9) == 0
    lines = metrics(tmp_path)
    assert max(line["val_ema_acc1"] for line in lines) == load(tmp_path)["best_acc1"]
    latest = tmp_path / NAME / "checkpoint.pth.tar"
    capsys.readouterr()
    for more, prefix in (([], "val"), (["--ema", 0.9], "val_ema")):
        assert run(digits, tmp_path, "-e", "--resume", latest, *more) == 0
        found = capsys.readouterr().out.splitlines()[-1]
        expected = (lines[-1][f"{prefix}_{name}"] for name in ("acc1", "acc5"))
        assert found == " * Acc@1 {:.3f} Acc@5 {:.3f}".format(*expected)
    target = tmp_path / "average.pth"
    more = ["--resume", latest, "--save-weights", target, "--ema", 0.9]
    assert run(digits, tmp_path, *more) == 0
    average = torch.load(target, weights_only=True)
    assert same(average, load(tmp_path)["state_dict_ema"])
    assert not same(average, load(tmp_path)["state_dict"])


def test_another_optimizers_state_is_refused(digits, tmp_path, capsys):
    assert run(digits, tmp_path, "--epochs", 1) == 0
    before = (tmp_path / NAME / "checkpoint.pth.tar").read_bytes()
    for more in (["--optimizer", "adamw"], ["--no-wd-norm-bias"]):
        assert run(digits, tmp_path, "--epochs", 2, "--resume", "auto", *more) == 2
        assert "another --optimizer or --no-wd-norm-bias" in capsys.readouterr().err
    assert (tmp_path / NAME / "checkpoint.pth.tar").read_bytes() == before


def test_schedule_options_say_the_same(digits, tmp_path):
    for name, more in (("new", ["--sched", "cosine"]), ("old", ["--cos_lr"])):
        words = [*more, "--warmup-epochs", 1, "--epochs", 2]
        assert run(digits, tmp_path / name, *words) == 0
    rates = [line["lr"] for line in metrics(tmp_path / "new")]
    assert rates == [line["lr"] for line in metrics(tmp_path / "old")]
    assert rates == pytest.approx([0.002, 0.001])  # the end of the warm-up, half a cosine


def test_profile_leaves_a_table_and_a_trace(digits, tmp_path, capsys):
    assert run(digits, tmp_path, "--epochs", 2, "--profile", 3) == 0
    trace = json.loads((tmp_path / NAME / "profile.pt.trace.json").read_text())
    names = [event.get("name") for event in trace["traceEvents"]]
    steps = {name for name in names if str(name).startswith("ProfilerStep#")}
    assert len(steps) == 3
    assert "simam::forward" in names
    assert "aten::mkldnn_convolution" in capsys.readouterr().out


def test_an_average_that_forgets_at_once_is_the_network(digits, tmp_path):
    assert run(digits, tmp_path, "--epochs", 1, "--ema", 0) == 0
    content = load(tmp_path)
    assert same(content["state_dict_ema"], content["state_dict"])
    (line,) = metrics(tmp_path)
    assert line["val_ema_loss"] == line["val_loss"]


def test_other_precision_goes_on_from_a_run_without_a_scaler(digits, tmp_path):
    assert run(digits, tmp_path, "--epochs", 1) == 0
    assert run(digits, tmp_path, "--epochs", 2, "--resume", "auto", "--amp", "fp16") == 0
    assert load(tmp_path)["scaler"]["scale"] > 0
    assert run(digits, tmp_path, "--epochs", 3, "--resume", "auto", "--amp", "bf16") == 0
    assert load(tmp_path)["epoch"] == 3
