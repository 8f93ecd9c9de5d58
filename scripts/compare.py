"""Runs side by side: in which settings they differ, what they reached, how long it took.

    python scripts/compare.py RUN_FOLDER...
    python scripts/compare.py ckpts/*

A row is a run, as its args.json and metrics.jsonl say, finished or not. Runs of as many epochs that
differ in the seed alone are one row of a second table: mean and standard deviation of their top-1.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("folders", metavar="RUN_FOLDER", nargs="+", help="with metrics.jsonl")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

from utils.processes.ending import exit_code
from utils.report import tables
from utils.report.runs import labels, read_run
from utils.training.folder import telling


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run. settings: that tell it apart. best, last: top-1 in percent. seconds: of all epochs."""

    label: str
    settings: Mapping[str, Any]
    epochs: int
    best: float
    last: float
    loss: float
    seconds: float
    images_per_s: float


COLUMNS = {
    "epochs done": lambda row: row.epochs,
    "best top-1": lambda row: f"{row.best:.2f}",
    "last top-1": lambda row: f"{row.last:.2f}",
    "last loss": lambda row: f"{row.loss:.4f}",
    "time": lambda row: timedelta(seconds=round(row.seconds)),
    "images/s": lambda row: f"{row.images_per_s:.1f}",
}
SEEDS = {
    "runs": len,
    "best top-1": lambda rows: over(row.best for row in rows),
    "last top-1": lambda rows: over(row.last for row in rows),
}


def read(folder: str, label: str) -> Row:
    """The run in `folder`; raises UsageError where there is none."""
    run = read_run(folder)
    # of a run with an average of its weights, that is what counts
    acc1 = [epoch.get("val_ema_acc1", epoch["val_acc1"]) for epoch in run.epochs]
    return Row(
        label=label,
        settings=telling(run.settings),
        epochs=len(acc1),
        best=max(acc1),
        last=acc1[-1],
        loss=run.epochs[-1]["val_loss"],
        seconds=sum(epoch.get("seconds", 0) for epoch in run.epochs),
        images_per_s=median(epoch.get("images_per_s", 0) for epoch in run.epochs),
    )


def over(values: Iterable[float]) -> str:
    """Mean and standard deviation over seeds."""
    found = tables.compare([*values])
    return tables.spread(found.mean, found.std)


def different(rows: Sequence[Row]) -> list[str]:
    """The settings that are not the same in all rows."""
    names = dict.fromkeys(name for row in rows for name in row.settings)
    return [name for name in names if any(said(row, name) != said(rows[0], name) for row in rows)]


def said(row: Row, name: str) -> str:
    value = row.settings.get(name)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def setting_columns(names: Sequence[str]) -> tables.Columns:
    return {name: lambda row, name=name: said(row, name) for name in names}


def compare(folders: Sequence[str]) -> None:
    rows = [read(*each) for each in zip(folders, labels(folders), strict=True)]
    names = different(rows)
    print(tables.table(rows, {"run": lambda row: row.label, **setting_columns(names), **COLUMNS}))
    names = [name for name in names if name != "seed"]
    alike: dict[tuple, list[Row]] = {}
    for row in rows:
        alike.setdefault((row.epochs, *(said(row, name) for name in names)), []).append(row)
    if max(map(len, alike.values())) > 1:
        shown = {name: lambda rows, name=name: said(rows[0], name) for name in names}
        print()
        print(tables.table(alike.values(), {**shown, **SEEDS}))


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: compare(args.folders))


if __name__ == "__main__":
    sys.exit(main())
