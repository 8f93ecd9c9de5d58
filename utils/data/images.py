"""Image files as pixels: two decoders, and the transforms for training and evaluation.

What is cut out of an image is decided before it is decoded, from numbers that don't depend on the
decoder; so the decoders differ by pixels only.
"""

import io
import math
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn.functional import interpolate
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor

from ..errors import UsageError, reason
from .places import Place
from .preparation import Preparation

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

# what a log says besides the decoder, where the faster one is missing
NO_TURBO = "" if simplejpeg else " (turbo needs simplejpeg)"

# of `IMAGE_ENDINGS`: Pillow knows others, for some of which it starts programs
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
# libjpeg's words for what lies below a cut; it tells its first warning, and this one comes last
BELOW = "extraneous bytes before marker 0xd9"


class Crop(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class PillowImage:
    """An image as Pillow decodes it, in RGB; like the published code, EXIF turns are ignored.

    A grey one becomes RGB when it is resized: the pixels are the same, for a third of the work.
    """

    def __init__(self, data: bytes):
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as file:
                self.image = _eight_bits(file)
        except UnidentifiedImageError:
            # Pillow's own message names the buffer
            raise UnidentifiedImageError("no image" if data else "empty file") from None
        self.width, self.height = self.image.size

    def resized(self, crop: Crop, height: int, width: int) -> torch.Tensor:
        """`crop`, resized to uint8 (3, height, width) in channels-last memory."""
        right, bottom = crop.left + crop.width, crop.top + crop.height
        cropped = self.image.crop((crop.left, crop.top, right, bottom))
        resized = cropped.resize((width, height), Image.Resampling.BILINEAR)
        return pil_to_tensor(resized.convert("RGB"))

    def part_of_resized(self, height: int, width: int, part: Crop) -> torch.Tensor:
        """What `resized` of the whole image has at `part`, without the rest of it."""
        across, down = self.width / width, self.height / height
        box = (
            part.left * across,
            part.top * down,
            (part.left + part.width) * across,
            (part.top + part.height) * down,
        )
        bilinear = Image.Resampling.BILINEAR
        return pil_to_tensor(
            self.image.resize((part.width, part.height), bilinear, box).convert("RGB")
        )


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey or RGB of 8 bits; of grey in 16 bits the upper 8, which Pillow would cut off at 255.

    Raises ValueError for floats, whose white nobody knows.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("L" if image.mode == "L" else "RGB")


class TurboImage:
    """A JPEG with the usual three components, decoded by libjpeg-turbo when its pixels are asked.

    Where libjpeg warns, the file is Pillow's, which may refuse it. Raises ValueError for every
    other file, and for one that does not end as a JPEG does; Pillow knows what to do with those.
    """

    def __init__(self, data: bytes):
        self.data = data
        self.height, self.width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        plain = colours == "YCbCr" and data.endswith(b"\xff\xd9")
        too_large = self.height * self.width > Image.MAX_IMAGE_PIXELS
        if not plain or too_large or is_strip(self.height, self.width):
            raise ValueError("not a plain JPEG")

    def resized(self, crop: Crop, height: int, width: int) -> torch.Tensor:
        """As `PillowImage.resized`, with PyTorch's filter, which is Pillow's in whole numbers."""
        bottom, right = crop.top + crop.height, crop.left + crop.width
        data = cut_below(self.data, bottom)
        pixels = np.empty((self.height if data is self.data else bottom, self.width, 3), np.uint8)
        try:
            # unlike Pillow, repeat the halved colours of most files instead of smoothing them:
            # quicker, and no row needs the one below
            simplejpeg.decode_jpeg(data, "RGB", fastupsample=True, buffer=pixels)
        except ValueError as error:
            if data is self.data or BELOW not in str(error):
                return PillowImage(self.data).resized(crop, height, width)
        cropped = np.ascontiguousarray(pixels[None, crop.top : bottom, crop.left : right])
        batch = torch.from_numpy(cropped).permute(0, 3, 1, 2)
        return interpolate(batch, (height, width), mode="bilinear", antialias=True)[0]


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


def open_image(place: Place, backend: str) -> PillowImage | TurboImage:
    """The image at `place`; whatever is not a plain JPEG is Pillow's in any case.

    Raises whatever Pillow raises for what it can't read: almost anything.
    """
    data = place.read()
    if backend == "turbo":
        with suppress(Exception):  # simplejpeg raises almost anything for a damaged header
            return TurboImage(data)
    return PillowImage(data)


def random_crop(height: int, width: int, rng: Random, least: float = 0.08) -> Crop:
    """From the share `least` of the area on, 3/4 to 4/3 as wide as high, anywhere; distributed as
    torchvision's RandomResizedCrop does it: ten tries, then the largest part in the middle."""
    for _ in range(10):
        area = height * width * rng.uniform(least, 1)
        ratio = (3 / 4) ** rng.uniform(-1, 1)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Crop(rng.randint(0, height - h), rng.randint(0, width - w), h, w)
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return Crop((height - h) // 2, (width - w) // 2, h, w)


# image, and what random transforms draw from -> uint8 (3, size, size)
Transform = Callable[[PillowImage | TurboImage, Random], torch.Tensor]


POLICIES = {
    "imagenet": v2.AutoAugment,
    "ra": v2.RandAugment,
    "ta_wide": v2.TrivialAugmentWide,
    "augmix": v2.AugMix,
}


class TrainTransform:
    """Random crop of a share of the image from `least` on, flip with probability `hflip`, and what
    `policy` names.

    policy: "imagenet" (AutoAugment's for ImageNet), "ra" (RandAugment), "ta_wide"
    (TrivialAugmentWide), "augmix" (AugMix), with torchvision's defaults; None for nothing.
    """

    def __init__(
        self, size: int, policy: str | None = None, least: float = 0.08, hflip: float = 0.5
    ):
        self.size, self.least, self.hflip = size, least, hflip
        self.augment = policy and POLICIES[policy]()

    def __call__(self, image: PillowImage | TurboImage, rng: Random) -> torch.Tensor:
        crop = random_crop(image.height, image.width, rng, self.least)
        pixels = image.resized(crop, self.size, self.size)
        if rng.random() < self.hflip:
            pixels = pixels.flip(2)
        if self.augment is None:
            return pixels
        # torchvision's policies know torch's own generator only
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(rng.getrandbits(63))
            return self.augment(pixels)


class EvalTransform:
    """The shorter side resized and the middle cut out, as `preparation` says."""

    def __init__(self, preparation: Preparation):
        self.size, self.shorter = preparation.centre_crop, preparation.shorter_side

    def __call__(self, image: PillowImage | TurboImage, _rng: Random | None = None) -> torch.Tensor:
        least = min(image.height, image.width)
        height, width = (self.shorter * side // least for side in (image.height, image.width))
        if is_strip(image.height, image.width):
            top, left = (round((side - self.size) / 2) for side in (height, width))
            return image.part_of_resized(height, width, Crop(top, left, self.size, self.size))
        whole = Crop(0, 0, image.height, image.width)
        return center_crop(image.resized(whole, height, width), [self.size])


def is_strip(height: int, width: int) -> bool:
    """Whether an image is so long that all of it, resized, would take gigabytes."""
    return max(height, width) > 32 * min(height, width)


def load_image(place: Place, preparation: Preparation) -> torch.Tensor:
    """The image at `place` as an evaluation sees it, uint8 (3, H, W), by Pillow.

    Raises UsageError for what can't be read.
    """
    try:
        return EvalTransform(preparation)(open_image(place, "pil"))
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise UsageError(f"can't read image {place} ({reason(error)})") from None
