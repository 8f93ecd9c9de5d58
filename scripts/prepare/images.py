"""Images of a class, written to its folder or its archive; what is there is left."""

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageOps

from utils.data.images import FORMATS
from utils.data.places import File, Place
from utils.errors import UsageError, reason

Images = tuple[str, Mapping[str, Place]]  # the folder that they go to; by name, where they are


def write_folder(made: Images, shorter_side: int | None) -> list[str]:
    """Write the images to a folder; returns a line for each that can't be decoded.

    shorter_side: of the copies, see `shrink`; None links or copies them as they are.
    """
    folder, images = made
    problems = []
    for name, image in images.items():
        target = os.path.join(folder, name)
        # an empty one is what a power cut left of a copy that had not reached the disk
        if shorter_side and os.path.exists(target) and os.path.getsize(target):
            continue
        if shorter_side is None and isinstance(image, File) and link(image, target):
            continue
        try:
            data = copied(image, shorter_side)
        except Unreadable as error:
            problems.append(str(error))
        else:
            if not (os.path.exists(target) and os.path.getsize(target) == len(data)):
                write_whole(target, data)
    return problems


def write_tar(made: Images, shorter_side: int | None) -> list[str]:
    """The same with an archive, named after the folder, which is there completely or not at all."""
    folder, images = made
    target, problems = f"{folder}.tar", []
    if os.path.exists(target) and os.path.getsize(target):
        return problems
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with tarfile.open(f"{target}.part", "w") as tar:
        for name, image in images.items():
            try:
                data = copied(image, shorter_side)
            except Unreadable as error:
                problems.append(str(error))
            else:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    os.replace(f"{target}.part", target)
    return problems


class Unreadable(Exception):
    """Says of an image why it can't be decoded."""


def copied(image: Place, shorter_side: int | None) -> bytes:
    """The image's bytes, made smaller; raises Unreadable where they are no image, UsageError where
    there is no file, and OSError for what a disk does."""
    try:
        data = image.read()
    except ValueError as error:
        raise UsageError(f"can't read {image}: {error}; take it out of the folder") from None
    if shorter_side is None:
        return data
    try:
        return shrink(data, shorter_side)
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise Unreadable(f"can't decode {image}: {reason(error)}") from None


def shrink(data: bytes, shorter_side: int) -> bytes:
    """A JPEG of the image in `data` with its shorter side at most `shorter_side` pixels.

    `data` itself where it is a small enough RGB JPEG already, in pixels and in bytes.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as file:
        plain = file.format == "JPEG" and file.mode == "RGB"
        image = file.convert("RGB")
    if min(image.size) > shorter_side:
        plain, size = False, (shorter_side, shorter_side)
        image = ImageOps.cover(image, size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return data if plain and len(data) <= buffer.tell() else buffer.getvalue()


def link(image: File, target: str) -> bool:
    """Give a regular file a second name, where the disk allows it; returns whether it has that."""
    path = os.path.realpath(str(image))
    if not os.path.isfile(path):
        return False
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.link(path, target)
    except FileExistsError:
        return os.path.samefile(path, target)
    except OSError:
        return False
    return True


def write_whole(path: str, data: bytes) -> None:
    """Write a file that is there completely or not at all.

    It is not waited for the disk, which for a million files would take hours: after a power cut a
    file may be too short, which the next try sees.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path + ".part").write_bytes(data)
    os.replace(path + ".part", path)
