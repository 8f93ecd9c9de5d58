"""Image files as pixels: two decoders, and the transforms for training and evaluation.

A decoder gives Pillow images, or uint8 tensors (3, height, width) in channels-last memory;
torchvision's functions take both, and random numbers are drawn in the same order for both. So
the decoders differ by pixels only, never by what is cut out of an image.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from .errors import UsageError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

BACKENDS = ("turbo", "pil")
Pixels = Image.Image | torch.Tensor


class PillowImage:
    """An image as Pillow decodes it, in RGB; like the published code, EXIF turns are ignored."""

    def __init__(self, data: bytes):
        try:
            with Image.open(io.BytesIO(data)) as file:
                self.image = file.convert("RGB")
        except UnidentifiedImageError:
            # Pillow's own message names the buffer
            raise UnidentifiedImageError("no image" if data else "empty file") from None
        self.width, self.height = self.image.size

    def crop(self, top: int, left: int, height: int, width: int) -> Image.Image:
        return self.image.crop((left, top, left + width, top + height))


class TurboImage:
    """A JPEG with the usual three components, decoded by libjpeg-turbo when it is cropped.

    Raises ValueError for every other file, and for one that does not end as a JPEG does; Pillow
    knows what to do with those.
    """

    # rows below a crop that the smooth upsampling of its colours looks at
    MARGIN = 4

    def __init__(self, data: bytes):
        self.data = data
        self.height, self.width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        if colours != "YCbCr" or not data.endswith(b"\xff\xd9"):
            raise ValueError("not a plain JPEG")

    def crop(self, top: int, left: int, height: int, width: int) -> Pixels:
        data = cut_below(self.data, top + height + self.MARGIN)
        try:
            # like Pillow, go on where libjpeg only warns
            pixels = simplejpeg.decode_jpeg(data, "RGB", strict=False)
        except ValueError:
            return PillowImage(self.data).crop(top, left, height, width)
        pixels = np.ascontiguousarray(pixels[top : top + height, left : left + width])
        return torch.from_numpy(pixels).permute(2, 0, 1)


def cut_below(data: bytes, rows: int) -> bytes | bytearray:
    """The JPEG `data` with only its first `rows` rows, so that a decoder stops there.

    The height in its header is all that changes. Files with fewer rows are returned as they are,
    and so are those that don't hold their components, row by row, in a single scan.
    """
    at = _height_field(data)
    if at is None or int.from_bytes(data[at : at + 2], "big") <= rows:
        return data
    shorter = bytearray(data)
    shorter[at : at + 2] = rows.to_bytes(2, "big")
    return shorter


def _height_field(data: bytes) -> int | None:
    """Where a sequential JPEG of three components in one scan has its height, two bytes."""
    field, at = None, 2
    while at + 4 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xC0, 0xC1):  # start of a sequential, Huffman-coded frame
            field = at + 5
        elif marker == 0xDA:  # start of a scan, and of so many components
            return field if data[at + 4] == 3 else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def choose_backend(name: str | None, default: str) -> str:
    """The decoder called `name`, None for `default`, or "pil" where that is not installed.

    Raises UsageError where the one asked for is not installed.
    """
    if simplejpeg is None and name == "turbo":
        raise UsageError("--image-backend turbo needs simplejpeg: pip install simplejpeg")
    return name or (default if simplejpeg else "pil")


def open_image(path: str, backend: str) -> PillowImage | TurboImage:
    """The image in the file `path`; whatever is not a plain JPEG is Pillow's in any case.

    Raises whatever Pillow raises for what it can't read: almost anything.
    """
    with open(path, "rb") as file:
        data = file.read()
    if backend == "turbo":
        try:
            return TurboImage(data)
        except ValueError:
            pass
    return PillowImage(data)


def reason(error: Exception) -> str:
    """Why an image could not be read, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def to_tensor(pixels: Pixels) -> torch.Tensor:
    return F.pil_to_tensor(pixels) if isinstance(pixels, Image.Image) else pixels


def train_transform(size: int) -> Callable[[PillowImage | TurboImage], torch.Tensor]:
    """Image -> uint8 (3, size, size): random crop of 8 to 100 % of the area, random flip."""
    random_crop, random_flip = v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()

    def transform(image: PillowImage | TurboImage) -> torch.Tensor:
        whole = torch.empty(1, image.height, image.width, device="meta")
        crop = image.crop(**random_crop.make_params([whole]))
        return to_tensor(random_flip(F.resize(crop, [size, size])))

    return transform


def eval_transform(size: int) -> Callable[[PillowImage | TurboImage], torch.Tensor]:
    """Image -> uint8 (3, size, size): shorter side to 256/224 of the size, centre crop."""

    def transform(image: PillowImage | TurboImage) -> torch.Tensor:
        whole = image.crop(0, 0, image.height, image.width)
        return to_tensor(F.center_crop(F.resize(whole, [size * 256 // 224]), [size]))

    return transform
