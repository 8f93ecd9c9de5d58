"""A file from the network is untrusted: it is read as plain data, or refused in one line."""

import argparse
import collections
import contextlib
import json
import os
import pickle
import random
import re
import resource
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from utils.checkpoints.files import CheckpointError, read_file, write_weights

from utils.checkpoints.checkpoint import state_dict_of

WEIGHTS = {"conv.weight": torch.randn(8, 4, 3, 3), "fc.bias": torch.randn(5)}


class WritesAFile:
    """Unpickling this would create the file `witness`."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self):
        return Path.write_text, (self.witness, "ran")


class Foreign:
    """Any class of somebody's own code."""


def refusal(path) -> str:
    """The one line that refuses `path`, without its name."""
    with pytest.raises(CheckpointError) as error:
        state_dict_of(read_file(str(path)), str(path))
    message = str(error.value)
    assert "\n" not in message
    assert message.count(str(path)) == 1
    assert len(message) < len(str(path)) + 200
    return message.replace(str(path), "FILE")


def torch_zip(content, path):
    torch.save(content, path)


def torch_before_1_6(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def torch_protocol_4(content, path):
    torch.save(content, path, pickle_protocol=4)


def plain_pickle(protocol):
    def write(content, path):
        path.write_bytes(pickle.dumps(content, protocol))

    return write


WRITERS = {
    "torch": torch_zip,
    "torch before 1.6": torch_before_1_6,
    "torch, protocol 4": torch_protocol_4,
    "pickle 0": plain_pickle(0),
    "pickle 2": plain_pickle(2),
    "pickle 4": plain_pickle(4),
    "pickle 5": plain_pickle(5),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("name", ["evil.pth", "evil.pth.tar", "evil.safetensors"])
def test_malicious_pickle_is_refused_and_does_not_run(tmp_path, write, name):
    witness, path = tmp_path / "witness", tmp_path / name
    write({"state_dict": WEIGHTS, "epoch": WritesAFile(witness)}, path)
    message = refusal(path)
    assert re.search(r"pathlib\.(_local\.)?(Posix)?Path", message)
    assert "only tensors and plain values are loaded" in message
    assert not witness.exists()
    assert os.listdir(tmp_path) == [name]


def test_malicious_pickle_would_run_if_it_were_unpickled(tmp_path):
    """The file of the test above is armed: without this, that test would prove nothing."""
    witness, path = tmp_path / "witness", tmp_path / "evil.pth"
    torch_zip({"state_dict": {}, "epoch": WritesAFile(witness)}, path)
    torch.load(path, weights_only=False)
    assert witness.read_text() == "ran"


@pytest.mark.parametrize("write", list(WRITERS.values())[:3], ids=list(WRITERS)[:3])
def test_foreign_class_is_named(tmp_path, write):
    write({"state_dict": WEIGHTS, "config": Foreign()}, tmp_path / "a.pth")
    assert f"holds objects of class {__name__}.Foreign;" in refusal(tmp_path / "a.pth")


def test_whole_module_is_refused_by_name(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "a.pth")
    assert "holds objects of class torch.nn.modules.linear.Linear" in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize("write", [torch_zip, torch_before_1_6])
def test_plain_companions_of_weights_are_no_obstacle(tmp_path, write):
    """What the published files, timm and torchvision's references keep beside the weights."""
    companions = {
        "arch": "resnet18",
        "epoch": 99,
        "best_acc": torch.tensor(71.3),
        "args": argparse.Namespace(lr=0.1, sizes=[1, 2]),
        "optimizer": {"state": {0: {"momentum_buffer": None}}, "param_groups": [{"lr": 0.1}]},
    }
    path = tmp_path / "a.pth"
    write({"state_dict": collections.OrderedDict(WEIGHTS), **companions}, path)
    content = read_file(str(path))
    assert content["args"] == companions["args"]
    loaded = state_dict_of(content, str(path))
    assert loaded.keys() == WEIGHTS.keys()
    assert all(torch.equal(loaded[key], WEIGHTS[key]) for key in WEIGHTS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html>\n<html><title>Quota exceeded", "is a text file, it begins '<!DOCTYPE"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "is a text file"),
        ("kein Netz, nur Text: äöü".encode(), "is a text file"),
        (b"\x00" * 64, "can't be read; is it a checkpoint, and whole?"),
        (bytes(range(256)) * 9, "can't be read; is it a checkpoint, and whole?"),
        (b"\x80", "can't be read; is it a checkpoint, and whole?"),
        (b"PK\x03\x04 and nothing behind it", "is damaged: it begins as a zip archive"),
        (b'\x10\0\0\0\0\0\0\0{"a": {"dtype":', "can't be read"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "can't be read"),
    ],
    ids=str,
)
def test_other_files_are_refused_in_one_line(tmp_path, content, words):
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(content)
        assert words in refusal(tmp_path / name)


def test_missing_file_and_folder(tmp_path):
    assert refusal(tmp_path / "none.pth") == "checkpoint FILE does not exist"
    assert refusal(tmp_path) == "checkpoint FILE is a folder; name a file in it"


def test_other_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("letter.txt", "no checkpoint")
    assert "can't be read; is it a checkpoint" in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize("write", [torch_zip, torch_before_1_6, write_weights])
def test_file_cut_off_anywhere_is_refused(tmp_path, write):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    if write is write_weights:
        write_weights(WEIGHTS, str(whole))
    else:
        write(WEIGHTS, whole)
    data = whole.read_bytes()
    drawn = random.Random(0).sample(range(1, len(data)), 60)
    for length in sorted({1, 2, 3, 8, 9, 100, len(data) - 1, *drawn}):
        cut.write_bytes(data[:length])
        refusal(cut)
    assert state_dict_of(read_file(str(whole)), "whole").keys() == WEIGHTS.keys()


def test_changed_bytes_end_in_weights_or_a_checkpoint_error(tmp_path):
    torch.save(WEIGHTS, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    data, draw = (tmp_path / "a.pth").read_bytes(), random.Random(0)
    for _ in range(150):
        changed = bytearray(data)
        changed[draw.randrange(300)] = draw.randrange(256)
        (tmp_path / "b.pth").write_bytes(changed)
        with contextlib.suppress(CheckpointError):  # nothing else may come out
            state_dict_of(read_file(str(tmp_path / "b.pth")), "b.pth")


def test_zip_bomb_is_not_opened(tmp_path):
    path = tmp_path / "bomb.pth"
    torch.save({"w": torch.zeros(2_000_000)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as plain,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    assert torch.load(path)["w"].numel() == 2_000_000  # PyTorch itself would unpack it
    assert f"has {path.stat().st_size} bytes but would unpack to 8000" in refusal(path)


def test_expanded_tensor_is_no_weight(tmp_path):
    """A terabyte in a small file: one number, repeated by strides of zero."""
    torch.save({"fc.weight": torch.zeros(1).expand(10**9, 256)}, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").stat().st_size < 10_000
    assert refusal(tmp_path / "a.pth") == "checkpoint FILE holds no network weights"


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        5,
        torch.zeros(3),
        {"state_dict": {}},
        {"epoch": 3},
        {"state_dict": {"fc.bias": 1.0}},
        {0: torch.zeros(3)},
        {"w": torch.zeros(2, device="meta")},
        {"w": torch.eye(3).to_sparse()},
    ],
    ids=str,
)
def test_content_without_weights(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    assert refusal(tmp_path / "a.pth") == "checkpoint FILE holds no network weights"


def test_safetensors_are_read_and_written(tmp_path):
    path = str(tmp_path / "a.safetensors")
    write_weights(WEIGHTS, path)
    theirs = safetensors.torch.load_file(path)
    assert all(torch.equal(theirs[key], WEIGHTS[key]) for key in WEIGHTS)
    safetensors.torch.save_file(WEIGHTS, path)
    ours = read_file(path)["state_dict"]
    assert all(torch.equal(ours[key], WEIGHTS[key]) for key in WEIGHTS)


def test_safetensors_note_the_network(tmp_path):
    path = str(tmp_path / "a.safetensors")
    network = {"arch": "resnet18", "attention": "simam", "attention_param": 0.1, "num_classes": 5}
    write_weights(WEIGHTS, path, network)
    content = read_file(path)
    assert {name: content[name] for name in network} == network


@pytest.mark.parametrize("note", ["no JSON", "5", "[1]", json.dumps({"state_dict": "x"}), "null"])
def test_strange_notes_are_no_obstacle(tmp_path, note):
    path = str(tmp_path / "a.safetensors")
    safetensors.torch.save_file(WEIGHTS, path, {"network": note})
    assert read_file(path)["state_dict"].keys() == WEIGHTS.keys()


def test_tensors_that_share_memory_or_order_are_written_whole(tmp_path):
    path = str(tmp_path / "a.safetensors")
    base = torch.arange(12.0).reshape(3, 4)
    state = {"a": base, "b": base.t(), "c": base[1], "d": nn.Parameter(base)}
    write_weights(state, path)
    read = read_file(path)["state_dict"]
    assert all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_write_that_fails_leaves_the_previous_file_whole(tmp_path, name):
    path = tmp_path / name
    write_weights(WEIGHTS, str(path))
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_weights({"w": torch.randn(100_000)}, str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [name]
