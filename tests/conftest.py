"""Fixtures for all tests: seeds, devices, small real images, the command as users run it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    return torch.device(request.param)


def write_digits(folder: Path, per_class: dict[str, int], classes: int = 10) -> Path:
    """Real images: scikit-learn's handwritten digits as folder/<split>/<digit>/<number>.png."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(classes):
        images = iter(digits.images[digits.target == label])
        for split, count in per_class.items():
            target = folder / split / str(label)
            target.mkdir(parents=True)
            for index in range(count):
                pixels = np.uint8(next(images) * 255 / 16)
                Image.fromarray(pixels).save(target / f"{index:03}.png")
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """Three classes, 24 training and 12 validation images."""
    return write_digits(tmp_path_factory.mktemp("digits"), {"train": 8, "val": 4}, 3)


def run_command(*arguments, cwd=None, timeout=300, **environment) -> subprocess.CompletedProcess:
    """`python main_imagenet.py ...` in a process of its own, on the CPU, one thread."""
    return subprocess.run(
        [sys.executable, str(ROOT / "main_imagenet.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
