"""Published detectors, written from the description: mmdetection's names around the backbone's."""

from functools import cache

import pytest
import torch
import torchvision

from networks import create_model
from scripts.convert_checkpoint import convert_detector
from utils.checkpoints import Checkpoint, CheckpointError
from utils.checkpoints.detector import detector_of
from utils.checkpoints.formats import read_file

CLASSES = ("person", "bicycle")


@cache
def trunk(arch: str) -> dict:
    state = torchvision.models.get_model(arch).state_dict()
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


def published(arch: str = "resnet18", simam: bool = True) -> dict:
    """A checkpoint of mmdetection 2: SimAM makes a pair of each conv2, and the head has its own."""
    pair = "conv2.0." if simam else "conv2."
    state = {f"backbone.{k.replace('conv2.', pair)}": value for k, value in trunk(arch).items()}
    state["neck.lateral_convs.0.conv.weight"] = torch.randn(4, 4, 1, 1)
    state["roi_head.mask_head.convs.0.conv2.0.weight"] = torch.randn(4)  # not the backbone's
    state["backbone.layer1.0.conv1.total_ops"] = torch.zeros(1)
    meta = {"epoch": 12, "CLASSES": CLASSES, "mmdet_version": "2.11.0"}
    return {"meta": meta, "state_dict": state, "optimizer": {"state": {}}}


def converted(content: dict) -> dict:
    return detector_of(Checkpoint("in.pth", content))


@pytest.mark.parametrize(
    ("arch", "simam"), [("resnet18", True), ("resnet18", False), ("resnet50", True)]
)
def test_only_the_backbones_pairs_are_renamed(arch, simam):
    given = published(arch, simam)
    out = converted(given)
    assert out.keys() == {"meta", "state_dict"}
    assert out["meta"] == {"dataset_meta": {"classes": CLASSES}}
    assert len(out["state_dict"]) == len(given["state_dict"]) - 1
    backbone = [key for key in out["state_dict"] if key.startswith("backbone.")]
    assert backbone == [f"backbone.{key}" for key in trunk(arch)]
    for key, value in out["state_dict"].items():
        source = key.replace("conv2.", "conv2.0.") if simam and "backbone" in key else key
        assert torch.equal(value, given["state_dict"][source])


@pytest.mark.parametrize(
    ("arch", "attention"), [("resnet18", "se"), ("resnet50", "eca"), ("resnext50_32x4d", "none")]
)
def test_what_mmdetection_3_trained_keeps_weights_classes_and_config(arch, attention):
    network = create_model(arch, attention).state_dict()
    state = {f"backbone.{key}": value for key, value in network.items() if key[:3] != "fc."}
    meta = {"epoch": 12, "cfg": "model = dict()", "dataset_meta": {"classes": CLASSES}}
    momentum = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": []}
    out = converted({"meta": meta, "state_dict": state, "optimizer": momentum, "message_hub": {}})
    assert out["meta"] == {"dataset_meta": {"classes": CLASSES}, "cfg": "model = dict()"}
    assert out["state_dict"].keys() == state.keys()


def test_as_safetensors_it_is_weights_and_classes(tmp_path):
    torch.save(published(), tmp_path / "in.pth")
    convert_detector(str(tmp_path / "in.pth"), str(tmp_path / "out.safetensors"))
    content = read_file(str(tmp_path / "out.safetensors"))
    assert content["classes"] == list(CLASSES)
    assert content["state_dict"].keys() == converted(published())["state_dict"].keys()


def test_a_bare_state_dict_of_data_parallel():
    state = {f"module.{key}": value for key, value in published()["state_dict"].items()}
    out = converted(state)
    assert out["meta"] == {}
    assert out["state_dict"].keys() == converted(published())["state_dict"].keys()


@pytest.mark.parametrize(
    ("meta", "classes"),
    [
        ({"CLASSES": None, "dataset_meta": {"classes": list(CLASSES)}}, CLASSES),  # mmdetection 3
        *(("a string", ()), (None, ()), ({"dataset_meta": None}, ())),
        *(({"CLASSES": each}, ()) for each in (5, "person", torch.ones(2), [1, 2])),
        ({"dataset_meta": {"classes": {"person": 1}}}, ()),
    ],
    ids=str,
)
def test_of_the_rest_only_the_names_of_the_classes_stay(meta, classes):
    expected = {"dataset_meta": {"classes": classes}} if classes else {}
    assert converted(published() | {"meta": meta})["meta"] == expected


@pytest.mark.parametrize(
    ("missing", "surplus", "message"),
    [
        ("layer2.0.bn1.bias", None, r"resnet18\) .* 1 missing \(layer2.0.bn1.bias\)"),
        ("layer3.1.conv2.0.weight", None, r"resnet18\) .* 1 missing \(layer3.1.conv2.weight\)"),
        (None, "module.bn1.bias", "is ambiguous: both bn1.bias and module.bn1.bias mean bn1.bias"),
    ],
)
def test_a_backbone_that_is_not_whole_is_refused(missing, surplus, message):
    content = published()
    content["state_dict"].pop(f"backbone.{missing}", None)
    content["state_dict"] |= {f"backbone.{surplus}": torch.zeros(64)} if surplus else {}
    with pytest.raises(CheckpointError, match=f"^checkpoint in.pth .*{message}"):
        converted(content)


def test_what_is_no_detector_is_refused():
    with pytest.raises(
        CheckpointError, match="in.pth holds no detector: no key begins with backbo"
    ):
        converted(trunk("resnet18"))
    with pytest.raises(CheckpointError, match="in.pth holds no network weights"):
        converted({"meta": {}})
