"""Where the bytes of an image lie: in a file, in a tar archive, in a row of a parquet file."""

import os
import stat
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ..errors import needed

OPEN_FILES, OPEN_GROUPS = 64, 4  # that each process keeps; a group of rows may have 100 MB


class Place(Protocol):
    """Where an image is, below `folder`; `str` of it is what it is called."""

    folder: str
    name: bytes

    def read(self) -> bytes:
        """The image's bytes; raises OSError or ValueError where they can't be had."""


class File(NamedTuple):
    """A file by itself."""

    folder: str
    name: bytes

    def __str__(self) -> str:
        return _below(self.folder, self.name)

    def read(self) -> bytes:
        if not stat.S_ISREG(os.stat(str(self)).st_mode):
            raise ValueError("no regular file")
        with open(str(self), "rb", buffering=0) as file:
            return file.readall()


def file(path: str | Path) -> File:
    """The file at `path`."""
    return File("", os.fsencode(path))


class Member(NamedTuple):
    """`size` bytes, from `offset` on, of the uncompressed `archive` in the folder."""

    folder: str
    name: bytes
    archive: bytes
    offset: int
    size: int

    def __str__(self) -> str:
        return _below(self.folder, self.archive, self.name)

    def read(self) -> bytes:
        archive = _opened(_below(self.folder, self.archive))
        data = os.pread(archive.number, self.size, self.offset)
        if len(data) < self.size:
            raise ValueError("the archive is shorter than when it was listed")
        return data


class Row(NamedTuple):
    """A row in a group of rows of the parquet file `archive` in the folder."""

    folder: str
    name: bytes
    archive: bytes
    group: int
    row: int

    def __str__(self) -> str:
        return _below(self.folder, self.archive, self.name)

    def read(self) -> bytes:
        archive = _below(self.folder, self.archive)
        data = _images_of_group(archive, int(self.group))[int(self.row)].as_py()
        if data is None:
            raise ValueError("the row holds no bytes")
        return data


class Places(Sequence[Place]):
    """Many places of one `kind` below `folder`. columns: the other fields of each, by name.

    A list of a million objects is copied page by page into every process that looks at it, because
    looking at a Python object writes to its reference count; an array stays shared.
    """

    def __init__(self, kind: type[Place], folder: str, columns: dict[str, np.ndarray]):
        self.kind, self.folder, self.columns = kind, folder, columns

    @classmethod
    def of(cls, places: Sequence[Place]) -> "Places":
        """Those of a list, all of one kind and in one folder."""
        kind, folder = (type(places[0]), places[0].folder) if places else (File, "")
        values = zip(*places, strict=True) if places else [()] * len(kind._fields)
        _, *columns = map(np.array, values)
        return cls(kind, folder, dict(zip(kind._fields[1:], columns, strict=True)))

    def __len__(self) -> int:
        return len(self.columns["name"])

    def __getitem__(self, index: int) -> Place:
        return self.kind(self.folder, *(column[index] for column in self.columns.values()))


def _below(folder: str, *names: bytes) -> str:
    return os.path.join(folder, *map(os.fsdecode, names))


class _Opened:
    """A file that several processes may read, each at its own place."""

    def __init__(self, path: str):
        self.number = None
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self):
        if self.number is not None:
            os.close(self.number)


_opened = lru_cache(OPEN_FILES)(_Opened)


@lru_cache(OPEN_FILES)
def open_parquet(path: str):
    """pyarrow's `ParquetFile`; raises UsageError without that package."""
    return needed("pyarrow.parquet", "pyarrow").ParquetFile(path, memory_map=True)


@lru_cache(OPEN_GROUPS)
def _images_of_group(path: str, group: int):
    rows = open_parquet(path).read_row_group(group, ["image.bytes"], use_threads=False)
    return rows.flatten().column(0)
