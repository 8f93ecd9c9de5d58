"""Runs beside the paper's figure, against scipy; the same in Markdown, JSON and CSV."""

import csv
import json
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import ttest_ind_from_stats

from utils.errors import UsageError
from utils.report import tables


def test_runs_are_compared_as_welchs_test_does():
    values = [92.1, 92.9, 92.5]
    found = tables.compare(values, 92.73, 0.18)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert found.difference == pytest.approx(np.mean(values) - 92.73)
    welch = ttest_ind_from_stats(
        np.mean(values), np.std(values, ddof=1), 3, 92.73, 0.18, 5, equal_var=False
    )
    assert found.standard_errors == pytest.approx(welch.statistic)


@pytest.mark.parametrize("paper_std", [None, 0.2])
@pytest.mark.parametrize("values", [[], [91.0]])
def test_without_a_spread_there_are_no_standard_errors(values, paper_std):
    found = tables.compare(values, 90.0, paper_std)
    assert (found.runs, found.std, found.standard_errors) == (len(values), None, None)
    assert found.difference == (1.0 if values else None)


def test_a_table_is_markdown_and_says_what_was_not_run():
    rows = [tables.compare(values, 90.0, 0.5) for values in ([], [91.0], [91.0, 92.0])]
    lines = tables.table(rows, {"n": lambda row: 2 * row.runs, **tables.COMPARISON}).splitlines()
    assert lines == [
        "| n | ours | runs | paper | difference | standard errors |",
        "|---|---|---|---|---|---|",
        "| 0 | not run | 0 | 90.00 ± 0.50 |  |  |",
        "| 2 | 91.00 | 1 | 90.00 ± 0.50 | +1.00 |  |",
        "| 4 | 91.50 ± 0.71 | 2 | 90.00 ± 0.50 | +1.50 | +2.7 |",
    ]


@dataclass(frozen=True)
class Row:
    name: str
    size: float | None
    more: tables.Comparison


def test_files_hold_the_rows(tmp_path, capsys):
    rows = [Row("a, b", 0.1, tables.compare([1, 3], 1)), Row("c", None, tables.compare([]))]
    path = tmp_path / "table.json"
    tables.conclude(rows, {"name": lambda row: row.name}, {"unit": "%"}, str(path))
    assert capsys.readouterr().out == f"| name |\n|---|\n| a, b |\n| c |\nwrote {path}\n"
    said = json.loads(path.read_text())
    assert said["unit"] == "%"
    first, second = said["rows"]
    reached = {"runs": 2, "mean": 2, "std": 2**0.5, "paper": 1, "difference": 1}
    unknown = {"paper_std": None, "standard_errors": None}
    assert first == {"name": "a, b", "size": 0.1, "more": reached | unknown}
    nothing = dict.fromkeys(first["more"]) | {"runs": 0}
    assert second == {"name": "c", "size": None, "more": nothing}
    tables.write_csv(rows, str(tmp_path / "table.csv"))
    with open(tmp_path / "table.csv", newline="") as file:
        found = [(row["name"], row["size"]) for row in csv.DictReader(file)]
    assert found == [("a, b", "0.1"), ("c", "")]


def test_what_cannot_be_written_is_said_first(tmp_path):
    (tmp_path / "file").touch()
    tables.check_results(str(tmp_path / "new" / "table.json"), str(tmp_path / "file"))
    assert (tmp_path / "new").is_dir()
    for place, words in (("file/table.json", "can't make folder"), ("new", "it is a folder")):
        with pytest.raises(UsageError, match=words):
            tables.check_results(str(tmp_path / place))
