"""Tables of results: means over runs beside the paper's, as Markdown, JSON and CSV."""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from statistics import mean, stdev
from typing import Any

from ..disk import check_target, write_text
from ..errors import UsageError
from .paper import TABLE2_RUNS

NOT_RUN = "not run"
Columns = Mapping[str, Callable[[Any], Any]]  # heading -> what a row shows there


def table(rows: Iterable, columns: Columns | None = None) -> str:
    """Rows as Markdown; without `columns` they are mappings of the same names, one at least."""
    if columns is None:
        rows = list(rows)
        columns = {name: itemgetter(name) for name in rows[0]}
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(str(show(row)) for show in columns.values()) + " |")
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What several runs reached, beside the paper's figure where it has one.

    std: of the sample, from two runs on. difference: of the means. standard_errors: the same in
    those, sqrt(std^2 / runs + paper_std^2 / 5). None: what can't be said.
    """

    runs: int
    mean: float | None
    std: float | None
    paper: float | None
    paper_std: float | None
    difference: float | None
    standard_errors: float | None


def compare(
    values: Sequence[float], paper: float | None = None, paper_std: float | None = None
) -> Comparison:
    """Several runs' `values` beside the paper's figure."""
    average = mean(values) if values else None
    std = stdev(values) if len(values) > 1 else None
    difference = None if average is None or paper is None else average - paper
    errors = None
    if std is not None and paper_std is not None:
        errors = difference / math.sqrt(std**2 / len(values) + paper_std**2 / TABLE2_RUNS)
    return Comparison(
        runs=len(values),
        mean=average,
        std=std,
        paper=paper,
        paper_std=paper_std,
        difference=difference,
        standard_errors=errors,
    )


def spread(value: float | None, std: float | None = None) -> str:
    """A mean with its standard deviation, as the tables show it."""
    if value is None:
        return NOT_RUN
    return f"{value:.2f}" + ("" if std is None else f" ± {std:.2f}")


def printed(value: float | None, std: float | None = None) -> str:
    """As `spread`, of a figure that the paper may not have."""
    return "" if value is None else spread(value, std)


def signed(value: float | None, digits: int) -> str:
    """A difference, as the tables show it."""
    return "" if value is None else f"{value:+.{digits}f}"


# of a `Comparison`
COMPARISON = {
    "ours": lambda row: spread(row.mean, row.std),
    "runs": lambda row: row.runs,
    "paper": lambda row: printed(row.paper, row.paper_std),
    "difference": lambda row: signed(row.difference, 2),
    "standard errors": lambda row: signed(row.standard_errors, 1),
}


def check_results(*paths: str) -> None:
    """Make the folders of what will be written; raise UsageError, before hours of work, where that
    can't be."""
    for path in paths:
        folder = os.path.dirname(os.path.abspath(path))
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise UsageError(f"can't make folder {folder}: {error.strerror}") from None
        check_target(path, replace=True)


def write_json(content: Any, path: str) -> None:
    """Write plain values and dataclasses; raises UsageError where they can't be written."""
    write_text(json.dumps(content, indent=1, default=asdict) + "\n", path)


def write_csv(rows: Sequence, path: str) -> None:
    """Write dataclasses, one at least, a line each; raises UsageError where it can't be written."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(asdict(rows[0])))
    writer.writeheader()
    writer.writerows(map(asdict, rows))
    write_text(text.getvalue(), path)


def conclude(rows: Sequence, columns: Columns, about: Mapping[str, Any], path: str) -> None:
    """Print the table, and write its rows as JSON, beside what it is `about`."""
    print(table(rows, columns), flush=True)
    write_json({**about, "rows": rows}, path)
    print(f"wrote {path}")
