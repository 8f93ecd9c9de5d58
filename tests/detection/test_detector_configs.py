import shutil
from pathlib import Path

import detectors
import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdetection.mmdet.models.backbones.resnet_simam import ResNetSimAM

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries older than this torch

DETECTORS = [(kind, depth) for kind in ("faster", "mask") for depth in (50, 101)]


def config_of(kind: str, depth: int) -> Config:
    return Config.fromfile(
        detectors.CONFIGS / f"{kind}_rcnn/{kind}-rcnn_r{depth}-simam_fpn_1x_coco.py"
    )


def mmdetections_own(kind: str, depth: int) -> dict:
    folder = Path(mmdet.__file__).parent / ".mim" / "configs" / f"{kind}_rcnn"
    return Config.fromfile(folder / f"{kind}-rcnn_r{depth}_fpn_1x_coco.py").to_dict()


def without_scopes(value):
    if isinstance(value, dict):
        return {k: without_scopes(v) for k, v in value.items() if k != "_scope_"}
    return [without_scopes(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("kind", "depth"), DETECTORS)
def test_a_config_is_mmdetections_but_for_the_backbone_and_the_rate(kind, depth):
    config = without_scopes(config_of(kind, depth).to_dict())
    expected = mmdetections_own(kind, depth)
    expected["model"]["backbone"] |= dict(
        type="ResNetSimAM",
        attention_type="simam",
        attention_param=0.1,
        init_cfg=dict(type="Pretrained", checkpoint=f"simam-resnet{depth}.pth"),
    )
    expected["optim_wrapper"]["optimizer"]["lr"] = 0.02 / 16 * 8
    expected["auto_scale_lr"]["base_batch_size"] = 4 * 2
    assert config.pop("custom_imports") == dict(
        imports=["mmdetection.mmdet.models.backbones.resnet_simam"]
    )
    assert config == expected


@pytest.mark.parametrize(("kind", "depth"), DETECTORS)
def test_a_config_builds_its_detector(kind, depth):
    model = MODELS.build(config_of(kind, depth).model)
    assert type(model.backbone) is ResNetSimAM
    assert model.backbone.depth == depth
    assert model.with_mask == (kind == "mask")


USE = """
import sys, torch, mmdet
from mmengine.config import Config
from mmdet.registry import MODELS
config, weights, images, out = sys.argv[1:]
config = Config.fromfile(config)
config.model.backbone.init_cfg.checkpoint = weights
model = MODELS.build(config.model)
model.init_weights()
model.double().eval()
with torch.no_grad():
    torch.save(model.backbone(torch.load(images)), out)
print(type(model.backbone).__module__, mmdet.__file__, "networks" in sys.modules)
"""


def test_copied_into_mmdetection_it_works_without_this_repository(tmp_path):
    """The folder is put into a copy of the installed package, whose process sees nothing else.

    In float64, where the file's own formula and our operator differ by nothing but mistakes.
    """
    torch.manual_seed(0)
    tree = tmp_path / "tree"
    shutil.copytree(Path(mmdet.__file__).parent, tree / "mmdet")
    shutil.copytree(detectors.ROOT / "mmdetection" / "mmdet", tree / "mmdet", dirs_exist_ok=True)
    shutil.copytree(detectors.CONFIGS, tree / "mmdet" / ".mim" / "configs", dirs_exist_ok=True)
    images = torch.randn(2, 3, 64, 96).double()
    network = detectors.imagenet_network(50, images.float()).double()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    torch.save(images, tmp_path / "images.pth")

    config = tree / "mmdet/.mim/configs/faster_rcnn/faster-rcnn_r50-simam_fpn_1x_coco.py"
    files = [tmp_path / name for name in ("weights.pth", "images.pth", "out.pth")]
    printed = detectors.run_python("-c", USE, config, *files, cwd=tree, path=tree)
    assert f"mmdet.models.backbones.resnet_simam {tree}/mmdet/__init__.py False" in printed

    with torch.no_grad():
        x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        for layer, y in zip(range(1, 5), torch.load(tmp_path / "out.pth"), strict=True):
            x = getattr(network, f"layer{layer}")(x)
            assert (x - y).abs().max() < 1e-10
