"""What a run says: on the console, in log.txt, metrics.jsonl and .csv, TensorBoard, a tracker."""

import csv
import io
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from ..data.batches import EvalBatches, TrainBatches
from ..disk import append_line, read_entries, write_atomically
from ..errors import UsageError, one_line
from ..processes.lock import FolderLock
from ..report.pictures import captioned
from .board import Board, shown
from .folder import telling
from .tracker import Tracker

METRICS, TABLE = "metrics.jsonl", "metrics.csv"
MARGIN = 3  # beside a bar: a terminal shows Ctrl-C as ^C, on the same line if it fits
SPLIT = re.compile("^(train|val_ema|val)_")  # of a number's name


class RunLog:
    """Console lines, and their copies in `folder`; None for the console only.

    quiet: only warnings, as from every process but the main one. first_epoch: where the run goes
    on; metrics from there on are taken back, they will come again. settings: what args.json
    holds. seen: training images until then, see `Board`. logger: see `Tracker`. Raises UsageError
    where the folder can't be written.
    """

    def __init__(
        self,
        folder: str | None = None,
        quiet: bool = False,
        first_epoch: int = 0,
        settings: Mapping[str, Any] | None = None,
        seen: int = 0,
        logger: str | None = None,
    ):
        self.quiet, self.folder = quiet, folder
        self.failed: set[str] = set()
        self.board = self.tracker = self.lock = None
        if folder and not quiet:
            settings = dict(settings or {})
            told = {name: shown(value) for name, value in telling(settings).items()}
            try:
                self._open(settings, first_epoch)
                self._begin_board(told, seen)
            except OSError as error:
                raise UsageError(f"can't write to run folder {folder}: {error}") from None
            if logger:
                failed = partial(self._note_failure, f"to {logger}")
                self.tracker = Tracker(logger, folder, told, seen > 0, failed)

    def _open(self, settings: dict[str, Any], first_epoch: int) -> None:
        os.makedirs(self.folder, exist_ok=True)
        self.lock = FolderLock(self.folder)
        write_atomically(json.dumps(settings, indent=2).encode(), self._path("args.json"))
        if os.path.exists(self._path(METRICS)):
            kept = [
                each for each in read_entries(self._path(METRICS)) if each["epoch"] < first_epoch
            ]
            lines = "".join(json.dumps(entry) + "\n" for entry in kept)
            write_atomically(lines.encode(), self._path(METRICS))
            self._write_table()

    def _begin_board(self, settings: dict[str, bool | int | float | str], seen: int) -> None:
        try:
            failed = partial(self._note_failure, "TensorBoard events")
            self.board = Board(self.folder, seen, failed)
            self.board.begin(settings)
        except UnicodeEncodeError:
            self.warn("no TensorBoard events: it knows no folder whose name is not UTF-8")

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _write_table(self) -> None:
        """metrics.jsonl for spreadsheets; a number that an epoch does not have is an empty cell."""
        entries, text = read_entries(self._path(METRICS)), io.StringIO()
        names = dict.fromkeys(name for entry in entries for name in entry)
        table = csv.DictWriter(text, names, lineterminator="\n")
        table.writeheader()
        table.writerows(entries)
        write_atomically(text.getvalue().encode(), self._path(TABLE))

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

    def metrics(self, values: Mapping[str, float], seen: int) -> None:
        """One epoch's numbers, with their "epoch", when `seen` training images were: a line in
        metrics.jsonl, a row in metrics.csv, TensorBoard's curves."""
        if self.quiet or not self.folder:
            return
        self._append(METRICS, json.dumps(values))
        try:
            self._write_table()
        except OSError as error:
            self._note_failure(TABLE, error)
        tags = {SPLIT.sub(r"\1/", name): value for name, value in values.items()}
        self.curves({tag: value for tag, value in tags.items() if tag != "epoch"}, seen)
        if self.board:
            self.board.flush()

    def curves(self, values: Mapping[str, float | None], seen: int) -> None:
        """Numbers for TensorBoard and the tracker alone, by tag; None for nothing."""
        for each in filter(None, (self.board, self.tracker)):
            each.scalars(values, seen)

    def picture(self, tag: str, images: torch.Tensor, captions: Sequence[str], seen: int) -> None:
        """uint8 images (N, 3, H, W), on any device, for TensorBoard alone."""
        if self.board:
            self.board.image(tag, captioned(images.cpu(), captions), seen)

    def _append(self, name: str, text: str) -> None:
        if not self.folder:
            return
        try:
            append_line(self._path(name), text)
        except OSError as error:
            self._note_failure(name, error)

    def _note_failure(self, name: str, error: Exception) -> None:
        # a full disk must not end a run that could still save its weights later
        if name not in self.failed:
            self.failed.add(name)
            print(f"warning: can't write {name}: {error}", file=sys.stderr)

    def close(self) -> None:
        for each in filter(None, (self.board, self.tracker)):
            each.close()
        if self.lock:
            self.lock.release()


def epoch_line(metrics: Mapping[str, float], epochs: int) -> str:
    """What `RunLog.metrics` is told of an epoch of so many, in a line."""
    skipped = metrics.get("skipped_steps")
    return (
        f"Epoch {metrics['epoch'] + 1}/{epochs}  lr {metrics['lr']:.6g}  "
        f"train loss {metrics['train_loss']:.4f} acc@1 {metrics['train_acc1']:.2f}  "
        f"val loss {metrics['val_loss']:.4f}  "
        f"{metrics['images_per_s']:.1f} images/s  {metrics['seconds']:.1f} s"
        + (f"  {skipped} steps skipped" if skipped else "")
    )


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
                total=self.steps,
                initial=first_step,
                desc=title,
                leave=False,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {remaining}{postfix}",
                ncols=_columns(),
            )

    def advance(self, done: int) -> bool:
        """Move the bar to `done` steps; True where it is time to fetch numbers and `show` them."""
        if self.bar:
            self._fit(_columns())
            self.bar.update(done - self.bar.n)
        return done % self.print_freq == 0 or done == self.steps

    def _fit(self, columns: int) -> None:
        """Make the bar as wide as the terminal, which broke it where it became too narrow."""
        rows = (self.bar.ncols - 1) // (columns + MARGIN)
        if columns < self.bar.ncols:
            sys.stderr.write((f"\x1b[{rows}A" if rows else "") + "\r\x1b[J")
            self.bar.sp = self.bar.status_printer(self.bar.fp)  # which knew how long the line was
        self.bar.ncols = columns

    def show(self, done: int, means: Mapping[str, float]) -> None:
        """Say that `done` steps are done, with their `means` (see `Totals.means`)."""
        seconds = time.perf_counter() - self.start
        images = self.batches.images_until(done) - self.batches.images_until(self.first_step)
        speed = f"{images / seconds:.1f} images/s"
        numbers = f"loss {means['loss']:.4f}  acc@1 {means['acc1']:.2f}"
        if self.classes > 5:
            numbers += f"  acc@5 {means['acc5']:.2f}"
        if self.bar:
            short = f"loss {means['loss']:.3g}, {means['acc1']:.1f} %, {images / seconds:.0f}/s"
            self.bar.set_postfix_str(short)
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
            sys.stderr.write("\x1b[K")  # and what the terminal wrote beside it, such as ^C
            sys.stderr.flush()


def _columns() -> int:
    """How wide a bar may be, now."""
    return os.get_terminal_size(sys.stderr.fileno()).columns - MARGIN
