"""Tar archives of images: which are in them, of which class, and where, without unpacking them.

Three forms, told apart by what is in an archive: class folders; the images of one class, which the
archive is called after; a WebDataset's shard, in which KEY.cls or KEY.json beside KEY.jpg says the
class. An archive in an archive is of the second form: ImageNet's for training holds one a class.
"""

import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

from tqdm import tqdm

from ..errors import UsageError, reason
from .files import is_data, is_image, kind_of
from .imagenet import ARCHIVES
from .places import Member, Place, file

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
# how compressed files begin, and what unpacks them
COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}
LABELS, LONGEST_LABEL = ("cls", "json"), 2**20  # bytes


class Packed(NamedTuple):
    """A file in an archive: its name there, and where its bytes are."""

    name: str
    offset: int
    size: int


def images_in(
    folder: str,
    archive: str,
    left_out: Counter[str],
    names: Sequence[str] = (),
    class_of: Callable[[str], str] | None = None,
) -> list[tuple[str, Member]]:
    """The images in the `archive` of a folder: the class of each, and where it is, its name with
    the class first.

    left_out: where other files are counted, by `kind_of`. names: of the classes that a WebDataset
    numbers. class_of: says the class of an image by its name, where it is in no folder. Raises
    UsageError for an archive that is damaged, compressed, or holds a name twice, and for an image
    without a class.
    """
    path, images, labels = os.path.join(folder, archive), {}, {}
    for each in tqdm(_files_in(path, left_out), archive, leave=False, disable=None):
        key, ending = _key(each.name)
        if ending in LABELS:
            if key not in labels or ending == "cls":
                labels[key] = each
        elif not is_image(each.name):
            left_out[kind_of(each.name)] += 1
        elif each.name in images:
            raise UsageError(f"archive {path} holds {each.name} twice; make it again")
        else:
            images[each.name] = each
    is_shard = any(_key(name)[0] in labels for name in images)
    found = []
    with open(path, "rb") as shard:
        for name, each in images.items():
            if is_shard:
                label = named(_label(path, shard, each, labels.get(_key(name)[0])), names)
                name = f"{label}/{os.path.basename(name)}"
            else:
                name = _placed(archive, name, class_of)
                label = name.partition("/")[0]
            place = os.fsencode(name), os.fsencode(archive), each.offset, each.size
            found.append((label, Member(folder, *place)))
    return found


def images_at(path: str, left_out: Counter[str]) -> list[Place]:
    """The image in the file `path`; of a tar archive those in it, see `images_in`."""
    if not path.lower().endswith(ENDINGS):
        return [file(path)]
    return [place for _, place in images_in(*os.path.split(path), left_out)]


def named(label: int | str, names: Sequence[str]) -> str:
    """The class that an archive calls `label`: a number may have one of the `names`."""
    if not (names and str(label).isdecimal()):
        return str(label)
    if int(label) >= len(names):
        raise UsageError(f"--class-names has {len(names)} lines, and none for class {label}")
    return names[int(label)]


def _files_in(path: str, left_out: Counter[str]) -> Iterator[Packed]:
    """Those of the archive `path` and of the archives in it; raises UsageError."""
    try:
        with open(path, "rb") as archive:
            start = archive.read(6)
            for mark, unpack in COMPRESSED.items():
                if start.startswith(mark):
                    raise UsageError(
                        f"archive {path} is compressed, so its images can't be read one by one; "
                        f"{unpack} makes a .tar of it"
                    )
            archive.seek(0)
            with tarfile.open(fileobj=archive, mode="r:") as tar:
                yield from _packed(tar, 0, left_out)
    except (tarfile.TarError, OSError) as error:
        raise UsageError(f"can't read archive {path} ({reason(error)}); get it again") from None


def _packed(tar: tarfile.TarFile, start: int, left_out: Counter[str]) -> Iterator[Packed]:
    """The files in `tar`, which begins at byte `start`; those in archives in the outermost, too."""
    for member in members(tar):
        name = "/".join(part for part in member.name.split("/") if part not in ("", "."))
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            left_out["link or device"] += 1
        elif not all(map(is_data, name.split("/"))):
            left_out["hidden"] += 1
        elif name.endswith(".tar") and not start:
            stem = os.path.basename(name).removesuffix(".tar")
            with tarfile.open(fileobj=tar.extractfile(member), mode="r:") as inner:
                for each in _packed(inner, start + member.offset_data, left_out):
                    yield each if "/" in each.name else each._replace(name=f"{stem}/{each.name}")
        else:
            yield Packed(name, start + member.offset_data, member.size)


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """What is in `tar`, and none of it is kept; raises ReadError, after all that can be read, where
    it is damaged."""
    while (member := tar.next()) is not None:
        tar.members.clear()
        yield member
    tar.fileobj.seek(tar.offset)
    # tarfile takes a broken header for the end, which is an empty block
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"broken at byte {tar.offset}")


def _key(name: str) -> tuple[str, str]:
    """What a WebDataset's sample is called, and the part of it that a file is."""
    folder, _, base = name.rpartition("/")
    key, _, ending = base.partition(".")
    return f"{folder}/{key}", ending


def _placed(archive: str, name: str, class_of: Callable[[str], str] | None) -> str:
    """The name in an archive that is no shard, with the class first."""
    stem = archive.removesuffix(".tar")
    if stem in ARCHIVES and name.count("/") > 1:  # train.tar holds train/<class>/
        name = name.removeprefix(f"{stem}/")
    if "/" in name:
        return name
    return f"{class_of(name) if class_of else stem}/{name}"


def _label(path: str, shard: BinaryIO, image: Packed, label: Packed | None) -> int | str:
    """What the shard says of the image's class, in the file `label` in it."""
    if label is None:
        raise UsageError(f"archive {path}: {image.name} has no .cls or .json with its class")
    shard.seek(label.offset)
    text = shard.read(min(label.size, LONGEST_LABEL))
    try:
        return json.loads(text)["label"] if label.name.endswith("json") else text.decode().strip()
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"archive {path}: {label.name} tells no class ({reason(error)})") from None
