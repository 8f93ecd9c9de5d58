"""What a run says: on the console, in log.txt, metrics.jsonl and TensorBoard."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from torchvision.utils import make_grid
from tqdm import tqdm

from ..data.batches import EvalBatches, TrainBatches
from ..disk import append_line, read_entries, write_atomically
from ..errors import UsageError, one_line
from ..processes.lock import FolderLock


class RunLog:
    """Console lines, and their copies in `folder`; None for the console only.

    quiet: only warnings, as from every process but the main one. first_epoch: where the run goes
    on; metrics from there on are taken back, they will come again. settings: what args.json
    holds. Raises UsageError where the folder can't be written.
    """

    def __init__(
        self,
        folder: str | None = None,
        quiet: bool = False,
        first_epoch: int = 0,
        settings: Mapping[str, Any] | None = None,
    ):
        self.quiet, self.folder, self.settings = quiet, folder, dict(settings or {})
        self.failed: set[str] = set()
        self.tensorboard = self.lock = None
        if folder and not quiet:
            try:
                self._open(first_epoch)
            except OSError as error:
                raise UsageError(f"can't write to run folder {folder}: {error}") from None

    def _open(self, first_epoch: int) -> None:
        os.makedirs(self.folder, exist_ok=True)
        self.lock = FolderLock(self.folder)
        settings = json.dumps(self.settings, indent=2)
        write_atomically(settings.encode(), os.path.join(self.folder, "args.json"))
        self._forget_from(first_epoch)
        _leave_writers_errors_to_the_next_call()
        try:
            self.tensorboard = SummaryWriter(self.folder, purge_step=first_epoch)
        except UnicodeEncodeError:
            self.warn("no TensorBoard events: it knows no folder whose name is not UTF-8")

    def _forget_from(self, epoch: int) -> None:
        path = os.path.join(self.folder, "metrics.jsonl")
        if os.path.exists(path):
            kept = [entry for entry in read_entries(path) if entry["epoch"] < epoch]
            lines = "".join(json.dumps(entry) + "\n" for entry in kept)
            write_atomically(lines.encode(), path)

    def line(self, text: str, console: bool = True) -> None:
        """One line on the console (above a progress bar) and in log.txt."""
        if self.quiet:
            return
        if console:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
        self._append("log.txt", text)

    def lines(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.line(text)

    def warn(self, text: str) -> None:
        """One line on standard error and in log.txt."""
        text = one_line(f"warning: {text}")
        tqdm.write(text, file=sys.stderr)
        self._append("log.txt", text)

    def metrics(self, values: Mapping[str, float]) -> None:
        """One epoch's numbers, with their "epoch": a line in metrics.jsonl, TensorBoard scalars."""
        if self.quiet:
            return
        self._append("metrics.jsonl", json.dumps(values))
        for name, value in values.items():
            if name != "epoch":
                self.scalar(name.replace("_", "/", 1), value, values["epoch"])
        self._show(SummaryWriter.flush)

    def scalar(self, tag: str, value: float | None, epoch: int) -> None:
        """A number for TensorBoard alone; None for nothing."""
        if value is not None:
            self._show(SummaryWriter.add_scalar, tag, value, epoch)

    def images(self, tag: str, images: torch.Tensor) -> None:
        """uint8 images (N, 3, H, W), on any device, for TensorBoard alone."""
        if self.tensorboard:
            self._show(SummaryWriter.add_image, tag, make_grid(images.cpu(), nrow=4))

    def result(self, metrics: Mapping[str, float]) -> None:
        """The run's final numbers, beside its settings in TensorBoard's table of runs."""
        said = self.settings.items()
        plain = {name: value for name, value in said if isinstance(value, bool | int | float)}
        texts = {name: text for name, text in said if isinstance(text, str)}
        plain |= {k: text.encode(errors="backslashreplace").decode() for k, text in texts.items()}
        numbers = {f"final/{name}": value for name, value in metrics.items()}

        def add(writer: SummaryWriter) -> None:
            # SummaryWriter.add_hparams would begin another file
            for summary in hparams(plain, numbers):
                writer.file_writer.add_summary(summary)
            for tag, value in numbers.items():
                writer.add_scalar(tag, value)

        self._show(add)

    def _show(self, add: Callable, *arguments, **more) -> None:
        """Call SummaryWriter's `add`, where there is one."""
        if not self.tensorboard:
            return
        try:
            add(self.tensorboard, *arguments, **more)
        except OSError as error:
            self._note_failure("TensorBoard events", error)
            self.tensorboard = None  # its writing thread has ended; metrics.jsonl goes on

    def _append(self, name: str, text: str) -> None:
        if not self.folder:
            return
        try:
            append_line(os.path.join(self.folder, name), text)
        except OSError as error:
            self._note_failure(name, error)

    def _note_failure(self, name: str, error: OSError) -> None:
        # a full disk must not end a run that could still save its weights later
        if name not in self.failed:
            self.failed.add(name)
            print(f"warning: can't write {name}: {error}", file=sys.stderr)

    def close(self) -> None:
        self._show(SummaryWriter.close)
        if self.lock:
            self.lock.release()


def _leave_writers_errors_to_the_next_call() -> None:
    """Say nothing of an error in TensorBoard's writing thread: the next call raises it again."""
    before = threading.excepthook

    def hook(failed) -> None:
        ours = "tensorboard" in type(failed.thread).__module__
        if failed.exc_type is not OSError or not ours:
            before(failed)

    threading.excepthook = hook


class Progress:
    """Where a pass over `batches` is, with images/s (of all processes) and time left.

    In a terminal a bar, else a line every `print_freq` steps; log.txt has the lines in any case.
    classes: of the network; of five and fewer the best five say nothing.
    """

    def __init__(
        self,
        log: RunLog,
        title: str,
        batches: TrainBatches | EvalBatches,
        print_freq: int,
        classes: int,
        first_step: int = 0,
    ):
        self.log, self.title, self.batches, self.print_freq = log, title, batches, print_freq
        self.steps, self.first_step, self.classes = len(batches), first_step, classes
        self.start = time.perf_counter()
        self.bar = None
        if sys.stderr.isatty() and not log.quiet:
            self.bar = tqdm(
                total=self.steps, initial=first_step, desc=title, leave=False, unit="batch"
            )

    def advance(self, done: int) -> bool:
        """Move the bar to `done` steps; True where it is time to fetch numbers and `show` them."""
        if self.bar:
            self.bar.update(done - self.bar.n)
        return done % self.print_freq == 0 or done == self.steps

    def show(self, done: int, means: Mapping[str, float]) -> None:
        """Say that `done` steps are done, with their `means` (see `Totals.means`)."""
        seconds = time.perf_counter() - self.start
        images = self.batches.images_until(done) - self.batches.images_until(self.first_step)
        speed = f"{images / seconds:.1f} images/s"
        numbers = f"loss {means['loss']:.4f}  acc@1 {means['acc1']:.2f}"
        if self.classes > 5:
            numbers += f"  acc@5 {means['acc5']:.2f}"
        if self.bar:
            self.bar.set_postfix_str(f"{numbers}  {speed}")
        left = timedelta(
            seconds=round(seconds * (self.steps - done) / max(done - self.first_step, 1))
        )
        width = len(str(self.steps))
        self.log.line(
            f"{self.title} [{done:{width}}/{self.steps}]  {numbers}  {speed}  {left} left",
            console=self.bar is None,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_exception) -> None:
        if self.bar:
            self.bar.close()
