"""Published detectors, written from the description: mmdetection's names around the backbone's."""

import re

import pytest
import torch
import torchvision

from scripts.convert_checkpoint import main

CLASSES = ("person", "bicycle")


def published(arch: str = "resnet18", simam: bool = True) -> dict:
    """A checkpoint of mmdetection 2: SimAM makes a pair of each conv2, and the head has its own."""
    trunk = getattr(torchvision.models, arch)().state_dict()
    pair = "conv2.0." if simam else "conv2."
    state = {
        f"backbone.{key.replace('conv2.', pair)}": value
        for key, value in trunk.items()
        if not key.startswith("fc.")
    }
    state["neck.lateral_convs.0.conv.weight"] = torch.randn(4, 4, 1, 1)
    state["roi_head.mask_head.convs.0.conv2.0.weight"] = torch.randn(4)  # not the backbone's
    state["backbone.layer1.0.conv1.total_ops"] = torch.zeros(1)
    meta = {"epoch": 12, "CLASSES": CLASSES, "mmdet_version": "2.11.0"}
    return {"meta": meta, "state_dict": state, "optimizer": {"state": {}}}


def converted(content, tmp_path):
    torch.save(content, tmp_path / "in.pth")
    (tmp_path / "out.pth").unlink(missing_ok=True)
    assert main([str(tmp_path / "in.pth"), str(tmp_path / "out.pth"), "--from-detector"]) == 0
    return torch.load(tmp_path / "out.pth", weights_only=True)


@pytest.mark.parametrize("simam", [True, False])
@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_only_the_backbones_pairs_are_renamed(arch, simam, tmp_path):
    content = published(arch, simam)
    out = converted(content, tmp_path)
    given = content["state_dict"]
    assert out.keys() == {"meta", "state_dict"}
    assert out["meta"] == {"dataset_meta": {"classes": CLASSES}}
    assert len(out["state_dict"]) == len(given) - 1
    trunk = [key for key in getattr(torchvision.models, arch)().state_dict() if key[:3] != "fc."]
    assert [key for key in out["state_dict"] if key.startswith("backbone.")] == [
        f"backbone.{key}" for key in trunk
    ]
    for key, value in out["state_dict"].items():
        source = key.replace("conv2.", "conv2.0.") if simam and "backbone" in key else key
        assert torch.equal(value, given[source])


def test_a_bare_state_dict_of_data_parallel(tmp_path):
    content = published()
    state = {f"module.{key}": value for key, value in content["state_dict"].items()}
    out = converted(state, tmp_path)
    assert out["meta"] == {}
    whole = converted(content, tmp_path)["state_dict"]
    assert out["state_dict"].keys() == whole.keys()


@pytest.mark.parametrize(
    "meta",
    [
        "a string",
        None,
        torch.ones(2),
        {"CLASSES": 5},
        {"CLASSES": "person"},
        {"CLASSES": torch.ones(2)},
        {"CLASSES": [1, 2]},
        {"dataset_meta": None},
        {"dataset_meta": {"classes": {"person": 1}}},
    ],
)
def test_what_is_no_class_names_is_left_out(meta, tmp_path):
    content = published() | {"meta": meta}
    out = converted(content, tmp_path)
    assert out["meta"] == {}
    assert len(out["state_dict"]) == len(content["state_dict"]) - 1


def test_class_names_as_mmdetection_3_keeps_them(tmp_path):
    meta = {"CLASSES": None, "dataset_meta": {"classes": list(CLASSES)}}
    out = converted(published() | {"meta": meta}, tmp_path)
    assert out["meta"] == {"dataset_meta": {"classes": CLASSES}}


def lacking(key):
    content = published()
    del content["state_dict"][key]
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lacking("backbone.layer2.0.bn1.bias"), r"1 missing \(layer2.0.bn1.bias\)"),
        (lacking("backbone.layer3.1.conv2.0.weight"), r"1 missing \(layer3.1.conv2.weight\)"),
        (torchvision.models.resnet18().state_dict(), "holds no detector: no key begins with backb"),
        ({"meta": {}}, "holds no network weights"),
    ],
)
def test_what_is_no_whole_detector_is_refused(content, message, tmp_path, capsys):
    source, target = tmp_path / "in.pth", tmp_path / "out.pth"
    torch.save(content, source)
    assert main([str(source), str(target), "--from-detector"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: checkpoint {source}")
    assert re.search(message, error)
    assert error.count("\n") == 1
    assert not target.exists()


def test_mmdetection_loads_no_safetensors(tmp_path, capsys):
    torch.save(published(), tmp_path / "in.pth")
    target = tmp_path / "out.safetensors"
    assert main([str(tmp_path / "in.pth"), str(target), "--from-detector"]) == 2
    error = capsys.readouterr().err
    assert error == f"error: mmdetection can't load {target}; name a .pth file\n"


def test_nothing_is_overwritten(tmp_path, capsys):
    torch.save(published(), tmp_path / "in.pth")
    (tmp_path / "out.pth").write_text("mine")
    assert main([str(tmp_path / "in.pth"), str(tmp_path / "out.pth"), "--from-detector"]) == 2
    assert "already exists" in capsys.readouterr().err
    assert (tmp_path / "out.pth").read_text() == "mine"
