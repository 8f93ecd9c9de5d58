"""What the scripts that draw share: matplotlib without a display, and the file that is written."""

import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..disk import write_atomically
from ..errors import UsageError

DPI = 100
# bytes; a picture that would take more is written with 256 colours
FULL_COLOUR = 300_000


def new_figure(width: float, height: float):
    """An empty matplotlib figure of so many inches, with DPI pixels each; needs no display.

    Raises UsageError where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing("matplotlib", error) from None
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def missing(package: str, error: ImportError) -> UsageError:
    """What to tell the user where `package` can't be imported, as `error` says."""
    return UsageError(f"drawing this needs {package} ({error}): pip install {package}")


def check_output(wanted: str | None, default: str, inputs: Sequence[str]) -> str:
    """The file to write: `wanted`, or `default` in the current folder where None.

    Raises UsageError for an ending other than .png, for a file of `inputs`, a default that is
    already there, and a folder that can't be written: all before any work.
    """
    path = wanted or default
    if not path.lower().endswith(".png"):
        raise UsageError(f"--output {path}: pictures are PNG files, so it must end in .png")
    if os.path.isdir(path):
        raise UsageError(f"can't write {path}: it is a folder")
    if os.path.exists(path):
        if any(os.path.exists(each) and os.path.samefile(path, each) for each in inputs):
            raise UsageError(f"--output {path} is one of the inputs; choose another name")
        if not wanted:
            raise UsageError(f"{path} already exists; name the picture with --output")
    try:
        with tempfile.TemporaryFile(dir=os.path.dirname(path) or "."):
            pass
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}") from None
    return path


def save_figure(figure, path: str) -> None:
    """Write `figure` as a PNG file and say so; with 256 colours where it would be a big one.

    Raises UsageError where it can't be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    data = _png(pixels)
    if len(data) > FULL_COLOUR:
        data = _png(pixels.quantize(palette=pixels.quantize(256)))
    try:
        write_atomically(data, path)
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}") from None
    print(f"wrote {path}")


def _png(pixels: Image.Image) -> bytes:
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def short_path(path: str, length: int) -> str:
    """The last two parts of `path`; of these the last `length` characters."""
    text = "/".join(Path(path).parts[-2:])
    return text if len(text) <= length else f"...{text[3 - length :]}"
