"""Tables of results: means over runs beside the paper's, as Markdown, CSV, JSON and a picture."""

import csv
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from ..errors import UsageError
from .paper import TABLE2_RUNS

NOT_RUN = "not run"
Row = Mapping[str, Any]


def table(rows: Iterable[Row], columns: Mapping[str, Callable[[Row], Any]]) -> str:
    """Rows as Markdown; columns: heading -> what a row shows there."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(str(show(row)) for show in columns.values()) + " |")
    return "\n".join(lines)


def summarise(values: Sequence[float]) -> dict:
    """runs, mean and std (of the sample; from two runs on) of several runs' `values`."""
    return {
        "runs": len(values),
        "mean": mean(values) if values else None,
        "std": stdev(values) if len(values) > 1 else None,
    }


def compare(values: Sequence[float], paper: float, paper_std: float | None = None) -> dict:
    """What several runs' `values` are beside the paper's figure.

    Returns what `summarise` does, the paper's figures, the difference of the means, and that in
    standard errors, sqrt(std^2 / runs + paper_std^2 / 5): None where a spread is not known.
    """
    ours = summarise(values)
    difference = ours["mean"] - paper if values else None
    errors = None
    if ours["std"] is not None and paper_std is not None:
        variance = ours["std"] ** 2 / len(values) + paper_std**2 / TABLE2_RUNS
        errors = difference / math.sqrt(variance)
    return {
        **ours,
        "paper": paper,
        "paper_std": paper_std,
        "difference": difference,
        "standard_errors": errors,
    }


def spread(value: float | None, std: float | None) -> str:
    """A mean with its standard deviation, as the tables show it."""
    if value is None:
        return NOT_RUN
    return f"{value:.2f}" + ("" if std is None else f" ± {std:.2f}")


# of rows that hold what `compare` returns
COMPARISON = {
    "ours": lambda row: spread(row["mean"], row["std"]),
    "runs": lambda row: row["runs"],
    "paper": lambda row: spread(row["paper"], row["paper_std"]),
    "difference": lambda row: "" if row["difference"] is None else f"{row['difference']:+.2f}",
    "standard errors": lambda row: (
        "" if row["standard_errors"] is None else f"{row['standard_errors']:+.1f}"
    ),
}


def check_writable(stem: str) -> None:
    """Raise UsageError, before hours of work, where `write` could not write."""
    folder = os.path.dirname(os.path.abspath(stem))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't make folder {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UsageError(f"can't write to folder {folder}; --out names another place")


def write(stem: str, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    """Write STEM.csv, the rows' plain values, and STEM.json, all of the rows and what is `about`.

    Raises UsageError where that fails.
    """
    names = [name for name, value in rows[0].items() if not isinstance(value, (list, dict))]
    try:
        with open(f"{stem}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        with open(f"{stem}.json", "w") as file:
            json.dump({**about, "rows": list(rows)}, file, indent=1)
            file.write("\n")
    except OSError as error:
        raise UsageError(f"can't write {error.filename}: {error.strerror}") from None


def picture(path: str, panels: int, draw: Callable[[Sequence], None]) -> None:
    """Write the PNG file `path`: `draw` fills matplotlib axes, as many as `panels`, side by side.

    Without matplotlib a line on standard error takes its place. Raises UsageError where the file
    can't be written.
    """
    # not at the top: it imports torch, and --help need not wait for that
    from .pictures import new_figure, save_figure

    try:
        figure = new_figure(1 + 6 * panels, 4.5)
    except UsageError as error:
        print(f"no {path}: {error}", file=sys.stderr)
        return
    draw(figure.subplots(1, panels, squeeze=False)[0])
    save_figure(figure, path)


def draw_comparison(axes, title: str, rows: Sequence[Row], group: str, label: str) -> None:
    """Ours (filled) and the paper's (hollow) with error bars: a place for each row's `group`.

    label: the entry by which the rows of a group are told apart.
    """
    groups = list(dict.fromkeys(row[group] for row in rows))
    labels = list(dict.fromkeys(row[label] for row in rows))
    for place, name in enumerate(labels):
        own = [row for row in rows if row[label] == name]
        x = [groups.index(row[group]) + 0.8 * (place + 0.5) / len(labels) - 0.4 for row in own]
        style = {"fmt": "o", "color": f"C{place}", "capsize": 2}
        paper, paper_std = ([row[key] for row in own] for key in ("paper", "paper_std"))
        bars = None if None in paper_std else paper_std
        axes.errorbar(x, paper, bars, mfc="white", alpha=0.6, **style)
        ran = [(at + 0.03, row) for at, row in zip(x, own, strict=True) if row["runs"]]
        axes.errorbar(
            [at for at, _ in ran],
            [row["mean"] for _, row in ran],
            [row["std"] or 0 for _, row in ran],
            label=name,
            **style,
        )
    axes.set_xticks(range(len(groups)), groups, rotation=30, ha="right", fontsize="small")
    axes.set_title(f"{title} (hollow: the paper's)", fontsize="medium")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize="x-small", ncols=2)


def known(option: str, names: Sequence[str], paper: Mapping[tuple, Any], place: int) -> None:
    """Raise UsageError unless all `names` are in the keys of the `paper`'s table at `place`."""
    there = list(dict.fromkeys(key[place] for key in paper))
    for name in names:
        if name not in there:
            raise UsageError(
                f"{option} {name} is not in the paper's table; known: {' '.join(there)}"
            )


def conclude(
    stem: str,
    rows: Sequence[Row],
    columns: Mapping[str, Callable[[Row], Any]],
    about: Mapping[str, Any],
    panels: Mapping[str, tuple[Sequence[Row], str, str]],
) -> None:
    """Print the table; write it, and its picture, see `write` and `picture`.

    panels: by title, the further arguments of `draw_comparison`.
    """
    print(table(rows, columns), flush=True)
    write(stem, rows, about)

    def draw(axes: Sequence) -> None:
        for place, (title, content) in zip(axes, panels.items(), strict=True):
            draw_comparison(place, title, *content)

    picture(f"{stem}.png", len(panels), draw)
