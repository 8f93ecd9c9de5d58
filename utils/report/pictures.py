"""What the scripts that draw share: matplotlib without a display, and the file that is written."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from ..disk import check_target, write_bytes
from ..errors import UsageError, needed, one_line

DPI = 100
TEXT = 20  # pixels that a line of text takes


def new_figure(width: float, height: float):
    """An empty matplotlib figure of so many inches, with DPI pixels each; needs no display.

    Raises UsageError where matplotlib is not installed.
    """
    figure = needed("matplotlib.figure", "matplotlib").Figure
    return figure(figsize=(width, height), dpi=DPI, layout="constrained")


def check_output(wanted: str | None, default: str, inputs: Sequence[str] = ()) -> str:
    """The file to write: `wanted`, or `default` in the current folder where None.

    Raises UsageError, before any work, for a file of `inputs`, a default that is already there,
    and where no PNG file can be written, see `check_target`.
    """
    path = wanted or default
    check_target(path, (".png",), replace=wanted is not None)
    if os.path.realpath(path) in map(os.path.realpath, inputs):
        raise UsageError(f"--output {path} is one of the inputs; choose another name")
    return path


def save_figure(figure, path: str) -> None:
    """Write `figure` as a PNG file and say so; raises UsageError where it can't be written."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes(buffer.getbuffer(), path)
    print(f"wrote {path}")


def short_path(path: str, length: int) -> str:
    """The last two parts of `path`; of these the last `length` characters."""
    text = "/".join(Path(path).parts[-2:])
    return text if len(text) <= length else f"...{text[3 - length :]}"


def answer_in_words(found: str, share: float, right: str) -> str:
    """What an image was taken for, how surely (0 to 1), and what it shows where that is another."""
    return f"{found} {share:.0%}" + (f", not {right}" if found != right else "")


def captioned(images: torch.Tensor, captions: Sequence[str], across: int = 4) -> torch.Tensor:
    """uint8 images (N, 3, H, W), `across` in a row, a line of text below each -> (3, H', W').

    Small ones are enlarged to 160 pixels; what is too long for its place is cut off.
    """
    scale = max(1, -(-160 // images.shape[-1]))
    height, width = (scale * side for side in images.shape[-2:])
    rows = -(-len(images) // across)
    font = ImageFont.load_default(TEXT * 3 / 4)
    sheet = Image.new("RGB", (across * width, rows * (height + TEXT)), "white")
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        tile = Image.new("RGB", (width, height + TEXT), "white")
        enlarged = to_pil_image(image).resize((width, height), Image.Resampling.NEAREST)
        tile.paste(enlarged)
        ImageDraw.Draw(tile).text((2, height), one_line(caption), "black", font)
        sheet.paste(tile, (number % across * width, number // across * (height + TEXT)))
    return pil_to_tensor(sheet)
