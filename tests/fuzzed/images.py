"""Images of every format, changed as bytes, and given to both decoders."""

import io
import struct
import zlib
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image

from utils.data.images import EvalTransform, TrainTransform
from utils.data.listing import Listing
from utils.data.loader import BadImage, ImageDataset
from utils.data.places import file
from utils.data.preparation import IMAGENET

SIDE = 64


def photo(width: int, height: int) -> Image.Image:
    """Colours that change slowly, with detail on top."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray(np.uint8((smooth + rng.integers(-20, 21, smooth.shape)).clip(0, 255)))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is so large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(10**5))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


class Images:
    """See `fuzz.Kind`."""

    def __init__(self, folder: Path):
        torch.set_num_threads(1)
        image = photo(200, 150)
        self.jpegs = [
            *(encoded(image, "JPEG", subsampling=each) for each in ("4:4:4", "4:2:2", "4:2:0")),
            encoded(image, "JPEG", restart_marker_rows=2),
            encoded(image, "JPEG", optimize=True, quality=30),
            encoded(image, "JPEG", progressive=True),
            encoded(image.convert("L"), "JPEG"),
            encoded(image.convert("CMYK"), "JPEG"),
        ]
        self.others = [
            encoded(image, kind) for kind in ("PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
        ]
        self.others += [encoded(image.convert("P"), "PNG"), encoded(image.convert("1"), "TIFF")]
        self.others += [encoded(image, "TIFF", compression="tiff_lzw"), encoded(image, "EPS")]
        self.others += [huge_png(65500, 1), huge_png(20000, 20000), huge_png(9000, 9000)]

    def make(self, draw: Random, place: Path) -> str:
        real = draw.choice(self.jpegs * 2 + self.others)
        data, how = bytearray(real), []
        for _ in range(draw.choice([1, 1, 2, 5])):
            # headers more often than pixels
            at = min(int(len(data) * draw.random() ** draw.choice([1, 4])), len(data) - 1)
            length = draw.choice([1, 2, 4, 100, 512])
            kind = draw.choice(["cut", "bytes", "marker", "zeros", "doubled", "without"])
            if kind == "cut":
                del data[at:]
                data += draw.choice([b"", b"\xff\xd9"])
            elif kind == "marker":
                data[at : at + 2] = bytes([0xFF, draw.randrange(0xC0, 0xFF)])
            elif kind == "without":
                del data[at : at + length]
            elif kind == "doubled":
                data[at:at] = data[at : at + length]
            else:
                data[at : at + length] = (
                    draw.randbytes(length) if kind == "bytes" else bytes(length)
                )
            how.append(f"{kind} of {length} at {at}")
            if not data:
                break
        (place / "a.jpg").write_bytes(data)
        return f"{bytes(real[:12])}, {len(real)} bytes: {how}"

    def read(self, draw: Random, place: Path) -> int:
        listing = Listing(["one"], [file(place / "a.jpg")], np.zeros(1, np.int64))
        epoch, found = draw.randrange(100), {}
        transforms = {"train": TrainTransform(SIDE), "val": EvalTransform(IMAGENET.at(SIDE))}
        for name, transform in transforms.items():
            for backend in ("pil", "turbo"):
                sample = ImageDataset(listing, transform, backend=backend)[epoch, 0]
                if isinstance(sample, BadImage):
                    assert "Memory" not in sample.reason
                    assert sample.reason.isprintable()
                    found[name, backend] = None
                else:
                    assert sample[0].shape == (3, SIDE, SIDE)
                    found[name, backend] = sample[0].int()
        for name in ("train", "val"):
            pillow, turbo = found[name, "pil"], found[name, "turbo"]
            assert (pillow is None) == (turbo is None), f"{name}: refused by one decoder only"
            if pillow is not None:
                far = float((pillow - turbo).abs().double().mean())
                assert far < 16, f"{name}: pixels differ by {far}"  # of noise by most
        return 0
