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

from scripts.convert_checkpoint import convert, main
from utils.checkpoints.formats import read_file, write_weights
from utils.errors import UsageError


def saved(tmp_path, arch: str, attention: str) -> tuple[str, dict]:
    """A file of bare weights of ours, and the weights."""
    path = str(tmp_path / "ours.pth")
    state = real(our_network(arch, attention)).float().state_dict()
    write_weights(state, path)
    return path, state


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("arch", "attention", "to", "ending"),
    [
        (arch, each, "published", ".pth")
        for arch in ("resnet18", "mobilenet_v2")
        for each in PUBLISHED
    ]
    + [
        ("mobilenet_v2", "cbam", "published", ".safetensors"),
        ("mobilenet_v2", "se", "ours", ".safetensors"),
        ("mobilenet_v2", "simam", "torchvision", ".pth"),
    ],
)
def test_round_trip_is_exact(tmp_path, arch, attention, to, ending):
    source, state = saved(tmp_path, arch, attention)
    there, back = str(tmp_path / f"there{ending}"), str(tmp_path / "back.pth")
    convert(source, there, to, attention)
    convert(there, back, "ours")
    assert same(read_file(back), state)


def test_published_files_are_read_as_the_published_code_does(tmp_path):
    source, _ = saved(tmp_path, "resnet50d", "cbam")
    out = str(tmp_path / "out.pth")
    convert(source, out, "published")
    theirs = real(published_network("resnet50d", "cbam")).float()
    content = torch.load(out)
    assert content["arch"] == "resnet50d"
    theirs.load_state_dict(content["state_dict"])


def test_torchvision_names(tmp_path):
    source, state = saved(tmp_path, "resnet18", "simam")
    convert(source, str(tmp_path / "out.pth"), "torchvision")
    theirs = torchvision.models.resnet18()
    theirs.load_state_dict(torch.load(tmp_path / "out.pth"))
    assert same(theirs.state_dict(), state)


@pytest.mark.parametrize("attention", ["simam", "se"])
def test_mmdet_gets_all_but_the_classifier(tmp_path, attention):
    source, state = saved(tmp_path, "resnet18", attention)
    convert(source, str(tmp_path / "out.pth"), "mmdet")
    left = torch.load(tmp_path / "out.pth")
    assert state.keys() - left.keys() == {"fc.weight", "fc.bias"}
    assert same(left, {key: state[key] for key in left})


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
    state = real(published_network("resnet18", "simam")).state_dict()
    torch.save({"state_dict": state}, tmp_path / "published.pth")
    out = str(tmp_path / "ours.safetensors")
    convert(str(tmp_path / "published.pth"), out, "ours")
    content = read_file(out)
    assert (content["attention"], content["attention_param"]) == ("simam", 0.1)


@pytest.mark.parametrize(
    ("network", "to", "words"),
    [
        (("resnet50d", "simam"), "torchvision", "torchvision has no resnet50d"),
        (("resnet18", "cbam"), "torchvision", "torchvision has no resnet18 with cbam"),
        (("resnet50d", "none"), "mmdet", "mmdetection's ResNet has no resnet50d"),
        (("mobilenet_v2", "none"), "mmdet", "mmdetection's ResNet has no mobilenet_v2"),
        (("resnet18", "simam"), "published", "say which with --attention-type"),
        (("resnet18", "eca"), "published", "no published names for networks with 'eca'"),
    ],
)
def test_names_that_there_are_not(tmp_path, network, to, words):
    source, _ = saved(tmp_path, *network)
    with pytest.raises(UsageError, match=words):
        convert(source, str(tmp_path / "out.pth"), to)
    assert os.listdir(tmp_path) == ["ours.pth"]


@pytest.mark.parametrize(
    ("out", "to", "attention", "words"),
    [
        ("ours.pth", "ours", None, "ours.pth already exists"),
        ("out.pt", "ours", None, "the ending of .*out.pt says no format; use .pth or .safetensors"),
        ("out.safetensors", "mmdet", None, "mmdetection can't load .*out.safetensors; name a .pth"),
        ("none/out.pth", "ours", None, "can't write .*none/out.pth: there is no folder"),
        ("out.pth", "published", "se", "has no weights of se; it fits -a resnet18"),
    ],
)
def test_other_mistakes(tmp_path, capsys, out, to, attention, words):
    source, state = saved(tmp_path, "resnet18", "eca")
    options = ["--attention-type", attention] if attention else []
    assert main([source, str(tmp_path / out), "--to", to, *options]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert re.search(words, message)
    assert os.listdir(tmp_path) == ["ours.pth"]
    assert same(read_file(source), state)


def test_it_needs_no_torchvision(tmp_path):
    """As in mmdetection's environment."""
    source, state = saved(tmp_path, "resnet18", "cbam")
    out = str(tmp_path / "out.safetensors")
    code = "import sys; sys.modules['torchvision'] = None; import scripts.convert_checkpoint as c; "
    command = [sys.executable, "-c", f"{code}sys.exit(c.main())", source, out, "--to", "published"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote {out}: resnet18, attention cbam, {len(state)} tensors\n"
    assert "layer1.0.bn2.1.ChannelGate.mlp.1.weight" in read_file(out)["state_dict"]
