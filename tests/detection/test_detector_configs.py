"""The shipped configs: what they change, and both installs of mmdetection, both ways of use."""

import shutil
import subprocess
import sys
from pathlib import Path

import detectors
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import RUNNERS

from mmdetection.mmdet.models.backbones.resnet_simam import ResNetSimAM
from networks import create_model

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries older than this torch

DETECTORS = [(kind, depth) for kind in ("faster", "mask") for depth in (50, 101)]


CONFIG = str(detectors.CONFIGS / "{0}_rcnn" / "{0}-rcnn_{1}-{2}_fpn_1x_coco.py")


def config_of(kind: str, depth: int, attention: str = "simam") -> Config:
    return Config.fromfile(CONFIG.format(kind, f"r{depth}", attention))


def mmdetections_own(kind: str, depth: int) -> dict:
    folder = detectors.MIM / "configs" / f"{kind}_rcnn"
    return Config.fromfile(folder / f"{kind}-rcnn_r{depth}_fpn_1x_coco.py").to_dict()


@pytest.mark.parametrize(("kind", "depth"), DETECTORS)
def test_a_config_is_mmdetections_but_for_the_backbone_and_the_rate(kind, depth):
    config = config_of(kind, depth).to_dict()
    expected = mmdetections_own(kind, depth)
    expected["model"]["backbone"] |= dict(
        type="ResNetSimAM",
        attention_type="simam",
        init_cfg=dict(type="Pretrained", checkpoint=f"simam-resnet{depth}.pth"),
    )
    expected["optim_wrapper"]["optimizer"]["lr"] = 0.02 / 16 * 8
    expected["auto_scale_lr"]["base_batch_size"] = 4 * 2
    del config["custom_imports"], config["runner_type"]
    assert config == expected


@pytest.mark.parametrize(("kind", "depth"), DETECTORS)
def test_a_config_builds_its_detector(kind, depth):
    model = MODELS.build(config_of(kind, depth).model)
    assert type(model.backbone) is ResNetSimAM
    assert (model.backbone.depth, model.backbone.attention_param) == (depth, 0.1)
    assert model.with_mask == (kind == "mask")


@pytest.mark.parametrize(("kind", "depth"), DETECTORS)
@pytest.mark.parametrize(("attention", "file"), [("se", "se-resnet"), ("none", "resnet")])
def test_the_papers_other_rows_differ_by_the_attention(kind, depth, attention, file):
    config, simam = config_of(kind, depth, attention).to_dict(), config_of(kind, depth).to_dict()
    simam["model"]["backbone"]["attention_type"] = attention
    simam["model"]["backbone"]["init_cfg"]["checkpoint"] = f"{file}{depth}.pth"
    assert config == simam


@pytest.mark.parametrize("kind", ["faster", "mask"])
def test_resnext_is_the_imagenet_network(kind):
    model = Config.fromfile(CONFIG.format(kind, "x50-32x4d", "simam")).model
    model.backbone.init_cfg = None
    ours = {k: v.shape for k, v in create_model("resnext50_32x4d").state_dict().items()}
    backbone = MODELS.build(model.backbone).state_dict()
    assert {k: v.shape for k, v in backbone.items()} == {
        key: shape for key, shape in ours.items() if not key.startswith("fc.")
    }


def test_weights_that_are_not_there_are_told_before_the_data_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no data/coco
    config = config_of("faster", 50)
    config.work_dir = "run"
    runner = RUNNERS.build(config)  # as mmdetection's tools do, also to test without the file
    command = "python scripts/convert_checkpoint.py CHECKPOINT simam-resnet50.pth --to mmdet"
    with pytest.raises(FileNotFoundError, match=f"simam-resnet50.pth, to train from.*{command}"):
        runner.train()
    with pytest.raises(FileNotFoundError, match="simam-resnet50.pth, to train from"):
        runner.model.init_weights()  # by another runner
    Path("simam-resnet50.pth").touch()
    with pytest.raises(FileNotFoundError, match="instances_train2017.json"):
        runner.train()


USE = """
import sys, torch, mmdet
from mmengine.config import Config
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
init_default_scope("mmdet")
config, written, weights, images, out = sys.argv[1:]
config, written = Config.fromfile(config), Config.fromfile(written)
assert config.model == written.model
config.model.backbone.init_cfg.checkpoint = weights
model = MODELS.build(config.model)
model.init_weights()
model.double().eval()
with torch.no_grad():
    torch.save(model.backbone(torch.load(images)), out)
print(type(model.backbone).__module__, mmdet.__file__, "networks" in sys.modules)
"""


def lay_package(tree: Path) -> Path:
    """The package as pip installs it; returns the folder of its configs."""
    shutil.copytree(detectors.PACKAGE, tree / "mmdet", ignore=shutil.ignore_patterns(".mim"))
    configs = tree / "mmdet" / ".mim" / "configs"
    shutil.copytree(detectors.MIM / "configs", configs)
    return configs


def lay_source(tree: Path) -> Path:
    """The repository's own tree, which `pip install -e .` puts on the path."""
    lay_package(tree)
    return (tree / "mmdet" / ".mim" / "configs").rename(tree / "configs")


@pytest.mark.parametrize("lay", [lay_package, lay_source])
def test_copied_into_mmdetection_it_works_without_this_repository(lay, tmp_path):
    """The process sees the tree and nothing else; it also reads the config as a run in place wrote
    it out. In float64, where the file's own formula and our operator differ by nothing but
    mistakes.
    """
    torch.manual_seed(0)
    tree = tmp_path / "tree"
    configs = lay(tree)
    shutil.copytree(detectors.ROOT / "mmdetection" / "mmdet", tree / "mmdet", dirs_exist_ok=True)
    shutil.copytree(detectors.CONFIGS, configs, dirs_exist_ok=True)
    images = torch.randn(2, 3, 64, 96).double()
    network = detectors.imagenet_network(50, images.float()).double()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    torch.save(images, tmp_path / "images.pth")
    config_of("faster", 50).dump(tmp_path / "written.py")

    config = configs / "faster_rcnn/faster-rcnn_r50-simam_fpn_1x_coco.py"
    names = ("written.py", "weights.pth", "images.pth", "out.pth")
    files = [tmp_path / name for name in names]
    printed = detectors.run_python("-c", USE, config, *files, cwd=tree, path=tree)
    assert f"mmdet.models.backbones.resnet_simam {tree}/mmdet/__init__.py False" in printed

    with torch.no_grad():
        x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        for layer, y in zip(range(1, 5), torch.load(tmp_path / "out.pth"), strict=True):
            x = getattr(network, f"layer{layer}")(x)
            assert (x - y).abs().max() < 1e-10


def test_in_place_beside_a_source_tree_with_custom_imports_of_the_users_own(tmp_path):
    lay_source(tmp_path / "tree")
    base = CONFIG.format("mask", "r50", "simam")
    (tmp_path / "own.py").write_text(f"_base_ = '{base}'\ncustom_imports = dict(imports=['json'])")
    code = (
        "import sys; from mmengine.config import Config; from mmdet.registry import MODELS; "
        "print(type(MODELS.build(Config.fromfile(sys.argv[1]).model.backbone)))"
    )
    path = f"{tmp_path / 'tree'}:{detectors.ROOT}"
    printed = detectors.run_python("-c", code, tmp_path / "own.py", path=path)
    assert "mmdetection.mmdet.models.backbones.resnet_simam.ResNetSimAM" in printed


def test_a_copy_beside_an_installed_mmdetection_says_which_is_imported(tmp_path):
    shutil.copytree(detectors.CONFIGS, tmp_path / "configs")
    config = tmp_path / "configs/faster_rcnn/faster-rcnn_r50-simam_fpn_1x_coco.py"
    code = "import sys; from mmengine.config import Config; Config.fromfile(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, config],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    said = done.stderr.splitlines()[-1]
    assert said.startswith(
        f"ImportError: the mmdet that is imported, {detectors.PACKAGE}, has no ResNetSimAM"
    )
    assert "PYTHONPATH=." in said
