"""Which images there are: class folders, listed once and remembered."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..checkpoints.formats import read_file, save_atomically
from ..errors import UsageError
from .endings import IMAGE_ENDINGS, is_image

CACHED_FROM = 10_000  # images; fewer are listed in less than a second
SETTLED_NS = 2_000_000_000  # coarser than the clock of any file system's folder times
IMAGENET_CLASSES = 1000
IMAGENET_IMAGES = {"train": 1_281_167, "val": 50_000}


class Paths(Sequence[str]):
    """Many paths below `folder` in two arrays.

    A list of a million strings is copied page by page into every process that looks at it,
    because looking at a Python object writes to its reference count; arrays stay shared.
    """

    def __init__(self, folder: str, characters: np.ndarray, ends: np.ndarray):
        self.folder, self.characters, self.ends = folder, characters, ends

    @classmethod
    def pack(cls, folder: str, names: Iterable[str]) -> "Paths":
        """From `names` relative to `folder`."""
        encoded = [os.fsencode(name) for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        return cls(folder, np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        index = range(len(self))[index]
        start = self.ends[index - 1] if index else 0
        name = os.fsdecode(self.characters[start : self.ends[index]].tobytes())
        return os.path.join(self.folder, name)


class Listing(NamedTuple):
    """The images of one split.

    classes: sorted folder names; targets (one per path) index them. synthetic: only the numbers
    of images and classes are meant, no file is.
    """

    classes: list[str]
    paths: Sequence[str]
    targets: np.ndarray
    synthetic: bool = False


def list_images(root: str, split: str) -> Listing:
    """The images under `root`/`split`/<class>, in torchvision's ImageFolder order.

    A big tree is listed once; afterwards only the times of its folders are looked at. Raises
    UsageError for a missing folder, no class folders, and a class without an image.
    """
    if not os.path.isdir(root):
        raise UsageError(f"data folder {root} does not exist")
    folder = os.path.join(root, split)
    if not os.path.isdir(folder):
        raise UsageError(
            f"{root} has no folder {split}/; it must hold train/<class>/ and val/<class>/"
        )
    listing = _remembered(folder)
    if listing is None:
        started = time.time_ns()
        folders = [folder]
        classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        found = [(name, t) for t, c in enumerate(classes) for name in _walk(folder, c, folders)]
        targets = np.array([target for _, target in found], np.int64)
        listing = Listing(classes, Paths.pack(folder, (name for name, _ in found)), targets)
        if len(found) >= CACHED_FROM:
            _remember(folder, listing, folders, started)
    if not listing.classes:
        raise UsageError(f"{folder} has no class folders")
    counts = np.bincount(listing.targets, minlength=len(listing.classes))
    if not counts.all():
        empty = os.path.join(folder, listing.classes[counts.argmin()])
        raise UsageError(f"class folder {empty} holds no image ({' '.join(IMAGE_ENDINGS)})")
    return listing


def find_files(paths: Sequence[str], endings: tuple[str, ...], kind: str) -> list[str]:
    """The files among `paths`, and those below its folders that end so, in any case of letters.

    kind: what they are, for the message. Raises UsageError for a folder without any.
    """
    files = []
    for path in paths:
        if not os.path.isdir(path):
            files.append(path)
            continue
        inside = sorted(str(f) for f in Path(path).rglob("*") if f.name.lower().endswith(endings))
        if not inside:
            raise UsageError(f"folder {path} holds no {kind} ({' '.join(endings)})")
        files += inside
    return files


def synthetic_listing(split: str, num_classes: int) -> Listing:
    """As many images as ImageNet has, none of which exists."""
    images = IMAGENET_IMAGES[split]
    classes = [str(number) for number in range(num_classes)]
    return Listing(classes, range(images), np.zeros(0, np.int64), synthetic=True)


def check_same_classes(train: Listing, val: Listing) -> None:
    """Raise UsageError unless both splits have the same class folders."""
    different = sorted(set(train.classes) ^ set(val.classes))
    if different:
        raise UsageError(
            f"train/ has {len(train.classes)} classes, val/ has {len(val.classes)}; "
            f"in one of them only: {', '.join(different[:5])}"
            + (f" and {len(different) - 5} more" if len(different) > 5 else "")
        )


def _walk(folder: str, class_name: str, folders: list[str]) -> Iterator[str]:
    """The images of a class, relative to `folder`; every folder on the way joins `folders`."""
    for place, _, names in sorted(os.walk(os.path.join(folder, class_name), followlinks=True)):
        folders.append(place)
        below = os.path.relpath(place, folder)
        for name in sorted(names):
            if is_image(name):
                yield os.path.join(below, name)


def _cache_file(folder: str) -> str:
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]
    return os.path.join(caches, "simam", f"listing-{name}.pt")


def _times(folders: Iterable[str]) -> torch.Tensor:
    """When each folder's contents last changed, in nanoseconds."""
    return torch.tensor([os.stat(folder).st_mtime_ns for folder in folders])


def _remember(folder: str, listing: Listing, folders: list[str], started: int) -> None:
    times = _times(folders)
    # a file that appears right after it was listed may leave a young folder's time as it is
    if times.max() > started - SETTLED_NS:
        return
    content = {
        "folders": [os.path.relpath(place, folder) for place in folders],
        "times": times,
        "classes": listing.classes,
        "characters": torch.from_numpy(listing.paths.characters.copy()),
        "ends": torch.from_numpy(listing.paths.ends),
        "targets": torch.from_numpy(listing.targets),
    }
    path = _cache_file(folder)
    with suppress(OSError):  # without a cache the next run lists again
        os.makedirs(os.path.dirname(path), exist_ok=True)
        save_atomically(content, path)


def _remembered(folder: str) -> Listing | None:
    """The listing of last time, unless a folder has changed since."""
    try:
        content = read_file(_cache_file(folder))
        places = [os.path.join(folder, place) for place in content["folders"]]
        if not torch.equal(_times(places), content["times"]):
            return None
        paths = Paths(folder, content["characters"].numpy(), content["ends"].numpy())
        return Listing(content["classes"], paths, content["targets"].numpy())
    except Exception:  # whatever is wrong with the cache, the tree can be listed again
        return None
