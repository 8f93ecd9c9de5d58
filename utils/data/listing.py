"""Which images there are: class folders, listed once and remembered."""

import hashlib
import io
import os
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..disk import write_atomically
from ..errors import UsageError, some

# torchvision's, without importing it
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
IMAGENET_CLASSES = 1000
IMAGENET_IMAGES = {"train": 1_281_167, "val": 50_000}
CACHED_FROM = 10_000  # images; fewer are listed in less than a second
SETTLED_NS = 2_000_000_000  # coarser than the clock of any file system's folder times


def is_image(name: str) -> bool:
    """Whether the name of a file, in any case of letters, ends like an image's."""
    return name.lower().endswith(IMAGE_ENDINGS)


def is_data(name: str) -> bool:
    """Whether a file or folder is the user's own, by its name: what systems and editors leave,
    such as .ipynb_checkpoints, ._cat.jpg, @eaDir and __MACOSX, is not."""
    return not name.startswith((".", "@eaDir", "__MACOSX"))


def walk(
    folder: str,
    endings: tuple[str, ...],
    left_out: Counter[str] | None = None,
    seen: Iterable[str] = (),
) -> Iterator[tuple[str, list[str]]]:
    """`folder` and every folder below it, with the data files in it that end so, in any case of
    letters, sorted as torchvision's ImageFolder does it.

    left_out: where the others are counted, by `kind_of`. Links are followed, to each real folder
    once, and to none of those `seen` elsewhere, nor to one that `folder` is in.
    """
    real = Path(folder).resolve()
    for place, names in sorted(_visit(folder, {*seen, *map(str, (real, *real.parents))})):
        found = sorted(n for n in names if is_data(n) and n.lower().endswith(endings))
        if left_out is not None:
            left_out.update(map(kind_of, {*names} - {*found}))
        yield place, found


def _visit(folder: str, seen: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Each folder with the names of its files, and of folders that are no data."""
    for place, folders, names in os.walk(folder, followlinks=True):
        below = {name: os.path.realpath(os.path.join(place, name)) for name in sorted(folders)}
        names += [name for name in folders if not is_data(name)]
        folders[:] = [name for name, real in below.items() if is_data(name) and real not in seen]
        seen.update(below[name] for name in folders)
        yield place, names


def kind_of(name: str) -> str:
    """What is said of a file or folder that is left out: its ending, in small letters."""
    if not is_data(name):
        return "hidden"
    return os.path.splitext(name)[1].lower() or "without ending"


def counted(left_out: Counter[str]) -> str:
    """How many were left out of each kind, in words."""
    return ", ".join(f"{count} {kind}" for kind, count in left_out.most_common())


class Paths(Sequence[str]):
    """Many paths below `folder`, their `names` in one array of bytes.

    A list of a million strings is copied page by page into every process that looks at it,
    because looking at a Python object writes to its reference count; an array stays shared.
    """

    def __init__(self, folder: str, names: np.ndarray):
        self.folder, self.names = folder, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> str:
        return os.path.join(self.folder, os.fsdecode(self.names[index]))


class Listing(NamedTuple):
    """The images of one split: classes are sorted folder names, which targets index, one a path.

    left_out: how many files and folders that are no images, in words.
    """

    classes: list[str]
    paths: Sequence[str]
    targets: np.ndarray
    left_out: str = ""

    @property
    def notes(self) -> list[str]:
        """Lines for the log."""
        return [f"left out    {self.left_out}"] if self.left_out else []

    def checksum(self) -> str:
        """What other names, or another order of them, would change."""
        return f"{zlib.crc32(self.targets, zlib.crc32(self.paths.names)):08x}"


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
    listing = _remembered(folder) or _list(folder)
    if not listing.classes:
        raise UsageError(f"{folder} has no class folders")
    counts = np.bincount(listing.targets, minlength=len(listing.classes))
    if not counts.all():
        empty = os.path.join(folder, listing.classes[counts.argmin()])
        raise UsageError(f"class folder {empty} holds no image ({' '.join(IMAGE_ENDINGS)})")
    return listing


def find_files(
    paths: Sequence[str],
    endings: tuple[str, ...],
    kind: str,
    left_out: Counter[str] | None = None,
) -> list[str]:
    """The files among `paths`, and those below its folders that end so, in any case of letters.

    kind: what they are, for the message. left_out: see `walk`. Raises UsageError for a folder
    without any.
    """
    files = []
    for path in paths:
        if not os.path.isdir(path):
            files.append(path)
            continue
        found = walk(path, endings, left_out)
        inside = [os.path.join(place, name) for place, names in found for name in names]
        if not inside:
            raise UsageError(f"folder {path} holds no {kind} ({' '.join(endings)})")
        files += inside
    return files


def synthetic_listing(split: str, num_classes: int) -> Listing:
    """As many images as ImageNet has, none of which exists."""
    classes = [str(number) for number in range(num_classes)]
    return Listing(classes, range(IMAGENET_IMAGES[split]), np.zeros(0, np.int64))


def check_same_classes(train: Listing, val: Listing) -> None:
    """Raise UsageError unless both splits have the same class folders."""
    different = sorted(set(train.classes) ^ set(val.classes))
    if different:
        raise UsageError(
            f"train/ has {len(train.classes)} classes, val/ has {len(val.classes)}; "
            f"in one of them only: {some(different, 5)}"
        )


def _list(folder: str) -> Listing:
    """The images in `folder`/<class>; many of them are remembered."""
    started = time.time_ns()
    entries = list(os.scandir(folder))
    classes = sorted(e.name for e in entries if e.is_dir() and is_data(e.name))
    left_out = Counter(kind_of(name) for name in {e.name for e in entries} - {*classes})
    # a link from one class to another, or to all of them, would count images twice
    roots = {os.path.realpath(os.path.join(folder, name)) for name in [".", *classes]}
    folders, names, targets = ["."], [], []
    for target, name in enumerate(classes):
        for place, found in walk(os.path.join(folder, name), IMAGE_ENDINGS, left_out, roots):
            folders.append(os.path.relpath(place, folder))
            names += [os.fsencode(os.path.join(folders[-1], image)) for image in found]
            targets += [target] * len(found)
    paths = Paths(folder, np.array(names, "S"))
    told = f"{counted(left_out)} in {folder}" if left_out else ""
    listing = Listing(classes, paths, np.array(targets, np.int64), told)
    if len(names) >= CACHED_FROM:
        _remember(listing, folder, folders, started)
    return listing


def _cache_file(folder: str) -> str:
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]
    return os.path.join(caches, "simam", f"listing-{name}.npz")


def _times(folder: str, folders: Sequence[str]) -> np.ndarray:
    """When the contents of each of the `folders` in `folder` last changed, in nanoseconds."""
    return np.array([os.stat(os.path.join(folder, place)).st_mtime_ns for place in folders])


def _remember(listing: Listing, folder: str, folders: list[str], started: int) -> None:
    times = _times(folder, folders)
    # a file that appears right after it was listed may leave a young folder's time as it is
    if times.max() > started - SETTLED_NS:
        return
    content = io.BytesIO()
    arrays = listing._asdict() | {"paths": listing.paths.names}
    np.savez(content, folders=folders, times=times, **arrays)
    path = _cache_file(folder)
    with suppress(OSError):  # without a cache the next run lists again
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_atomically(content.getbuffer(), path)


def _remembered(folder: str) -> Listing | None:
    """The listing of last time, unless a folder has changed since."""
    try:
        content = io.BytesIO(Path(_cache_file(folder)).read_bytes())
        arrays = dict(np.load(content, allow_pickle=False))
        if not np.array_equal(_times(folder, arrays["folders"]), arrays["times"]):
            return None
        classes, left_out = arrays["classes"].tolist(), arrays["left_out"].item()
        return Listing(classes, Paths(folder, arrays["paths"]), arrays["targets"], left_out)
    except Exception:  # whatever is wrong with the cache, the tree can be listed again
        return None
