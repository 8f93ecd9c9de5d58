"""Fixtures for all tests: seeds, devices, small real images, the command as users run it."""

import fcntl
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from networks import ATTENTIONS, create_attention
from scripts.make_digits import write_digits

ROOT = Path(__file__).resolve().parent.parent

# One thread in this process and in those that tests start: several tests may run at once, and sums
# differ in their last bits between numbers of threads.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# the modules without weights, which weights can't tell from one another
STATELESS = [name for name in ATTENTIONS if not create_attention(name, 64).state_dict()]


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):  # a folder of that name is a keyword, too
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_terminal_summary(terminalreporter):
    for outcome in ("failed", "error"):
        for report in terminalreporter.getreports(outcome):
            terminalreporter.line(f"again: bash scripts/test.sh --all {shlex.quote(report.nodeid)}")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _deterministic_algorithms_off():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    return torch.device(request.param)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """made_once(name, make) -> a folder that `make` filled, in whichever of pytest-xdist's
    processes wanted it first; nobody may write to it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def made_once(name: str, make: Callable[[Path], None]) -> Path:
        folder, whole = root / name, root / f"{name}.whole"
        with open(root / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return made_once


@pytest.fixture(scope="session")
def digits(made_once) -> Path:
    """Three classes, 24 training and 12 validation images."""
    return made_once("digits", lambda folder: write_digits(folder, val=4, train=8, classes=3))


@pytest.fixture(scope="session")
def digits32(made_once) -> Path:
    """Ten classes, 280 training and 20 validation images of 32x32 pixels: three steps of 128."""

    def make(folder: Path) -> None:
        write_digits(folder, val=2, train=28)
        for path in folder.rglob("*.png"):
            Image.open(path).resize((32, 32)).save(path)

    return made_once("digits32", make)


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """Two photographs, the JPEG files that come with scikit-learn."""
    import sklearn.datasets

    folder = Path(sklearn.datasets.__file__).parent / "images"
    return [folder / "china.jpg", folder / "flower.jpg"]


@pytest.fixture(scope="session")
def trained(digits, made_once) -> Path:
    """The run folder of a SimAM ResNet-18, two epochs on `digits` at 32 pixels."""
    from main_imagenet import main  # here: the networks' tests run without its packages too

    def make(root: Path) -> None:
        words = "--attention-type simam --attention-param 0.1 --image-size 32 --epochs 2 -b 8 -j 0 "
        words += f"--lr 0.02 --seed 1 --gpu -1 --ckpt {root}"
        assert main([str(digits), *words.split()]) == 0

    (folder,) = made_once("trained", make).iterdir()
    return folder


@pytest.fixture(scope="session")
def undisturbed(digits, made_once) -> Path:
    """Where `runs.run` trained three epochs from beginning to end."""
    from runs import run

    def make(root: Path) -> None:
        assert run(digits, root, "--epochs", 3) == 0

    return made_once("undisturbed", make)


@pytest.fixture
def not_a_number(trained, tmp_path) -> Path:
    """The checkpoint of `trained` with one NaN among its weights."""
    content = torch.load(trained / "model_best.pth.tar", weights_only=True)
    content["state_dict"]["fc.bias"][1] = float("nan")
    torch.save(content, tmp_path / "nan.pth")
    return tmp_path / "nan.pth"


def run_python(*words, cwd=ROOT, timeout=300, **environment) -> subprocess.CompletedProcess:
    """`python WORDS` in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        env={**os.environ, **environment},
    )


def run_command(*arguments, cwd=None, **options) -> subprocess.CompletedProcess:
    """`python main_imagenet.py ...` in a process of its own."""
    return run_python(ROOT / "main_imagenet.py", *arguments, cwd=cwd, **options)
