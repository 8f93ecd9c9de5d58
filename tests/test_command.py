"""The installed package: `networks` to import, `simam` to run, away from the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts.command import COMMANDS, main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """The folder into which pip installed a copy of the sources."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("networks", "utils", "scripts"):
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=skipped)
    for name in ("main_imagenet.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target")
    pip = [sys.executable, "-m", "pip", "install", *options, str(target), str(source)]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    return target


def run(installed, cwd, *command) -> subprocess.CompletedProcess:
    """`command` in `cwd`, where the installed package is all there is."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    words = [str(each) for each in command]
    return subprocess.run(
        words, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300
    )


def test_networks_can_be_imported(installed, tmp_path):
    code = (
        "import networks; from networks import create_model; print(networks.__file__); "
        "print(sum(p.numel() for p in create_model('resnet18', 'simam').parameters()))"
    )
    done = run(installed, tmp_path, sys.executable, "-c", code)
    place, count = done.stdout.split()
    assert Path(place).is_relative_to(installed)
    assert count == "11689512"


def test_predicts_as_the_script(installed, trained, photos, digits, tmp_path):
    words = [*photos, digits / "val", "--checkpoint", trained / "model_best.pth.tar"]
    words += ["--image-size", "32", "--gpu", "-1", "--format", "csv"]
    there = run(installed, tmp_path, installed / "bin" / "simam", "predict", *words)
    assert (there.returncode, there.stderr) == (0, "")
    here = run(ROOT, tmp_path, sys.executable, ROOT / "scripts" / "predict.py", *words)
    assert len(there.stdout.splitlines()) == 1 + 3 * 14
    assert there.stdout == here.stdout


def test_tables_are_made_away_from_the_checkout(installed, tmp_path):
    command = sys.executable, "-m", "scripts.reproduce"
    done = run(installed, tmp_path, *command, "table2", "--archs", "cifar_resnet20")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "ckpts" / "table2.csv").read_text().splitlines()) == 1 + 2 * 6
    done = run(installed, tmp_path, *command, "table3", "--run", "--device", "cpu")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--run needs a checkout of the repository" in done.stderr
    assert done.stderr.count("\n") == 1


def test_trains_in_two_processes(installed, digits, tmp_path):
    words = ["--image-size", "32", "--epochs", "1", "-b", "8", "-j", "0", "--gpu=-1,-1"]
    done = run(installed, tmp_path, installed / "bin" / "simam", "train", digits, *words)
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stdout
    path = tmp_path / "ckpts" / "imagenet-resnet18" / "checkpoint.pth.tar"
    assert torch.load(path, weights_only=True)["epoch"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "a command is missing"),
        (["trian"], "unknown command trian"),
        (["train"], "DATA"),
        (["predict", "a.png"], "--checkpoint"),
    ],
    ids=["nothing", "typo", "train", "predict"],
)
def test_mistakes_are_one_line(installed, tmp_path, words, said):
    done = run(installed, tmp_path, installed / "bin" / "simam", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_help_needs_no_heavy_import():
    code = (
        "import sys; from scripts.command import COMMANDS, main\n"
        "print(main(['--help']))\n"
        "for word in COMMANDS:\n"
        "    try: main([word, '--help'])\n"
        "    except SystemExit as end: print(end.code)\n"
        "print({'torch', 'numpy', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("usage: simam COMMAND")
    assert lines[-1] == "set()"
    assert lines.count("0") == 1 + len(COMMANDS)
    for word in COMMANDS:
        assert any(line.startswith(f"usage: simam {word} ") for line in lines)


def test_exit_code_is_the_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["simam"])
    assert main(["plot-curves", str(tmp_path)]) == 2
    assert "metrics.jsonl" in capsys.readouterr().err
