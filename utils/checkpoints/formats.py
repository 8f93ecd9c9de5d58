"""File formats of weights: read without running what they contain, written whole or not at all."""

import io
import json
import os
import re
import tarfile
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import safetensors
import safetensors.torch
import torch

from ..disk import write_atomically, write_bytes
from ..errors import UsageError, some

SAFE = (2, 10)  # the first torch that reads what anybody may have made


class CheckpointError(UsageError):
    """A checkpoint that can't be read, or does not fit the network."""


class Inert:
    """Stands for an object beside the weights whose class is known to be data; holds nothing."""

    def __init__(self, *_parts: Any):
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


def _plain_dict(*_factory: Any) -> dict:
    return {}


# what training scripts keep beside the weights, by module; none of it is made
DATA = {
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "_reconstruct scalar",  # before numpy 2
    "numpy._core.multiarray": "_reconstruct scalar",
    "pathlib": "PosixPath PurePosixPath PureWindowsPath WindowsPath",
    "pathlib._local": "PosixPath PurePosixPath PureWindowsPath WindowsPath",  # Python 3.13
    "datetime": "date datetime time timedelta timezone",
    # a defaultdict's, and what a HistoryBuffer asks of its class
    "builtins": "bool dict float getattr int list str tuple",
    "mmengine.logging.history_buffer": "HistoryBuffer",
}
HARMLESS = [
    Namespace,  # the options of torchvision's references and of timm
    Inert,
    (_plain_dict, "collections.defaultdict"),
    *((Inert, f"{module}.{name}") for module, names in DATA.items() for name in names.split()),
]

# what people take for a checkpoint, by how it begins, and by what an archive holds
BEGINNINGS = {
    rb"version https://git-lfs": "is a Git LFS pointer, not the file; `git lfs pull` gets that",
    rb"(?i)\s*<(!doctype|html|\?xml)": "is a web page; download the file itself",
    rb"\x89HDF": "is an HDF5 file, as Keras writes them; PyTorch's are read",
    rb"\x08[\x01-\x20][\x12:B]": "is an ONNX file; PyTorch's are read",
}
ENTRIES = {
    "constants.pkl": "is a TorchScript program; save its state_dict() with torch.save",
    "archive_format": "is a torch.export program; save its state_dict with torch.save",
    "model.weights.h5": "is a Keras file; PyTorch's are read",
}
OLDEST = (
    "is in PyTorch's tar format of 2016, which can't be read safely; if you trust it: python -c "
    "'import sys, torch; torch.save(torch.load(sys.argv[1], weights_only=False), sys.argv[2])' "
    "OLD NEW"
)


def read_file(path: str) -> Any:
    """The tensors and plain values in `path` (torch.save's formats, safetensors), on the CPU.

    A safetensors file becomes {"state_dict": tensors}, beside what `write_weights` noted of the
    network. Nothing in the file is run, and a compressed archive is not unpacked. Raises
    CheckpointError with the reason.
    """
    if os.path.isdir(path):
        raise CheckpointError(f"checkpoint {path} is a folder; name a file in it")
    if not os.path.exists(path):
        raise CheckpointError(f"checkpoint {path} does not exist")
    if not os.path.isfile(path):
        raise CheckpointError(f"checkpoint {path} is no regular file")
    try:
        with open(path, "rb") as file:
            head = file.read(256)
    except OSError as error:
        raise CheckpointError(f"can't read checkpoint {path}: {error.strerror}") from None
    if not head:
        raise CheckpointError(f"checkpoint {path} is empty")
    try:
        if head[8:9] == b"{":
            return _read_safetensors(path)
        if head.startswith(b"PK"):
            _check_archive(path)
        return _read_pickled(path)
    except CheckpointError:
        raise
    except Exception as error:  # a hostile or broken file may raise anything
        raise CheckpointError(f"checkpoint {path} {_reason(path, head, error)}") from None


@contextmanager
def harmless_alone() -> Iterator[None]:
    """In which nothing is loaded but what is `HARMLESS`, whatever else this process allows."""
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with torch.serialization.safe_globals(HARMLESS):
            yield
    finally:
        torch.serialization.add_safe_globals(allowed)


def _read_safetensors(path: str) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt", device="cpu") as file:
        noted = (file.metadata() or {}).get("network", "{}")
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    with suppress(ValueError, TypeError):
        return {**dict(json.loads(noted)), "state_dict": state}
    return {"state_dict": state}


def _read_pickled(path: str) -> Any:
    if torch.__version__ < SAFE:
        raise CheckpointError(
            f"checkpoint {path} is not read with torch {torch.__version__}, which a made file can "
            "take over (CVE-2026-24747): pip install 'torch>=2.10', or give a .safetensors file"
        )
    # from the open file, because torch.load takes the ending of a path for its format
    with (
        open(path, "rb") as file,
        warnings.catch_warnings(),
        harmless_alone(),
    ):
        warnings.simplefilter("ignore")  # of foreign pickles; what matters becomes an error
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        finally:  # what it could not finish of this file, it would look at with the next
            getattr(torch._utils, "_sparse_tensors_to_validate", []).clear()


def _check_archive(path: str) -> None:
    """torch.save stores without compression, so a file that unpacks to more is no work of its; and
    it notes check sums, which PyTorch does not look at."""
    size = os.path.getsize(path)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.rpartition("/")[2] in ENTRIES:
                raise CheckpointError(f"checkpoint {path} {ENTRIES[name.rpartition('/')[2]]}")
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > size:
            raise CheckpointError(
                f"checkpoint {path} has {size} bytes but would unpack to {unpacked}; not opened"
            )
        damaged = archive.testzip()
    if damaged:
        raise CheckpointError(f"checkpoint {path} is damaged: the check sum of {damaged} is wrong")


def _reason(path: str, head: bytes, error: Exception) -> str:
    """Why reading `path`, which begins with `head`, ended in `error`; in a few words."""
    for beginning, words in BEGINNINGS.items():
        if re.match(beginning, head):
            return words
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            return OLDEST if "storages" in archive.getnames() else "is a tar archive; unpack it"
    foreign = _foreign_classes(path, error)
    if foreign:
        return f"holds objects of class {some(foreign)}; only tensors and plain values are loaded"
    with suppress(UnicodeDecodeError):
        text = " ".join(head[:40].decode().split())
        if text.isprintable():
            return f"is a text file, it begins {text!r}; download it again?"
    if isinstance(error, zipfile.BadZipFile):
        return "is damaged: it begins as a zip archive but does not end as one; is it whole?"
    words = (str(error) or type(error).__name__).splitlines()[0][:80]
    if isinstance(error, MemoryError) or "allocat" in str(error):
        return "asks for more memory than there is; is it a checkpoint, and whole?"
    known = "Weights only load failed" not in words
    return "can't be read; is it a checkpoint, and whole?" + (f" ({words})" if known else "")


def _foreign_classes(path: str, error: Exception) -> list[str]:
    """The classes and functions in `path` that PyTorch does not load; none is run."""
    with suppress(Exception), harmless_alone():
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    return re.findall(r"GLOBAL ([\w.]+) ", str(error))  # in the older format, the first alone


def is_stored(value: Any) -> bool:
    """Whether `value` is a plain tensor in memory, with as many numbers as its shape says.

    A few numbers expanded to a huge shape would take that much memory once they are copied.
    """
    return (
        isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and not (value.is_nested or value.is_quantized)
        and value.device.type == "cpu"
        and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    )


def to_bytes(content: Any) -> bytes:
    """Plain values and tensors as `from_bytes` takes them."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> Any:
    """What `to_bytes` was given; nothing in `data` is run."""
    with harmless_alone():
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def save_atomically(content: Any, path: str, previous: str | None = None) -> None:
    """`write_atomically` of `content` in torch.save's format."""
    write_atomically(to_bytes(content), path, previous)


def write_weights(
    state: Mapping[str, torch.Tensor], path: str, network: Mapping[str, Any] | None = None
) -> None:
    """Write bare weights as atomically, in the format that the ending says: safetensors or torch.

    network: plain values to note in a safetensors file; the other format has no place for them.
    Raises UsageError where the file can't be written.
    """
    if not path.lower().endswith(".safetensors"):
        return write_bytes(to_bytes(dict(state)), path)
    # safetensors takes no two tensors with common memory
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    noted = {"format": "pt"} | ({"network": json.dumps(dict(network))} if network else {})
    write_bytes(safetensors.torch.save(tensors, noted), path)
