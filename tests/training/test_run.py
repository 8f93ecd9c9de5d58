"""Whole runs of the command, in this process: what they write, stopping, going on, failing."""

import json
import re
import shutil
import signal
import sys

import pytest
import torch
from runs import (
    NAME,
    STEPS,
    SignalAtForward,
    assert_same_run,
    load,
    metrics,
    path,
    run,
    same,
)
from torch import nn

from networks.attentions import ATTENTIONS, Spec, fused
from networks.cifar.resnet import CifarResNet
from utils.config import Network
from utils.processes.dist import Dist
from utils.training.run import header

FIRST_STEP = 2  # forward passes until then: the header counts FLOPs with one


@pytest.fixture
def copied(undisturbed, tmp_path):
    """A run of three epochs to spoil; the bytes of its checkpoint."""
    root = shutil.copytree(undisturbed, tmp_path / "copied")
    return root, path(root).read_bytes()


def test_without_thop_the_header_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "thop", None)
    network = Network(arch="cifar_resnet20", num_classes=10)
    *_, parameters, flops = header(network.build(), network, Dist(0, 1, torch.device("cpu")), 32)
    assert parameters == "parameters  0.27 M"
    assert flops.startswith("FLOPs       not counted, without thop (")


def test_a_run_writes_what_it_promises(undisturbed):
    names = "log.txt metrics.jsonl metrics.csv args.json checkpoint.pth.tar "
    names += "checkpoint_previous.pth.tar model_best.pth.tar"
    found = {each.name for each in (undisturbed / NAME).iterdir()}
    events = {name for name in found if name.startswith("events.out.tfevents")}
    assert found == {*names.split(), *events}
    assert len(events) == 1
    assert json.loads(path(undisturbed, "args.json").read_text())["attention_param"] == 0.1

    lines = metrics(undisturbed)
    expected = (
        "epoch lr train_loss train_acc1 train_acc5 val_loss val_acc1 val_acc5 images_per_s seconds"
    )
    assert [list(line) for line in lines] == 3 * [expected.split()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    accuracies = [line["val_acc1"] for line in lines]
    best = max(accuracies)
    for name, epoch in (
        ("checkpoint.pth.tar", 3),
        ("checkpoint_previous.pth.tar", 2),
        ("model_best.pth.tar", accuracies.index(best) + 1),
    ):
        content = load(undisturbed, name)
        assert content["epoch"] == epoch
        assert content["best_acc1"] == max(accuracies[:epoch])


def test_the_log_tells_the_run(undisturbed):
    said = path(undisturbed, "log.txt").read_text().splitlines()
    expected = ["command", "started", "device", "network", "SimAM", "parameters", "FLOPs", "data"]
    expected.append("run folder")
    for epoch, line in enumerate(metrics(undisturbed), 1):
        numbers = r"  loss \d\.\d{4}  acc@1 \d+\.\d\d  \d+\.\d images/s  "
        for title, steps in (("Epoch", STEPS), ("Validation", 2)):
            for step in range(1, steps + 1):
                left = "0:00:00" if step == steps else r"\d:\d\d:\d\d"
                expected.append(rf"{title} {epoch}/3 \[{step}/{steps}\]{numbers}{left} left$")
        expected += [
            f"Epoch {epoch}/3  lr 0.006  train loss {line['train_loss']:.4f} acc@1 "
            f"{line['train_acc1']:.2f}  val loss {line['val_loss']:.4f}  "
            f"{line['images_per_s']:.1f} images/s  {line['seconds']:.1f} s$",
            rf" \* Acc@1 {line['val_acc1']:.3f}$",  # of three classes, no best five
        ]
    best = max(line["val_acc1"] for line in metrics(undisturbed))
    expected.append(f"best Acc@1  {best:.3f}, {undisturbed / NAME}/model_best.pth.tar$")
    for line, pattern in zip(said, expected, strict=True):
        assert re.match(pattern, line)


def test_neither_workers_nor_going_on_later_change_a_run(undisturbed, digits, tmp_path):
    assert run(digits, tmp_path, "--epochs", 1, "--resume", "auto", "-j", 2) == 0
    assert run(digits, tmp_path, "--epochs", 3, "--resume", path(tmp_path)) == 0
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize(
    ("forward", "signum", "code", "position"),
    [
        pytest.param(1 + STEPS + 2 + 3, signal.SIGUSR1, 143, (1, 3), id="within an epoch"),
        pytest.param(1 + STEPS, signal.SIGTERM, 143, (0, STEPS), id="at an epoch's last step"),
        pytest.param(1 + STEPS + 1, signal.SIGINT, 130, (0, STEPS), id="in the validation"),
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(
    undisturbed, digits, tmp_path, capsys, forward, signum, code, position
):
    with SignalAtForward(CifarResNet, forward, signum):
        assert run(digits, tmp_path, "--epochs", 3) == code
    stopped, (epoch, step) = load(tmp_path), position
    assert (stopped["epoch"], stopped["step"]) == position
    where = f"stopped after epoch {epoch + 1}, step {step} of {STEPS}"
    said = f"{where}; the same command with --resume auto goes on\n"
    assert capsys.readouterr().err == said
    assert run(digits, tmp_path, "--epochs", 3, "--resume", "auto", "-j", 2) == 0
    assert_same_run(tmp_path, undisturbed)


def test_a_run_by_one_operator_goes_on_bit_for_bit(digits, tmp_path, monkeypatch):
    """SimAM in one with norm and activation, which batches of this size would not be worth."""
    monkeypatch.setattr(fused, "SMALL", 0)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(digits, whole, "--epochs", 2) == 0
    with SignalAtForward(CifarResNet, 1 + 2, signal.SIGTERM):
        assert run(digits, parts, "--epochs", 2) == 143
    assert run(digits, parts, "--epochs", 2, "--resume", "auto") == 0
    assert_same_run(parts, whole)


class Drops(nn.Dropout):
    """A module of somebody's own that draws random numbers."""

    def __init__(self, _channels: int, p: float = 0.5, device=None, dtype=None):
        super().__init__(p)


def test_a_module_that_draws_random_numbers_goes_on_bit_for_bit(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(ATTENTIONS, "drops", Spec(Drops, param="p", slot="block"))
    words = ("--attention-type", "drops", "--epochs", 2)
    assert run(digits, tmp_path / "whole", *words) == 0
    with SignalAtForward(CifarResNet, 1 + STEPS + 2 + 2, signal.SIGTERM):
        assert run(digits, tmp_path / "parts", *words) == 143
    torch.rand(7)  # a new process would not stand where the stopped one stood
    assert run(digits, tmp_path / "parts", *words, "--resume", "auto") == 0
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_a_run_that_gets_nothing_right_keeps_its_first_state_as_the_best(digits, tmp_path, capsys):
    # so slow, among so many classes, that no image is ever taken for one of the three there are
    options = ("--num-classes", 1000, "--lr", 1e-9, "--resume", "auto")
    with SignalAtForward(CifarResNet, FIRST_STEP, signal.SIGTERM):
        assert run(digits, tmp_path, *options) == 143
    for epochs in (1, 2):
        assert run(digits, tmp_path, *options, "--epochs", epochs) == 0
        assert [line["val_acc1"] for line in metrics(tmp_path)] == epochs * [0]
        best = load(tmp_path, "model_best.pth.tar")
        assert (best["epoch"], best["best_acc1"]) == (1, 0)
        assert load(tmp_path)["best_acc1"] == 0
        assert f"best Acc@1  0.000, {tmp_path / NAME}/model_best" in capsys.readouterr().out


def test_evaluation_repeats_the_accuracy_at_any_batch_size(undisturbed, digits, tmp_path, capsys):
    best, target = path(undisturbed, "model_best.pth.tar"), tmp_path / "weights.pth"
    assert run(digits, undisturbed, "--resume", best, "--save-weights", target) == 0
    weights = torch.load(target, weights_only=True)
    assert same(weights, load(undisturbed, "model_best.pth.tar")["state_dict"])
    expected = max(metrics(undisturbed), key=lambda line: line["val_acc1"])
    line = f" * Acc@1 {expected['val_acc1']:.3f}"
    before = sorted(undisturbed.rglob("*"))
    for size in (5, 1):
        assert run(digits, undisturbed, "-e", "--resume", best, "-b", size) == 0
        assert capsys.readouterr().out.splitlines()[-1] == line
    assert sorted(undisturbed.rglob("*")) == before


def test_a_loss_that_explodes_ends_the_run_and_keeps_the_checkpoint(copied, digits, capsys):
    root, before = copied
    assert run(digits, root, "--epochs", 4, "--lr", 1e30, "--resume", "auto") == 2
    said = capsys.readouterr()
    assert "changed     --lr 1e+30 (was 0.006), --epochs 4 (was 3)\n" in said.out
    (error,) = said.err.splitlines()
    assert error.startswith("error: the loss is NaN or infinite since epoch 4, step ")
    assert error.endswith(f"(learning rate 1e+30); the last good checkpoint is {path(root)}")
    assert path(root).read_bytes() == before


def test_a_damaged_image_ends_the_run_and_keeps_the_checkpoint(copied, digits, tmp_path, capsys):
    root, before = copied
    data = shutil.copytree(digits, tmp_path / "damaged")
    image = data / "train" / "0" / "001.png"
    image.write_bytes(b"no image")
    assert run(data, root, "--epochs", 4, "--resume", "auto", "-j", 1) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: can't decode image {image} (")
    assert path(root).read_bytes() == before


def test_what_a_run_can_not_go_on_with_is_refused(copied, digits, tmp_path, capsys):
    root, _ = copied
    others = shutil.copytree(digits, tmp_path / "others")
    for split in ("train", "val"):
        (others / split / "2").rename(others / split / "3")
    assert run(others, root, "--epochs", 4, "--resume", "auto") == 2
    assert "was trained on other class folders" in capsys.readouterr().err
    for more in (["--optimizer", "adamw"], ["--no-wd-norm-bias"]):
        assert run(digits, root, "--epochs", 4, "--resume", "auto", *more) == 2
        assert "another --optimizer, --no-wd-norm-bias, --freeze" in capsys.readouterr().err

    published = tmp_path / "published.pth"
    torch.save({"epoch": 90, "state_dict": load(root)["state_dict"]}, published)
    assert run(digits, tmp_path / "new", "--resume", published) == 2
    assert (
        "holds weights but no training state; to start a new training from its weights: "
        f"--weights {published}" in capsys.readouterr().err
    )

    with SignalAtForward(CifarResNet, FIRST_STEP, signal.SIGTERM):
        assert run(digits, tmp_path / "stopped") == 143
    assert "error" not in capsys.readouterr().err
    stopped = path(tmp_path / "stopped")
    for name, option, was, value in (
        *(("batch_size", "-b", 6, 5), ("seed", "--seed", 3, 4)),
        ("decoder", "--image-backend", "turbo", "pil"),
    ):
        assert run(digits, tmp_path / "new", "--resume", stopped, option, value) == 2
        assert (
            f"stands within epoch 1 with {name} {was}, this run has {value}; go on with the same"
            in capsys.readouterr().err
        )
    image = others / "train" / "0" / "000.png"
    for split in ("train", "val"):
        (others / split / "3").rename(others / split / "2")
    image.rename(image.with_name("renamed.png"))
    assert run(others, tmp_path / "new", "--resume", stopped) == 2
    assert "stands within epoch 1 with checksum " in capsys.readouterr().err
    torch.save(load(tmp_path / "stopped") | {"step": -1}, tmp_path / "made.pth.tar")
    assert run(digits, tmp_path / "new", "--resume", tmp_path / "made.pth.tar") == 2
    assert "is damaged: its step is no such thing" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_run_that_is_done_says_so(undisturbed, digits, tmp_path, capsys):
    done = path(undisturbed)
    assert run(digits, tmp_path, "--epochs", 2, "--resume", done) == 0
    said = capsys.readouterr().out
    assert "done        3 epochs, --epochs 2 asks for no more; a larger one goes on\n" in said
    assert "--epochs 2 (was 3)" in said  # also where the checkpoint is another folder's
    assert not path(tmp_path).exists()


def test_one_image_of_one_pixel_is_too_little_for_batch_norm(digits, tmp_path, capsys):
    assert run(digits, tmp_path, "-a", "resnet18", "-b", 1) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: batch norm can't train on one image that became a single pixel")


def test_a_lone_class_is_told(digits, tmp_path, capsys):
    for split in ("train", "val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        (tmp_path / "data" / split / "0").symlink_to(digits / split / "0")
    assert run(tmp_path / "data", tmp_path / "ckpts", "--epochs", 1) == 0
    assert ", 1 classes alone: every answer is right\n" in capsys.readouterr().out
