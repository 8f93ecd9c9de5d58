"""Whole runs with options that change what a run does, keeps and says."""

import json
import signal

import pytest
import torch
from jobs import Job, checkpoint, same, training
from test_training import NAME, SignalAtForward, load, metrics, run

import main_imagenet
from networks import create_model

ALL = (
    "--accumulate 2 --amp fp16 --auto-augment ra --clip-grad 1 --cutmix 1 --ema 0.9 "
    "--label-smoothing 0.1 --mixup 0.2 --nesterov --no-wd-norm-bias --sched cosine "
    "--warmup-epochs 1 --zero-init-residual"
)


def assert_same_states(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name in ("state_dict", "state_dict_ema"):
        assert same(one[name], other[name])
    buffers = [list(each["optimizer"]["state"].values()) for each in (one, other)]
    for a, b in zip(*buffers, strict=True):
        assert same(a, b)
    for name in ("scaler", "sums", "ema_updates", "best_acc1", "epoch"):
        assert one[name] == other[name]


def test_all_options_together_stopped_and_resumed(digits, tmp_path):
    """Two updates an epoch, each in two parts."""
    assert run(digits, tmp_path / "whole", "--epochs", 2, *ALL.split()) == 0
    # the FLOPs, two steps in two parts, two networks on two batches each, and one pass more
    with SignalAtForward(1 + 4 + 4 + 1, signal.SIGTERM):
        assert run(digits, tmp_path / "parts", "--epochs", 2, *ALL.split()) == 143
    stopped = load(tmp_path / "parts")
    assert (stopped["epoch"], stopped["step"]) == (1, 1)
    assert stopped["batch_size"] == 12
    assert run(digits, tmp_path / "parts", "--epochs", 2, "--resume", "auto", *ALL.split()) == 0
    assert_same_states(load(tmp_path / "parts"), load(tmp_path / "whole"))


@pytest.mark.slow
def test_compiled_with_all_options_stopped_and_resumed(many_digits, tmp_path):
    options = [*ALL.split(), "--compile", "-j", "0"]

    def job(root, *more):
        arguments = training(many_digits, tmp_path / root, *options, *more)
        return Job(tmp_path / "jobs", main_imagenet.__file__, *arguments, mark=tmp_path / root)

    with job("whole") as whole:
        assert whole.finish(600) == 0
    log = checkpoint(tmp_path / "whole", "log.txt").read_text()
    assert "\ncompiled    in " in log
    with job("parts") as parts:
        parts.wait_until(lambda: parts.steps() >= 2, 600)
        parts.process.terminate()
        assert parts.finish(120) == 143
    with job("parts", "--resume", "auto") as parts:
        assert parts.finish(600) == 0
    states = [
        torch.load(checkpoint(tmp_path / root), weights_only=True) for root in ("parts", "whole")
    ]
    assert_same_states(*states)
    assert states[0]["state_dict"].keys() == create_model("mobilenet_v2").state_dict().keys()


@pytest.mark.slow
def test_a_compiled_network_computes_the_same(digits, tmp_path):
    for name, more in (("eager", []), ("compiled", ["--compile"])):
        assert run(digits, tmp_path / name, "--epochs", 1, *more) == 0
    found, expected = (metrics(tmp_path / name)[0] for name in ("compiled", "eager"))
    for name in ("train_loss", "val_loss"):
        assert found[name] == pytest.approx(expected[name], rel=1e-3)
    assert load(tmp_path / "compiled")["state_dict"].keys() == (
        load(tmp_path / "eager")["state_dict"].keys()
    )


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
