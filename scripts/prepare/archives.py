"""ImageNet as it is handed out: its archives, the classes of its validation images, its size."""

import io
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from utils.data.endings import is_image
from utils.errors import UsageError, reason

TRAIN_ARCHIVE = "ILSVRC2012_img_train.tar"
VAL_ARCHIVE = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
CLASSES = 1000
IMAGES = {"train": 1_281_167, "val": 50_000}

BLOCK = 512  # bytes; tar files consist of such
WNID = re.compile(r"n\d{8}")


class Piece(NamedTuple):
    """An image: `size` bytes from `offset` on of the file `source`, to be called `target`."""

    source: str
    offset: int
    size: int
    target: str


class DamagedArchive(Exception):
    """An archive that ends early, or whose structure is broken."""


def tar_members(path: str, start: int = 0) -> Iterator[tarfile.TarInfo]:
    """The files in the tar that begins at byte `start` of `path`.

    Raises DamagedArchive, after all that can be read, where it does not end as a tar does, and
    OSError where the disk does not give it.
    """
    end = start
    with open(path, "rb") as file:
        file.seek(start)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    end = member.offset_data + -(-member.size // BLOCK) * BLOCK
                    if end > os.path.getsize(path):
                        raise DamagedArchive(f"{path} ends within {member.name}")
                    if member.isfile():
                        yield member
        except tarfile.TarError as error:
            raise DamagedArchive(f"{path}: {error}") from None
        except OSError as error:
            # reading does not say from where
            raise OSError(error.errno, error.strerror, path) from None
        # tarfile takes a broken header for the end, which is an empty block
        file.seek(end)
        if file.read(BLOCK) != bytes(BLOCK):
            raise DamagedArchive(f"{path} is broken at byte {end}")


def tar_pieces(path: str, folder: str, start: int = 0) -> Iterator[Piece]:
    """The images of a tar as `folder`/<name>; raises as `tar_members` does."""
    for member in tar_members(path, start):
        if is_image(member.name):
            target = os.path.join(folder, os.path.basename(member.name))
            yield Piece(path, member.offset_data, member.size, target)


def folder_pieces(source: str, folder: str) -> Iterator[Piece]:
    """The images below `source` as `folder`/<the same place>."""
    for place, _, names in sorted(os.walk(source, followlinks=True)):
        below = os.path.normpath(os.path.join(folder, os.path.relpath(place, source)))
        for name in sorted(filter(is_image, names)):
            path = os.path.join(place, name)
            yield Piece(path, 0, os.path.getsize(path), os.path.join(below, name))


class ValClasses:
    """Which class (WordNet id) a validation image is of, by its file name."""

    def __init__(self, by_name: dict[str, str], in_order: list[str]):
        self.by_name, self.in_order = by_name, in_order

    @classmethod
    def read(cls, path: str) -> "ValClasses":
        """From the devkit (its archive or its folder), or from a text file.

        A line of the text holds a WordNet id, in the order of the images, or an image's name
        before it; or an official number, with the devkit's meta.mat beside the file. Raises
        UsageError for anything else.
        """
        try:
            lines, meta = _ground_truth(path)
        except (OSError, tarfile.TarError, zlib.error, KeyError, EOFError, ValueError) as error:
            raise UsageError(
                f"can't read the validation classes from {path} ({reason(error)})"
            ) from None
        if lines and lines[0].isdecimal():
            return cls({}, _from_official_numbers(lines, meta, path))
        by_name, in_order = {}, []
        for line in lines:
            wnid = WNID.search(line)
            name = re.match(r"(\w+?)(?:\.JPEG)?[\s,]", line)
            if not wnid:
                continue  # a heading
            if name and name[1] != wnid[0]:
                by_name[name[1]] = wnid[0]
            else:
                in_order.append(wnid[0])
        if not by_name and not in_order:
            raise UsageError(f"{path} holds neither WordNet ids nor official class numbers")
        return cls(by_name, in_order)

    def __getitem__(self, path: str) -> str:
        """Raises UsageError for an image that has none."""
        stem = os.path.splitext(os.path.basename(path))[0]
        number = re.search(r"_val_(\d+)$", stem)
        if stem in self.by_name:
            return self.by_name[stem]
        if number and 0 < int(number[1]) <= len(self.in_order):
            return self.in_order[int(number[1]) - 1]
        raise UsageError(f"no class is known for validation image {path}")


def _ground_truth(path: str) -> tuple[list[str], bytes | None]:
    """The lines of the ground truth in `path`, and the devkit's meta.mat where it is there."""
    if path.endswith(".tar.gz"):
        with tarfile.open(path) as tar:
            truth = tar.extractfile(f"{DEVKIT}/data/{GROUND_TRUTH}").read().decode()
            return truth.splitlines(), tar.extractfile(f"{DEVKIT}/data/meta.mat").read()
    if os.path.isdir(path):
        path = os.path.join(path, "data", GROUND_TRUTH)
    with open(path) as file:
        lines = file.read().splitlines()
    meta = os.path.join(os.path.dirname(path), "meta.mat")
    if not os.path.exists(meta):
        return lines, None
    with open(meta, "rb") as file:
        return lines, file.read()


def _from_official_numbers(lines: list[str], meta: bytes | None, path: str) -> list[str]:
    if meta is None:
        raise UsageError(f"{path} holds class numbers; they need the devkit's meta.mat beside it")
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UsageError("the devkit's meta.mat needs scipy: pip install scipy") from None
    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        wnid_of = {str(int(each["ILSVRC2012_ID"])): str(each["WNID"]) for each in synsets}
    except Exception as error:  # a damaged file makes scipy raise almost anything
        raise UsageError(f"can't read the meta.mat of {path} ({reason(error)})") from None
    numbers = [line.strip() for line in lines if line.strip()]
    unknown = sorted(set(numbers) - wnid_of.keys())
    if unknown:
        raise UsageError(f"{path} holds {unknown[0]!r}, which is no class number of its meta.mat")
    return [wnid_of[number] for number in numbers]
