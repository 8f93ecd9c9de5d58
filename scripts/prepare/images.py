"""Image files of a data set: written, linked, made smaller; those that are there are left."""

import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageOps
from tqdm import tqdm

from utils.data.images import FORMATS
from utils.data.listing import IMAGE_ENDINGS, walk
from utils.errors import UsageError, reason


def is_whole(path: str, size: int) -> bool:
    """Whether the file is there with all of its `size` bytes."""
    return os.path.exists(path) and os.path.getsize(path) == size


def write_whole(path: str, data: bytes) -> None:
    """Write a file that is there completely or not at all.

    It is not waited for the disk, which for a million files would take hours: after a power cut a
    file may be too short, which the next try sees.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path + ".part").write_bytes(data)
    os.replace(path + ".part", path)


def images_below(folder: str) -> list[str]:
    """Their places in `folder`, sorted."""
    return [
        os.path.normpath(os.path.join(os.path.relpath(place, folder), name))
        for place, names in walk(folder, IMAGE_ENDINGS)
        for name in names
    ]


def link_images(source: str, dest: str, folder_of: Callable[[str], str] = os.path.dirname) -> None:
    """Give the images below `source` second names in `dest`, where the disk allows it; else copy.

    folder_of: an image's place in `source` -> its folder in `dest`.
    """
    for image in tqdm(images_below(source), "Images", disable=None):
        path = os.path.join(source, image)
        target, found = os.path.join(dest, folder_of(image), os.path.basename(image)), os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"{path} is no regular file; take it out of the folder")
        if is_whole(target, found.st_size):
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            os.link(os.path.realpath(path), target)
        except OSError:
            write_whole(target, Path(path).read_bytes())


def write_smaller(image: str, source: str, dest: str, shorter_side: int) -> str | None:
    """Write in `dest` a smaller copy of the `image` in `source`; None, or why it can't be decoded.

    image: its place in both folders. See `shrink`.
    """
    path, target = os.path.join(source, image), os.path.join(dest, image)
    # an empty one is what a power cut left of a copy that had not reached the disk
    if os.path.exists(target) and os.path.getsize(target):
        return None
    data = Path(path).read_bytes()
    try:
        data = shrink(data, shorter_side)
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        return f"can't decode {path}: {reason(error)}"
    write_whole(target, data)
    return None


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
