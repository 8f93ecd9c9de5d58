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
    import torch.ao.quantization.quantize_fx
    import torch.fx.experimental.optimization  # noqa: F401
    from mmengine.registry import init_default_scope

    from mmdetection.mmdet.models.backbones import resnet_simam  # noqa: F401

    init_default_scope("mmdet")  # as mmdetection's tools do with every config

PACKAGE = Path(mmdet.__file__).parent
# where its configs and tools are: in it, or beside it where it is installed from source
MIM = PACKAGE / ".mim" if (PACKAGE / ".mim").is_dir() else PACKAGE.parent


def with_statistics(network: nn.Module, images: torch.Tensor) -> nn.Module:
    """`network`, its norms holding the statistics of `images` as after training."""
    norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        network(images)
    return network.eval() or network  # mmdetection's returns nothing


def imagenet_network(depth: int, images: torch.Tensor) -> nn.Module:
    """Our ResNet with SimAM, with the statistics of `images`."""
    return with_statistics(create_model(f"resnet{depth}", "simam", 0.1), images)


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
