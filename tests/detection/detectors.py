"""What the tests of the detectors share; importing it skips a test file without mmdetection.

    bash scripts/setup_mmdet.sh
    .venv-mmdet/bin/python -m pytest --confcutdir=tests/detection tests/detection

The folder is not called mmdet: on the path of the other tests, it would be found as that package.
"""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from networks import create_model

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "mmdetection" / "configs"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of libraries older than this torch
    pytest.importorskip("mmdet", reason="mmdetection is not installed: bash scripts/setup_mmdet.sh")
    import mmdet.apis  # noqa: F401

    from mmdetection.mmdet.models.backbones import resnet_simam  # noqa: F401


def imagenet_network(depth: int, images: torch.Tensor) -> nn.Module:
    """Our ResNet with SimAM, its norms holding the statistics of `images` as after training."""
    network = create_model(f"resnet{depth}", "simam", 0.1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(images)
    return network.eval()


def run_python(*arguments, cwd=None, path=ROOT) -> str:
    """`python ...` in a process of its own with `path` on its path; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(path)},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr
