"""Whole runs of scripts/train_cifar.py on real images: its recipe, stopping, going on."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from jobs import Job
from PIL import Image
from runs import SignalAtForward, assert_equal

from networks.cifar.resnet import CifarResNet
from scripts.make_digits import write_digits
from scripts.train_cifar import main

STEPS = 3  # 280 images in batches of 128
NAME = "digits32-cifar_resnet20-simam-param0.0001-seed1"


def command(images: Path, root: Path, *more) -> list[str]:
    words = f"--data-dir {images} --gpu -1 --iterations 5 -p 1 --ckpt {root}"
    return words.split() + [str(word) for word in more]


def run(images: Path, root: Path, *more) -> int:
    return main(command(images, root, "--attentions", "simam", *more))


def load(root: Path, name: str = "checkpoint.pth.tar") -> dict:
    return torch.load(root / NAME / name, weights_only=True)


def curves(root: Path, name: str = NAME) -> list[dict]:
    lines = (root / name / "metrics.jsonl").read_text().splitlines()
    timing = {"images_per_s", "seconds"}
    return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in lines]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """As the processes of `Job` have; sums differ in their last bits between numbers of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def undisturbed(digits32, tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    assert run(digits32, root) == 0
    return root


def assert_same_run(root: Path, reference: Path) -> None:
    for name in ("checkpoint.pth.tar", "model_best.pth.tar"):
        assert_equal(load(root, name), load(reference, name), name)
    assert curves(root) == curves(reference)


def test_the_recipe_is_the_papers(undisturbed):
    state = load(undisturbed)
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
    assert [line["lr"] for line in curves(undisturbed)] == pytest.approx([0.1, 0.001])
    log = (undisturbed / NAME / "log.txt").read_text().splitlines()
    beginnings = ["device ", "network ", "parameters ", "FLOPs ", "data ", "run folder "]
    assert all(line.startswith(start) for line, start in zip(log, beginnings, strict=False))
    assert "schedule    5 iterations, shortened from 64,000, 2 epochs" in log


@pytest.mark.parametrize(
    ("forward", "position"),
    [
        pytest.param(1 + STEPS + 1 + 2, (1, 2), id="within an epoch"),
        pytest.param(1 + STEPS + 1, (0, STEPS), id="in the validation"),
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(
    undisturbed, digits32, tmp_path, capsys, forward, position
):
    with SignalAtForward(CifarResNet, forward, signal.SIGTERM):
        assert run(digits32, tmp_path) == 143
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].endswith(f"{tmp_path / NAME}; the same command goes on")
    stopped = load(tmp_path)
    assert (stopped["epoch"], stopped["step"]) == position
    assert run(digits32, tmp_path) == 0
    assert_same_run(tmp_path, undisturbed)


def test_a_killed_run_goes_on_bit_for_bit(undisturbed, digits32, tmp_path):
    script = ROOT / "scripts" / "train_cifar.py"
    words = command(digits32, tmp_path / "ckpts", "--attentions", "simam")
    with Job(tmp_path / "output", script, *words, mark=tmp_path) as job:
        job.wait_until(lambda: "Epoch 2/2 [1/3]" in job.out.read_text())
        os.kill(job.process.pid, signal.SIGKILL)
        assert job.finish() == -signal.SIGKILL
    assert run(digits32, tmp_path / "ckpts") == 0
    assert_same_run(tmp_path / "ckpts", undisturbed)


def test_finished_runs_are_passed_over_and_missing_ones_made(digits32, tmp_path, capsys):
    short = "--iterations", 3, "--attentions"
    assert main(command(digits32, tmp_path, *short, "none")) == 0
    first = tmp_path / "digits32-cifar_resnet20-seed1"
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    capsys.readouterr()
    assert main(command(digits32, tmp_path, *short, "none,se", "--seeds", "1,2")) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"finished    {first}"
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    names = {"", "-se-param16"}
    expected = {f"digits32-cifar_resnet20{name}-seed{seed}" for name in names for seed in (1, 2)}
    assert {path.name for path in tmp_path.iterdir()} == expected
    states = [
        torch.load(tmp_path / name / "checkpoint.pth.tar", weights_only=True)["state_dict"]
        for name in sorted(expected)
    ]
    assert all((tmp_path / name / "model_best.pth.tar").exists() for name in expected)
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


def test_a_folder_of_another_run_is_left_alone(undisturbed, digits32, tmp_path, capsys):
    before = load(undisturbed)
    words = command(digits32, undisturbed, "--attentions", "simam")
    error = one_error(capsys, *words, "--iterations", 6)
    assert f"{undisturbed / NAME} holds a run with iterations 5, this one has 6" in error
    assert "give another --ckpt" in error
    other = tmp_path / "other" / "digits32"
    write_digits(other, val=2, train=28)
    for path in other.rglob("*.png"):
        Image.open(path).resize((32, 32)).rotate(90).save(path)
    error = one_error(capsys, *words, "--data-dir", other)
    assert "holds a run with checksum" in error
    assert_equal(load(undisturbed), before, "checkpoint")


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
