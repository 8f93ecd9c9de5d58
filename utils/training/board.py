"""What a run shows in TensorBoard, along the number of training images that it has seen."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from .folder import FIRST

# titles -> curves that share a chart, on the page of custom scalars
CHARTS = {
    "loss": ["step/loss", "train/loss", "val/loss", "val_ema/loss"],
    "top-1": ["train/acc1", "val/acc1", "val_ema/acc1"],
}
BEST = "best/acc1"


class Board:
    """TensorBoard's events in `folder`.

    seen: training images at which the run begins, or goes on; what lies beyond is taken back.
    failed: told of the error that ends the writing, at most once. Raises OSError where the folder
    can't be written, UnicodeEncodeError for one whose name is not UTF-8.
    """

    def __init__(self, folder: str, seen: int, failed: Callable[[OSError], None]):
        _leave_writers_errors_to_the_next_call()
        self.writer, self.failed = SummaryWriter(folder, purge_step=seen + 1), failed

    def begin(self, settings: Mapping[str, bool | int | float | str]) -> None:
        """The charts, and the run's row in the table of runs, which its results will complete."""
        named = {_named(name): value for name, value in settings.items()}

        def add(writer: SummaryWriter) -> None:
            charts = {title: ["Multiline", tags] for title, tags in CHARTS.items()}
            writer.add_custom_scalars({"training and validation": charts})
            # SummaryWriter.add_hparams would begin another file
            experiment, start, _end = hparams(named, dict.fromkeys((BEST, "val/loss"), 0.0))
            for summary in (experiment, start):
                writer.file_writer.add_summary(summary)

        self._show(add)

    def scalars(self, values: Mapping[str, float | None], seen: int) -> None:
        """Numbers by tag; None for nothing."""
        for tag, value in values.items():
            if value is not None:
                self._show(SummaryWriter.add_scalar, tag, value, seen)

    def image(self, tag: str, picture: torch.Tensor, seen: int) -> None:
        """A uint8 picture (3, H, W)."""
        self._show(SummaryWriter.add_image, tag, picture, seen)

    def flush(self) -> None:
        self._show(SummaryWriter.flush)

    def close(self) -> None:
        self._show(SummaryWriter.close)

    def _show(self, add: Callable, *arguments) -> None:
        if self.writer:
            try:
                add(self.writer, *arguments)
            except OSError as error:
                self.writer = None  # its writing thread has ended; metrics.jsonl goes on
                self.failed(error)


def _named(setting: str) -> str:
    """TensorBoard orders its columns by name, and shows the first five."""
    return f"{1 + FIRST.index(setting)} {setting}" if setting in FIRST else setting


def shown(value: Any) -> bool | int | float | str:
    """A value that trackers take: a number, or text that is UTF-8."""
    if isinstance(value, bool | int | float):
        return value
    return str(value).encode(errors="backslashreplace").decode()


def _leave_writers_errors_to_the_next_call() -> None:
    """Say nothing of an error in TensorBoard's writing thread: the next call raises it again."""
    before = threading.excepthook

    def hook(failed) -> None:
        ours = "tensorboard" in type(failed.thread).__module__
        if failed.exc_type is not OSError or not ours:
            before(failed)

    threading.excepthook = hook
