"""Which images there are, of which class and where: listed once and remembered."""

import hashlib
import io
import os
import stat
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..disk import write_atomically
from ..errors import UsageError, some
from . import parquet, tars
from .files import IMAGE_ENDINGS, counted, is_data, kind_of, walk
from .imagenet import ARCHIVES, DEVKIT, IMAGENET_IMAGES, ValClasses
from .places import File, Member, Place, Places, Row

CACHED_FROM = 10_000  # images; fewer are listed in less than a second
SETTLED_NS = 2_000_000_000  # coarser than the clock of any file system's times
KINDS = {kind.__name__: kind for kind in (File, Member, Row)}


class Listing(NamedTuple):
    """The images of one split: classes are sorted names, which targets index, one an image.

    left_out: how many files and folders that are no images, in words.
    """

    classes: list[str]
    images: Sequence[Place]
    targets: np.ndarray
    left_out: str = ""

    @property
    def notes(self) -> list[str]:
        """Lines for the log."""
        return [f"left out    {self.left_out}"] if self.left_out else []

    def checksum(self) -> str:
        """What other names, or another order of them, would change."""
        return f"{zlib.crc32(self.targets, zlib.crc32(self.images.columns['name'])):08x}"


def list_images(
    root: str, split: str, names: Sequence[str] = (), val_classes: str | None = None
) -> Listing:
    """The images of a split, in the order of torchvision's ImageFolder.

    They are under `root`/`split`/<class>; in the tar archives or parquet files of that folder, see
    tars.py and parquet.py; or in ImageNet's own archive in `root`. names: of the classes that such
    files number. val_classes: what tells the classes of validation images that are in no class
    folder, see `ValClasses`; None for ImageNet's devkit in `root`.

    Many images are listed once; afterwards only the times of folders and archives are looked at.
    Raises UsageError for a missing folder, no classes, a class without an image, and an archive
    that can't be read.
    """
    if not os.path.isdir(root):
        raise UsageError(f"data folder {root} does not exist")
    where = place_of(root, split)
    if not where:
        raise UsageError(
            f"{root} has no folder {split}/; it must hold train/<class>/ and val/<class>/, or "
            f"archives of images in train/ and val/, or {ARCHIVES[split]}"
        )
    search = Search(where, names, val_classes or os.path.join(root, f"{DEVKIT}.tar.gz"))
    started, listing = time.time_ns(), remembered(search)
    if listing is None:
        listing = search.listing()
        if len(listing.images) >= CACHED_FROM:
            remember(listing, search, started)
    if not listing.classes:
        flat = f"; a flat one needs {DEVKIT}.tar.gz in {root}" if split == "val" else ""
        raise UsageError(f"{where} has no class folders, nor archives of images{flat}")
    counts = np.bincount(listing.targets, minlength=len(listing.classes))
    if not counts.all():
        empty = os.path.join(where, listing.classes[counts.argmin()])
        raise UsageError(f"class folder {empty} holds no image ({' '.join(IMAGE_ENDINGS)})")
    return listing


def place_of(root: str, split: str) -> str | None:
    """The folder or the archive with the images of a split, None where there is neither."""
    folder, archive = os.path.join(root, split), os.path.join(root, ARCHIVES[split])
    return folder if os.path.isdir(folder) else archive if os.path.isfile(archive) else None


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


class Search:
    """For the images in `where`, a folder or an archive in one; the rest as for `list_images`.

    folder: below which everything is. seen: what in it would change with what is found.
    """

    def __init__(self, where: str, names: Sequence[str], val_classes: str):
        self.where, self.names, self.val_classes = where, names, val_classes
        self.folder = where if os.path.isdir(where) else os.path.dirname(where)
        self.seen, self.left_out = [os.path.relpath(where, self.folder)], Counter()

    def listing(self) -> Listing:
        """What is found."""
        if self.folder == self.where:
            entries = list(os.scandir(self.where))
            classes = sorted(each.name for each in entries if each.is_dir() and is_data(each.name))
            files = sorted({each.name for each in entries} - {*classes})
        else:
            classes, files = [], [os.path.basename(self.where)]
        if classes:
            self.left_out.update(map(kind_of, files))
            found = [*self._in_class_folders(classes)]
        else:
            found = sorted(self._in_files(files), key=_in_order)
            classes = sorted({label for label, _ in found})
        number = {name: index for index, name in enumerate(classes)}
        targets = np.array([number[label] for label, _ in found], np.int64)
        told = f"{counted(self.left_out)} in {self.where}" if self.left_out else ""
        return Listing(classes, Places.of([place for _, place in found]), targets, told)

    def _in_class_folders(self, classes: Sequence[str]) -> Iterator[tuple[str, Place]]:
        # a link from one class to another, or to all of them, would count images twice
        roots = {os.path.realpath(os.path.join(self.folder, name)) for name in [".", *classes]}
        for label in classes:
            inside = os.path.join(self.folder, label)
            for place, images in walk(inside, IMAGE_ENDINGS, self.left_out, roots):
                self.seen.append(os.path.relpath(place, self.folder))
                for image in images:
                    yield label, File(self.folder, os.fsencode(f"{self.seen[-1]}/{image}"))

    def _in_files(self, files: Sequence[str]) -> Iterator[tuple[str, Place]]:
        """In the tar archives among the `files`, else in the parquet files, else the images."""
        devkit = ValClasses(self.val_classes)
        forms = [tars.ENDINGS, parquet.ENDINGS]
        forms += [IMAGE_ENDINGS] * os.path.exists(self.val_classes)
        for endings in forms:
            chosen = [name for name in files if is_data(name) and name.lower().endswith(endings)]
            if chosen:
                break
        self.seen += chosen
        self.left_out.update(map(kind_of, {*files} - {*chosen}))
        for name in tqdm(chosen, os.path.basename(self.where), leave=False, disable=None):
            if endings is tars.ENDINGS:
                class_of = devkit if name == ARCHIVES["val"] else None
                args = self.folder, name, self.left_out, self.names, class_of
                yield from tars.images_in(*args)
            elif endings is parquet.ENDINGS:
                yield from parquet.images_in(self.folder, name, self.names)
            else:
                yield devkit(name), File(self.folder, os.fsencode(name))


def _cache_file(search: Search) -> str:
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    said = repr((os.path.realpath(search.where), list(search.names), search.val_classes))
    name = hashlib.sha256(os.fsencode(said)).hexdigest()[:16]
    return os.path.join(caches, "simam", f"listing-{name}.npz")


def remember(listing: Listing, search: Search, started: int) -> None:
    """Keep what a `search` found that began at `started`, unless it could change unnoticed."""
    changes, path = _changes(search.folder, search.seen), _cache_file(search)
    # what appears right after it was listed may leave a young time as it is
    if changes[:, 0].max() > started - SETTLED_NS:
        return
    content = io.BytesIO()
    arrays = {"classes": listing.classes, "targets": listing.targets}
    arrays |= {"left_out": listing.left_out, "kind": listing.images.kind.__name__}
    np.savez(content, seen=search.seen, changes=changes, **arrays, **listing.images.columns)
    with suppress(OSError):  # without a cache the next run lists again
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_atomically(content.getbuffer(), path)


def remembered(search: Search) -> Listing | None:
    """What it found last time, unless a folder or an archive has changed since."""
    try:
        content = io.BytesIO(Path(_cache_file(search)).read_bytes())
        arrays = dict(np.load(content, allow_pickle=False))
        if not np.array_equal(_changes(search.folder, arrays["seen"]), arrays["changes"]):
            return None
        kind = KINDS[arrays["kind"].item()]
        places = Places(kind, search.folder, {name: arrays[name] for name in kind._fields[1:]})
        told = arrays["left_out"].item()
        return Listing(arrays["classes"].tolist(), places, arrays["targets"], told)
    except Exception:  # whatever is wrong with the cache, the images can be listed again
        return None


def _in_order(found: tuple[str, Place]) -> tuple:
    label, place = found
    return label, *os.path.split(os.fsdecode(place.name))


def _changes(folder: str, places: Sequence[str]) -> np.ndarray:
    """When each of the `places` in `folder` last changed, in nanoseconds, and the size of files."""
    found = [os.stat(os.path.join(folder, place)) for place in places]
    return np.array(
        [(each.st_mtime_ns, each.st_size * stat.S_ISREG(each.st_mode)) for each in found]
    )
