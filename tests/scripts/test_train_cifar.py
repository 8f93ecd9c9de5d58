"""Whole runs of scripts/train_cifar.py on real images: its recipe, stopping, going on."""

import shutil
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image
from runs import SignalAtForward, assert_equal, assert_same_run, load, metrics, path

from networks.cifar.resnet import CifarResNet
from scripts.train_cifar import main

STEPS = 3  # 280 images in batches of 128


def command(images: Path, root: Path, *more) -> list[str]:
    words = f"--data-dir {images} --gpu -1 --iterations 5 -p 1 --ckpt {root}"
    return words.split() + [str(word) for word in more]


def run(images: Path, root: Path, *more) -> int:
    return main(command(images, root, "--attentions", "simam", *more))


@pytest.fixture(scope="module")
def whole(digits32, tmp_path_factory):
    """Where a run was made from beginning to end."""
    root = tmp_path_factory.mktemp("whole")
    assert run(digits32, root) == 0
    return root


def test_the_recipe_is_the_papers(whole):
    state = load(whole)
    assert (state["batch_size"], state["attention_param"], state["epoch"]) == (128, 1e-4, 2)
    (group,) = state["optimizer"]["param_groups"]
    assert {name: group[name] for name in ("momentum", "weight_decay", "nesterov")} == {
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "nesterov": False,
    }
    parameters = sum(1 for _ in CifarResNet(20).parameters())
    assert len(group["params"]) == parameters  # norms and biases decay too
    # of 5 iterations, those from the 3rd on are at a tenth, from the 4th on at a hundredth
    assert [line["lr"] for line in metrics(whole)] == pytest.approx([0.1, 0.001])
    log = path(whole, "log.txt").read_text().splitlines()
    beginnings = ["device", "network", "parameters", "FLOPs", "data", "schedule", "run"]
    assert [line.split()[0] for line in log[: len(beginnings)]] == beginnings
    assert "schedule    5 iterations, shortened from 64,000, 2 epochs" in log


@pytest.mark.parametrize(
    ("forward", "position"),
    [
        pytest.param(1 + STEPS + 1 + 2, (1, 2), id="within an epoch"),
        pytest.param(1 + STEPS + 1, (0, STEPS), id="in the validation"),
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(whole, digits32, tmp_path, capsys, forward, position):
    with SignalAtForward(CifarResNet, forward, signal.SIGTERM):
        assert run(digits32, tmp_path) == 143
    (said,) = capsys.readouterr().err.splitlines()
    assert said.endswith(f"{path(tmp_path).parent}; the same command goes on")
    stopped = load(tmp_path)
    assert (stopped["epoch"], stopped["step"]) == position
    assert run(digits32, tmp_path) == 0
    assert_same_run(tmp_path, whole)


def test_finished_runs_are_passed_over_and_missing_ones_made(whole, digits32, tmp_path, capsys):
    root = shutil.copytree(whole, tmp_path / "ckpts")
    first = path(root).parent
    before = {each.name: each.read_bytes() for each in first.iterdir()}
    # in another order than the first run's, for it stands in one with the others
    assert main(command(digits32, root, "--attentions", "simam,none", "--iterations", 5)) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"finished    {first}"
    assert {each.name: each.read_bytes() for each in first.iterdir()} == before
    short = "--iterations", 1, "--attentions", "none,se", "--seeds", "2,1"
    others = tmp_path / "others"
    assert main(command(digits32, others, *short)) == 0
    names = [
        f"digits32-cifar_resnet20{name}-seed{seed}"
        for name in ("", "-se-param16")
        for seed in (1, 2)
    ]
    assert {each.name for each in others.iterdir()} == set(names)
    states = [
        torch.load(others / name / "model_best.pth.tar", weights_only=True)["state_dict"]
        for name in names
    ]
    assert not torch.equal(states[0]["fc.weight"], states[1]["fc.weight"])


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


def test_a_folder_of_another_run_is_left_alone(whole, digits32, tmp_path, capsys):
    before = load(whole)
    words = command(digits32, whole, "--attentions", "simam")
    error = one_error(capsys, *words, "--iterations", 6)
    assert f"{whole / NAME} holds a run with iterations 5, this one has 6" in error
    assert "give another --ckpt" in error
    other = tmp_path / "other" / "digits32"
    write_digits(other, val=2, train=28)
    for path in other.rglob("*.png"):
        Image.open(path).resize((32, 32)).rotate(90).save(path)
    error = one_error(capsys, *words, "--data-dir", other)
    assert "holds a run with checksum" in error
    assert_equal(load(whole), before, "checkpoint")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--arch", "cifar_resnet21"], "unknown arch 'cifar_resnet21'; known: cifar_resnet"),
        (["--attentions", "none,simm"], "unknown attention 'simm'; known: simam"),
        (["--attentions", "se,se"], "se,se names one twice"),
        (["--seeds", "1,x"], "invalid list value: '1,x'"),
        (["--iterations", "0"], "0 is not at least 1"),
        (["--data-dir", "nowhere"], "data folder nowhere does not exist"),
        (["--root", "nowhere"], "nowhere does not hold cifar10"),
        (["--gpu", "99"], "--gpu 99: this machine has"),
    ],
)
def test_mistakes_are_one_line(options, words, tmp_path, capsys):
    assert words in one_error(capsys, "--ckpt", tmp_path / "ckpts", *options)
    assert not (tmp_path / "ckpts").exists()
