"""A detector as mmdetection 2 saved it, converted and put into the detector of our config."""

import subprocess
import sys

import detectors
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner.checkpoint import load_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries older than this torch


def built() -> torch.nn.Module:
    file = detectors.CONFIGS / "mask_rcnn" / "mask-rcnn_r50-simam_fpn_1x_coco.py"
    return MODELS.build(Config.fromfile(file).model)


def test_it_loads_strictly_with_every_value(tmp_path):
    published, modern = tmp_path / "published.pth", tmp_path / "modern.pth"
    whole = built().state_dict()
    pairs = {
        key.replace(".conv2.", ".conv2.0.") if key.startswith("backbone.") else key: value
        for key, value in whole.items()
    }
    meta = {"mmdet_version": "2.11.0", "epoch": 12, "CLASSES": ("person", "bicycle")}
    torch.save({"meta": meta, "state_dict": pairs, "optimizer": {"state": {}}}, published)
    subprocess.run(
        [sys.executable, detectors.ROOT / "scripts" / "convert_checkpoint.py"]
        + [published, modern, "--from-detector"],
        check=True,
    )
    detector = built()
    content = load_checkpoint(detector, str(modern), strict=True)
    assert content["meta"]["dataset_meta"] == {"classes": ("person", "bicycle")}
    for key, value in detector.state_dict().items():
        assert torch.equal(value, whole[key]), key
