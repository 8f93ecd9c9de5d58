"""Converted weights are bit for bit the same, under the names that the other program has."""

import os
import re
import subprocess
import sys

import pytest
import torch
import torchvision
from conftest import ROOT, STATELESS
from published import PUBLISHED, our_network, published_network, real
from utils.checkpoints.files import read_file, write_weights

from scripts.convert_checkpoint import convert, main
from utils.errors import UsageError


def saved(tmp_path, arch: str, attention: str) -> tuple[str, dict]:
    """A file of bare weights of ours, and the weights."""
    path = str(tmp_path / "ours.pth")
    state = real(our_network(arch, attention)).float().state_dict()
    write_weights(state, path)
    return path, state


def weights(path: str) -> dict:
    content = read_file(path)
    return content.get("state_dict", content)


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("attention", PUBLISHED)
@pytest.mark.parametrize(
    ("arch", "to", "ending"),
    [
        ("mobilenet_v2", "ours", ".pth"),
        ("mobilenet_v2", "ours", ".safetensors"),
        ("mobilenet_v2", "published", ".pth"),
        ("mobilenet_v2", "published", ".safetensors"),
        ("mobilenet_v2", "torchvision", ".pth"),
        ("resnet18", "published", ".pth"),
    ],
)
def test_round_trip_is_exact(tmp_path, arch, attention, to, ending):
    source, state = saved(tmp_path, arch, attention)
    there, back = str(tmp_path / f"there{ending}"), str(tmp_path / "back.pth")
    if to == "torchvision" and attention in ("se", "cbam"):
        with pytest.raises(UsageError, match=f"torchvision has no {arch}"):
            convert(source, there, to, attention)
        assert not os.path.exists(there)
        return
    convert(source, there, to, attention)
    convert(there, back, "ours")
    assert same(weights(back), state)


@pytest.mark.parametrize("arch", ["resnet50d", "resnet50"])
@pytest.mark.parametrize("attention", ["simam", "cbam"])
def test_published_names(tmp_path, attention, arch):
    source, _ = saved(tmp_path, arch, attention)
    out = str(tmp_path / "out.pth")
    convert(source, out, "published", attention)
    theirs = published_network(arch, attention).float().to_empty(device="cpu")
    theirs.load_state_dict(read_file(out)["state_dict"])


def test_torchvision_has_no_resnet50d(tmp_path):
    source, _ = saved(tmp_path, "resnet50d", "simam")
    with pytest.raises(UsageError, match="torchvision has no resnet50d"):
        convert(source, str(tmp_path / "out.pth"), "torchvision")


def test_torchvision_names(tmp_path):
    source, state = saved(tmp_path, "resnet18", "simam")
    convert(source, str(tmp_path / "out.pth"), "torchvision")
    theirs = torchvision.models.resnet18()
    theirs.load_state_dict(torch.load(tmp_path / "out.pth"))
    assert same(theirs.state_dict(), state)


@pytest.mark.parametrize("attention", ["simam", "se"])
def test_mmdet_gets_all_but_the_classifier(tmp_path, attention):
    source, state = saved(tmp_path, "resnet50", attention)
    convert(source, str(tmp_path / "out.pth"), "mmdet")
    left = torch.load(tmp_path / "out.pth")
    assert state.keys() - left.keys() == {"fc.weight", "fc.bias"}
    assert same(left, {key: state[key] for key in left})


@pytest.mark.parametrize("arch", ["resnet50d", "mobilenet_v2"])
def test_mmdet_knows_plain_stems_only(tmp_path, arch):
    source, _ = saved(tmp_path, arch, "none")
    with pytest.raises(UsageError, match=f"mmdetection's ResNet has no {arch}"):
        convert(source, str(tmp_path / "out.pth"), "mmdet")


def test_safetensors_name_the_network_only_where_it_is_known(tmp_path):
    source, _ = saved(tmp_path, "resnet18", "se")
    convert(source, str(tmp_path / "se.safetensors"), "ours")
    assert read_file(str(tmp_path / "se.safetensors"))["attention"] == "se"
    source, _ = saved(tmp_path, "resnet18", "simam")
    line = convert(source, str(tmp_path / "guess.safetensors"), "ours")
    assert f"{' and '.join(STATELESS)} have the same keys, taken for none" in line
    assert read_file(str(tmp_path / "guess.safetensors")).keys() == {"state_dict"}


def test_the_attention_that_published_names_show_is_kept(tmp_path):
    """Under our keys nothing shows it any more."""
    state = published_network("resnet18", "simam").to_empty(device="cpu").state_dict()
    torch.save({"state_dict": state}, tmp_path / "published.pth")
    out = str(tmp_path / "ours.safetensors")
    convert(str(tmp_path / "published.pth"), out, "ours")
    content = read_file(out)
    assert (content["attention"], content["attention_param"]) == ("simam", 0.1)


def test_published_names_need_the_attention(tmp_path):
    source, _ = saved(tmp_path, "resnet18", "simam")
    with pytest.raises(UsageError, match="say which with --attention-type"):
        convert(source, str(tmp_path / "out.pth"), "published")


def test_nothing_is_overwritten(tmp_path):
    source, state = saved(tmp_path, "resnet18", "se")
    with pytest.raises(UsageError, match="already exists"):
        convert(source, source, "mmdet")
    assert same(weights(source), state)


@pytest.mark.parametrize(
    ("out", "to", "attention", "words"),
    [
        ("out.pt", "ours", None, "the ending of .*out.pt says no format; use .pth or .safetensors"),
        ("out.safetensors", "mmdet", None, "mmdetection can't load .*out.safetensors; name a .pth"),
        ("none/out.pth", "ours", None, "can't write .*none/out.pth: there is no folder"),
        ("out.pth", "published", "se", "has no weights of se; it fits -a resnet18"),
    ],
)
def test_other_mistakes(tmp_path, capsys, out, to, attention, words):
    source, _ = saved(tmp_path, "resnet18", "eca")
    options = ["--attention-type", attention] if attention else []
    assert main([source, str(tmp_path / out), "--to", to, *options]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert re.search(words, message)
    assert os.listdir(tmp_path) == ["ours.pth"]


def test_command(tmp_path):
    source, state = saved(tmp_path, "resnet18", "cbam")
    script = str(ROOT / "scripts" / "convert_checkpoint.py")
    out = str(tmp_path / "out.safetensors")
    command = [sys.executable, script, source, out, "--to", "published"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote {out}: resnet18, attention cbam, {len(state)} tensors\n"
    assert "layer1.0.bn2.1.ChannelGate.mlp.1.weight" in weights(out)
