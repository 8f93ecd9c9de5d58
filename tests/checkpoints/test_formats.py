"""A file from the network is untrusted: it is read as plain data, or refused in one line."""

import argparse
import collections
import contextlib
import datetime
import io
import json
import os
import pathlib
import pickle
import random
import shlex
import struct
import subprocess
import sys
import tarfile
import types
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from utils.checkpoints import Checkpoint, CheckpointError
from utils.checkpoints.formats import from_bytes, read_file, to_bytes, write_weights
from utils.errors import UsageError

WEIGHTS = {"conv.weight": torch.randn(8, 4, 3, 3), "fc.bias": torch.randn(5)}


class WritesAFile:
    """Unpickling this would create the file `witness`."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self):
        return Path.write_text, (self.witness, "ran")


class Foreign:
    """Any class of somebody's own code."""


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def refusal(path: Path) -> str:
    """The one line that refuses `path`, without its name."""
    with pytest.raises(CheckpointError) as error:
        Checkpoint(str(path)).weights  # noqa: B018 (a property)
    message = str(error.value)
    assert "\n" not in message
    assert message.count(str(path)) == 1
    assert len(message) < len(str(path)) + 200
    return message.replace(str(path), "FILE")


def plain_pickle(content, path: Path, protocol: int) -> None:
    path.write_bytes(pickle.dumps(content, protocol))


TORCHS = {
    "torch": torch.save,
    "torch before 1.6": partial(torch.save, _use_new_zipfile_serialization=False),
}
WRITERS = TORCHS | {
    "torch, protocol 4": partial(torch.save, pickle_protocol=4),
    **{f"pickle {protocol}": partial(plain_pickle, protocol=protocol) for protocol in (0, 2, 5)},
}


@pytest.mark.parametrize("name", ["evil.pth.tar", "evil.safetensors"])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_malicious_pickle_is_refused_and_does_not_run(tmp_path, write, name):
    witness, path = tmp_path / "witness", tmp_path / name
    write({"state_dict": WEIGHTS, "epoch": WritesAFile(witness)}, path)
    refusal(path)
    assert os.listdir(tmp_path) == [name]
    # the file is armed: else the above would prove nothing
    with open(path, "rb") as file, contextlib.suppress(pickle.UnpicklingError, RuntimeError):
        torch.load(file, weights_only=False)
    assert witness.read_text() == "ran"


@pytest.mark.parametrize("write", TORCHS.values(), ids=TORCHS)
@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"state_dict": WEIGHTS, "config": Foreign()}, f"{__name__}.Foreign"),
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"state_dict": WEIGHTS, "hook": os.system}, "posix.system"),
    ],
)
def test_a_foreign_class_is_named(tmp_path, write, content, name):
    write(content, tmp_path / "a.pth")
    words = f"holds objects of class {name}; only tensors and plain values are loaded"
    assert refusal(tmp_path / "a.pth") == f"checkpoint FILE {words}"


@pytest.mark.parametrize("write", TORCHS.values(), ids=TORCHS)
def test_plain_companions_of_weights_are_no_obstacle(tmp_path, write):
    """What the published files, timm and torchvision's references keep beside the weights."""
    companions = {
        "arch": "resnet18",
        "epoch": 99,
        "best_acc": torch.tensor(71.3),
        "args": argparse.Namespace(lr=0.1, sizes=[1, 2]),
        "optimizer": {"state": {0: {"momentum_buffer": None}}, "param_groups": [{"lr": 0.1}]},
    }
    write({"state_dict": collections.OrderedDict(WEIGHTS), **companions}, tmp_path / "a.pth")
    checkpoint = Checkpoint(str(tmp_path / "a.pth"))
    assert {name: checkpoint.content[name] for name in companions} == companions
    assert same(checkpoint.weights, WEIGHTS)


class HistoryBuffer:
    """mmengine's, in what it keeps."""

    def __init__(self):
        self._log_history, self._methods = np.array([0.5, 0.25]), {"mean": self.mean}

    @classmethod
    def mean(cls): ...


HistoryBuffer.__module__ = "mmengine.logging.history_buffer"


@pytest.mark.parametrize("write", TORCHS.values(), ids=TORCHS)
def test_data_beside_the_weights_is_no_obstacle_and_is_not_made(tmp_path, write, monkeypatch):
    now = datetime.datetime.now(datetime.timezone.utc)
    data = {
        "numbers": (np.float64(71.3), np.float32(1), np.int64(3), np.bool_(True)),
        "arrays": (np.arange(3.0), np.array(["a"]), np.random.RandomState(0).get_state()),
        "paths": (tmp_path, pathlib.PureWindowsPath("c:/runs"), pathlib.PurePosixPath("runs")),
        "times": (now, now.date(), now.time(), now - now),
        "message_hub": {"loss": HistoryBuffer()},
    }
    lists = collections.defaultdict(list, {"loss": [0.5]})
    with monkeypatch.context() as patch:
        module = types.SimpleNamespace(HistoryBuffer=HistoryBuffer)
        for name in ("mmengine", HistoryBuffer.__module__):
            patch.setitem(sys.modules, name, module)
        write({"state_dict": WEIGHTS, "lists": lists, **data}, tmp_path / "a.pth")
    rebuild = np.zeros(1).__reduce__()[0], "numpy._core.multiarray._reconstruct"
    with torch.serialization.safe_globals([rebuild]):  # what else is allowed does not count
        checkpoint = Checkpoint(str(tmp_path / "a.pth"))
        assert same(checkpoint.weights, WEIGHTS)
    assert checkpoint.content["lists"] == {"loss": [0.5]}
    assert not isinstance(checkpoint.content["numbers"][0], float)
    # several processes send each other what one has read
    assert from_bytes(to_bytes(checkpoint.file)).keys() == checkpoint.file.keys()


def test_code_in_the_place_of_data_is_refused(tmp_path):
    for name, odd in {
        "posix.getcwd": collections.defaultdict(os.getcwd),
        "builtins.object": np.array([object()]),
    }.items():
        torch.save({"state_dict": WEIGHTS, "odd": odd}, tmp_path / "a.pth")
        assert f"holds objects of class {name};" in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html>\n<html><title>Quota exceeded", "is a web page; download"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "is a Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes them"),
        (b"PACK\0\0", "can't be read; is it a checkpoint, and whole?"),
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


def write_oldest(state: dict, path: Path) -> None:
    """As PyTorch saved before 0.1.10: a tar archive of storages, tensors and a pickle."""
    storages, tensors, content = (io.BytesIO() for _ in range(3))
    for file in (storages, tensors):
        pickle.dump(len(state), file, 2)
    for key, value in enumerate(state.values()):
        pickle.dump((key, "cpu", torch.FloatStorage), storages, 2)
        storages.write(struct.pack("<q", value.numel()) + value.numpy().tobytes())
        pickle.dump((key, key, torch.FloatTensor), tensors, 2)
        sizes = (*value.shape, *value.stride(), 0)
        tensors.write(struct.pack(f"<ii{len(sizes)}q", value.dim(), 0, *sizes))
    pickle.dump([], storages, 2)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            names = [key for key, each in enumerate(state.values()) if each is value]
            return str(names[0]) if names else None

    Pickler(content, 2).dump(state)
    with tarfile.open(path, "w") as archive:
        for name, file in (("storages", storages), ("tensors", tensors), ("pickle", content)):
            entry = tarfile.TarInfo(name)
            entry.size = len(file.getvalue())
            file.seek(0)
            archive.addfile(entry, file)


def test_the_oldest_format_is_named_with_the_line_that_converts_it(tmp_path):
    old, new = tmp_path / "resnet18-5c106cde.pth", tmp_path / "new.pth"
    write_oldest(WEIGHTS, old)
    with pytest.raises(CheckpointError, match="is in PyTorch's tar format of 2016") as error:
        Checkpoint(str(old))
    _, *line, _, _ = shlex.split(str(error.value).partition("trust it: ")[2])
    subprocess.run([sys.executable, *line, old, new], check=True)
    assert same(Checkpoint(str(new)).weights, WEIGHTS)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(new, "new.pth")
    assert "is a tar archive; unpack it" in refusal(tmp_path / "a.tar")


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_files_of_other_programs_are_called_by_their_names(tmp_path):
    network, images = nn.Linear(2, 2).eval(), (torch.zeros(1, 2),)
    torch.jit.save(torch.jit.script(network), tmp_path / "script.pt")
    assert "is a TorchScript program" in refusal(tmp_path / "script.pt")
    torch.export.save(torch.export.export(network, images), tmp_path / "export.pt2")
    assert "is a torch.export program" in refusal(tmp_path / "export.pt2")
    torch.onnx.export(network, images, tmp_path / "a.onnx", dynamo=True, verbose=False)
    assert "is an ONNX file" in refusal(tmp_path / "a.onnx")
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("model.weights.h5", "")
    assert "is a Keras file" in refusal(tmp_path / "a.keras")


def test_what_is_no_file_is_said(tmp_path):
    assert refusal(tmp_path / "none.pth") == "checkpoint FILE does not exist"
    assert refusal(tmp_path) == "checkpoint FILE is a folder; name a file in it"
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe") == "checkpoint FILE is no regular file"
    (tmp_path / "endless").symlink_to("/dev/zero")
    assert refusal(tmp_path / "endless") == "checkpoint FILE is no regular file"
    (tmp_path / "memory").symlink_to("/proc/self/mem")  # can be opened, and not read
    assert refusal(tmp_path / "memory") == "can't read checkpoint FILE: Input/output error"
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("letter.txt", "no checkpoint")
    assert "can't be read; is it a checkpoint" in refusal(tmp_path / "a.pth")


def write_safetensors(content: dict, path: Path) -> None:
    safetensors.torch.save_file(content, path)


@pytest.mark.parametrize("write", [*TORCHS.values(), write_safetensors])
def test_file_cut_off_anywhere_is_refused(tmp_path, write):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write(WEIGHTS, whole)
    assert same(Checkpoint(str(whole)).weights, WEIGHTS)
    data = whole.read_bytes()
    drawn = random.Random(0).sample(range(1, len(data)), 60)
    for length in sorted({1, 2, 3, 8, 9, 100, len(data) - 1, *drawn}):
        cut.write_bytes(data[:length])
        refusal(cut)


def test_changed_bytes_end_in_weights_or_a_checkpoint_error(tmp_path):
    torch.save(WEIGHTS, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    data, draw = (tmp_path / "a.pth").read_bytes(), random.Random(0)
    for _ in range(150):
        changed = bytearray(data)
        changed[draw.randrange(300)] = draw.randrange(256)
        (tmp_path / "b.pth").write_bytes(changed)
        with contextlib.suppress(CheckpointError):  # nothing else may come out
            Checkpoint(str(tmp_path / "b.pth")).weights  # noqa: B018 (a property)


def test_a_weight_that_was_changed_on_disk_is_noticed(tmp_path):
    """One bit at twelve places, or all of it zero."""
    path, draw = tmp_path / "a.pth", random.Random(0)
    torch.save(WEIGHTS, path)
    data, weight = path.read_bytes(), WEIGHTS["conv.weight"].numpy().tobytes()
    assert data.count(weight) == 1
    changes = [bytes(len(weight))]
    for at in draw.sample(range(len(weight)), 12):
        changes.append(
            weight[:at] + bytes([weight[at] ^ 1 << draw.randrange(8)]) + weight[at + 1 :]
        )
    for changed in changes:
        path.write_bytes(data.replace(weight, changed))
        found = torch.load(path)["conv.weight"]  # PyTorch itself does not notice
        assert found.numpy().tobytes() == changed
        assert "is damaged: the check sum of" in refusal(path)


def test_a_file_that_asks_for_more_memory_than_there_is(tmp_path):
    """In the older format, by the size of a storage."""
    path = tmp_path / "a.pth"
    torch.save({"w": torch.zeros(77777)}, path, _use_new_zipfile_serialization=False)
    data, size = path.read_bytes(), b"J" + (77777).to_bytes(4, "little")  # in pickle's opcodes
    assert data.count(size) > 1
    path.write_bytes(data.replace(size, b"\x8a\x08" + (2**50).to_bytes(8, "little")))
    assert "asks for more memory than there is" in refusal(path)


def test_a_refused_file_spoils_no_other(tmp_path):
    """PyTorch keeps the sparse tensors of a file that it can't finish, and looks at them when it
    has read the next one."""
    beyond = torch.sparse_coo_tensor([[9]], [1.0], (3,), check_invariants=False)
    torch.save({"w": beyond, "config": Foreign()}, tmp_path / "bad.pth")
    torch.save(WEIGHTS, tmp_path / "good.pth")
    refusal(tmp_path / "bad.pth")
    assert same(Checkpoint(str(tmp_path / "good.pth")).weights, WEIGHTS)


def test_an_older_torch_reads_no_pickle(tmp_path, monkeypatch):
    for name in ("a.pth", "a.safetensors"):
        write_weights(WEIGHTS, str(tmp_path / name))
    monkeypatch.setattr("torch.__version__", type(torch.__version__)("2.9.1+cpu"))
    said = refusal(tmp_path / "a.pth")
    assert said.startswith("checkpoint FILE is not read with torch 2.9.1+cpu, which a made file")
    assert same(Checkpoint(str(tmp_path / "a.safetensors")).weights, WEIGHTS)
    monkeypatch.setattr("torch.__version__", type(torch.__version__)("2.10.0"))
    assert same(Checkpoint(str(tmp_path / "a.pth")).weights, WEIGHTS)


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


@pytest.mark.parametrize(
    "content",
    [
        *({}, [], 5, None, torch.zeros(3)),
        *({"state_dict": {}}, {"epoch": 3}, {"state_dict": {"fc.bias": 1.0}}),
    ],
    ids=str,
)
def test_content_without_weights(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").stat().st_size < 10_000
    said = refusal(tmp_path / "a.pth")
    names = f", but {', '.join(map(str, content))}" if isinstance(content, dict) and content else ""
    assert said == f"checkpoint FILE holds no network weights{names}"


def test_safetensors_are_written_with_a_note_of_the_network(tmp_path):
    path = str(tmp_path / "a.SafeTensors")
    network = {"arch": "resnet18", "attention": "simam", "attention_param": 0.1, "num_classes": 5}
    write_weights(WEIGHTS, path, network)
    assert same(safetensors.torch.load_file(path), WEIGHTS)
    content = read_file(path)
    assert {name: content[name] for name in network} == network
    write_weights(WEIGHTS, path)
    assert read_file(path).keys() == {"state_dict"}


@pytest.mark.parametrize("note", ["no JSON", "5", "[1]", json.dumps({"state_dict": "x"}), "null"])
def test_strange_notes_are_no_obstacle(tmp_path, note):
    safetensors.torch.save_file(WEIGHTS, tmp_path / "a", {"network": note})
    assert same(read_file(str(tmp_path / "a"))["state_dict"], WEIGHTS)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_tensors_that_share_memory_or_order_are_written_whole(tmp_path, name):
    path = str(tmp_path / name)
    base = torch.arange(12.0).reshape(3, 4)
    state = {"a": base, "b": base.t(), "c": base[1], "d": nn.Parameter(base)}
    write_weights(state, path)
    assert same(Checkpoint(path).weights, state)


def test_weights_that_can_not_be_written_are_a_mistake(tmp_path):
    for name in ("a.pth", "a.safetensors"):
        path = tmp_path / "none" / name
        with pytest.raises(UsageError, match=f"^can't write {path}: No such file or directory$"):
            write_weights(WEIGHTS, str(path))
