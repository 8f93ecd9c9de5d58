"""ImageNet as it is handed out: its size, its archives, the classes of its validation images."""

import io
import os
import re
import struct
import tarfile
import zlib
from functools import cached_property
from pathlib import Path

from ..errors import UsageError, reason

IMAGENET_CLASSES = 1000
IMAGENET_IMAGES = {"train": 1_281_167, "val": 50_000}
ARCHIVES = {split: f"ILSVRC2012_img_{split}.tar" for split in IMAGENET_IMAGES}
DEVKIT = "ILSVRC2012_devkit_t12"
LARGEST = 2**28  # bytes of the devkit, which has less than 20 MB
LARGEST_TABLE = 2**24  # bytes of its meta.mat, unpacked: 1,860 synsets in some 2 MB
COMPRESSED = 15  # MATLAB's miCOMPRESSED


class ValClasses:
    """The class of a validation image by its name, as `path` says.

    path: the devkit's archive, or text whose lines hold a WordNet id, in the order of the images
    or after an image's name. It is read, and UsageError raised for it, when an image needs it.
    """

    def __init__(self, path: str):
        self.path = path

    def __call__(self, image: str) -> str:
        found = self.by_stem.get(os.path.splitext(image)[0])
        if not found:
            raise UsageError(f"{self.path} tells no class of validation image {image}")
        return found

    @cached_property
    def by_stem(self) -> dict[str, str]:
        """WordNet ids by the images' names without the ending."""
        try:
            read = devkit_ids if self.path.endswith(".gz") else Path.read_text
            text = read(Path(self.path))
        except ImportError:
            raise UsageError("reading the devkit needs scipy: pip install scipy") from None
        except Exception as error:  # a damaged devkit makes scipy raise almost anything
            raise UsageError(
                f"can't read the validation images' classes from {self.path} ({reason(error)})"
            ) from None
        # a line: an image's name, perhaps, and the id; headings have none
        lines = re.findall(r"^(?:(\w+)(?:\.\w+)?[ \t,]+)?(n\d{8})\b", text, re.MULTILINE)
        numbered = enumerate(lines, 1)
        return {stem or f"ILSVRC2012_val_{n:08}": wnid for n, (stem, wnid) in numbered}


def devkit_ids(path: Path) -> str:
    """The WordNet ids of the validation images in their order, a line each."""
    from scipy.io import loadmat

    with tarfile.open(path) as tar:
        for member in tar:  # before it is unpacked to look at the next
            if member.offset_data + member.size > LARGEST:
                raise ValueError(f"unpacks to more than {LARGEST} bytes")
        truth = tar.extractfile(f"{DEVKIT}/data/ILSVRC2012_validation_ground_truth.txt").read()
        table = tar.extractfile(f"{DEVKIT}/data/meta.mat").read()
    check_table(table)
    synsets = loadmat(io.BytesIO(table), squeeze_me=True)["synsets"]
    wnid_of = {int(each["ILSVRC2012_ID"]): str(each["WNID"]) for each in synsets}
    return "\n".join(wnid_of[int(number)] for number in truth.split())


def check_table(mat: bytes) -> None:
    """Raise ValueError where the variables of a MATLAB file, which may be compressed, are larger
    than any devkit's; scipy would unpack them."""
    order, at, left = "<" if mat[126:128] == b"IM" else ">", 128, LARGEST_TABLE
    while at + 8 <= len(mat):
        kind, size = struct.unpack_from(f"{order}II", mat, at)
        packed = mat[at + 8 : at + 8 + size] if kind == COMPRESSED else b""
        left -= len(zlib.decompressobj().decompress(packed, left + 1)) if packed else size
        if left < 0:
            raise ValueError(f"meta.mat unpacks to more than {LARGEST_TABLE} bytes")
        at += 8 + size
