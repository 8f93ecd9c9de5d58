"""Whole runs of scripts/train_cifar.py on real images: its recipe, stopping, going on."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import replays
import torch
from PIL import Image
from runs import SignalAtForward, assert_same_run, load, metrics, path, same
from tiny import Tiny

from networks import MODELS
from networks.cifar.resnet import CifarResNet
from scripts.train_cifar import main, parse_args, read_folder, recipe, train_together
from utils import recording
from utils.config import Network
from utils.processes.dist import alone
from utils.report.runs import read_finished

STEPS = 2  # 140 images in batches of 128


def command(images: Path, root: Path, *more) -> list[str]:
    words = f"--data-dir {images} --gpu -1 --iterations 3 -p 1 --ckpt {root}"
    return words.split() + [str(word) for word in more]


def run(images: Path, root: Path, *more) -> int:
    return main(command(images, root, "--attentions", "simam", *more))


@pytest.fixture(scope="module")
def images(digits32, tmp_path_factory):
    """Every other training image of `digits32`."""
    folder = shutil.copytree(digits32, tmp_path_factory.mktemp("half") / "digits32")
    for each in folder.glob("train/*/*[13579].png"):
        each.unlink()
    return folder


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """Where a run was made from beginning to end."""
    root = tmp_path_factory.mktemp("whole")
    assert run(images, root) == 0
    return root


def test_the_recipe_is_the_papers(whole):
    state = load(whole)
    assert (state["batch_size"], state["attention_param"], state["epoch"]) == (128, 1e-4, 2)
    (group,) = state["optimizer"]["param_groups"]
    settings = group["momentum"], group["weight_decay"], group["nesterov"]
    assert settings == (0.9, 5e-4, False)
    parameters = sum(1 for _ in CifarResNet(20).parameters())
    assert len(group["params"]) == parameters  # norms and biases decay too
    # of 3 iterations, the last is at a tenth; the one that completes the epoch at a hundredth
    assert [line["lr"] for line in metrics(whole)] == pytest.approx([0.1, 0.001])
    log = path(whole, "log.txt").read_text().splitlines()
    beginnings = ["command", "started", "device", "network", "SimAM", "parameters", "FLOPs"]
    beginnings += ["data", "schedule", "run"]
    assert [line.split()[0] for line in log[: len(beginnings)]] == beginnings
    assert "schedule    3 iterations, shortened from 64,000, 2 epochs" in log


def test_a_stopped_run_goes_on_bit_for_bit(whole, images, tmp_path, capsys):
    """Within its second epoch; at other moments, tests/training/test_run.py stops."""
    with SignalAtForward(CifarResNet, 1 + STEPS + 1 + 1, signal.SIGTERM):
        assert run(images, tmp_path) == 143
    (said,) = capsys.readouterr().err.splitlines()
    assert said.endswith(f"{path(tmp_path).parent}; the same command goes on")
    stopped = load(tmp_path)
    assert (stopped["epoch"], stopped["step"]) == (1, 1)
    assert run(images, tmp_path) == 0
    assert_same_run(tmp_path, whole)


def test_fewer_evaluations_make_the_same_weights(whole, images, tmp_path):
    assert run(images, tmp_path, "--eval-every", 5) == 0
    assert same(load(tmp_path)["state_dict"], load(whole)["state_dict"])
    (line,) = metrics(tmp_path)
    assert (line["epoch"], line["val_acc1"]) == (1, metrics(whole)[1]["val_acc1"])
    assert read_finished(path(tmp_path).parent)


def test_seeds_at_once_make_the_weights_of_each_alone(images, tmp_path, monkeypatch, capsys):
    """Stopped and gone on with, too; the third has no partner."""
    monkeypatch.setitem(MODELS, "tiny", Tiny)
    words = "--arch", "tiny", "--seeds", "1,2,3"
    assert run(images, tmp_path / "alone", *words) == 0
    capsys.readouterr()
    together = tmp_path / "together"
    with SignalAtForward(Tiny, 2 + 2 + 1, signal.SIGTERM):
        assert run(images, together, *words, "--concurrent", 2) == 143
    stopped = [torch.load(each, weights_only=True) for each in together.glob("*/checkpoint*")]
    assert sorted((state["seed"], state["step"]) for state in stopped) == [(1, 2), (2, 2)]
    assert run(images, together, *words, "--concurrent", 2) == 0
    folders = [together / f"digits32-tiny-simam-param0.0001-seed{seed}" for seed in (1, 2, 3)]
    assert sorted(together.iterdir()) == folders
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(", ")[0] for line in lines] == [f"finished    {each}" for each in folders]
    for each in folders:
        one, other = (
            torch.load(root / each.name / "checkpoint.pth.tar", weights_only=True)
            for root in (tmp_path / "alone", together)
        )
        assert same(one["state_dict"], other["state_dict"])


def test_one_that_fails_leaves_the_others_going_on(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(MODELS, "tiny", Tiny)
    words = "--arch", "tiny", "--seeds", "1,2", "--concurrent", 2
    blocked = tmp_path / "digits32-tiny-simam-param0.0001-seed1"
    blocked.write_text("a file where the run folder should be")
    assert run(images, tmp_path, *words) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert str(blocked) in said.err
    assert [line.split(", ")[0] for line in said.out.splitlines()] == [
        f"finished    {str(blocked)[:-1]}2"
    ]


def test_a_recorded_run_is_the_eager_one(images, tmp_path, monkeypatch):
    """As on a GPU with --compile, but for the compiling."""
    monkeypatch.setitem(MODELS, "tiny", Tiny)
    monkeypatch.setattr(recording, "new_graph", replays.new_graph)
    for name in ("eager", "recorded"):
        args = parse_args(command(images, tmp_path / name, "--iterations", 6))
        config = recipe(args, Network(arch="tiny", attention="se"), 1, "digits32")
        machine = replace(config.machine, record=name == "recorded")
        train_together([replace(config, machine=machine)], read_folder(images), [alone("-1")])
    eager, recorded = (load(tmp_path / name) for name in ("eager", "recorded"))
    assert same(eager["state_dict"], recorded["state_dict"])
    curves = [
        [line["val_loss"] for line in metrics(tmp_path / name)] for name in ("eager", "recorded")
    ]
    assert curves[0] == curves[1]


def test_mixed_precision_is_the_images_type_too(images, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", Tiny)
    assert run(images, tmp_path, "--amp", "bf16", "--iterations", 1, "--arch", "tiny") == 0
    assert metrics(tmp_path)[0]["train_loss"] > 0


@pytest.mark.slow
def test_compiled_steps_train_as_eager_ones(images, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", Tiny)
    for name, *more in (("eager",), ("compiled", "--compile")):
        assert run(images, tmp_path / name, "--arch", "tiny", *more) == 0
    weights = [load(tmp_path / name)["state_dict"] for name in ("eager", "compiled")]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)
    assert "compiled    in" in path(tmp_path / "compiled", "log.txt").read_text()


def test_finished_runs_are_passed_over_and_missing_ones_made(images, tmp_path, capsys):
    short = "--iterations", 1, "--attentions"
    assert main(command(images, tmp_path, *short, "none")) == 0
    first = path(tmp_path).parent
    before = {each.name: each.read_bytes() for each in first.iterdir()}
    capsys.readouterr()
    assert main(command(images, tmp_path, *short, "none,se", "--seeds", "1,2")) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"finished    {first}"
    assert {each.name: each.read_bytes() for each in first.iterdir()} == before
    kinds = "cifar_resnet20", "cifar_resnet20-se-param16"
    folders = [tmp_path / f"digits32-{kind}-seed{seed}" for kind in kinds for seed in (1, 2)]
    assert sorted(tmp_path.iterdir()) == sorted(folders)
    bests = [torch.load(each / "model_best.pth.tar", weights_only=True) for each in folders]
    assert not torch.equal(*(best["state_dict"]["fc.weight"] for best in bests[:2]))


def one_error(capsys, *words) -> str:
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert not said.out
    return said.err


def test_a_folder_of_another_run_is_left_alone(whole, images, tmp_path, capsys):
    before = path(whole).read_bytes()
    words = command(images, whole, "--attentions", "simam")
    error = one_error(capsys, *words, "--iterations", 4)
    assert f"{path(whole).parent} holds a run with iterations 3, this one has 4" in error
    assert "give another --ckpt" in error
    other = shutil.copytree(images, tmp_path / "other" / "digits32")
    image = other / "train" / "0" / "002.png"
    Image.open(image).rotate(90).save(image)
    assert "holds a run with checksum" in one_error(capsys, *words, "--data-dir", other)
    assert path(whole).read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--arch", "cifar_resnet21"], "unknown arch 'cifar_resnet21'; known: cifar_resnet"),
        (["--attentions", "none,simm"], "unknown attention 'simm'; known: simam"),
        (["--seeds", "1,x"], "invalid list value: '1,x'"),
        (["--data-dir", "nowhere"], "data folder nowhere does not exist"),
        (["--root", "nowhere"], "nowhere does not hold cifar10"),
    ],
)
def test_mistakes_are_one_line(options, words, tmp_path, capsys):
    assert words in one_error(capsys, "--ckpt", tmp_path / "ckpts", *options)
    assert not (tmp_path / "ckpts").exists()
