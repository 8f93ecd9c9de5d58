import csv
import json

import numpy as np
import pytest
from PIL import Image
from scipy.stats import ttest_ind_from_stats

from utils.errors import UsageError
from utils.report import tables
from utils.report.paper import TABLE2


def test_runs_are_compared_as_welchs_test_does():
    values = [92.1, 92.9, 92.5]
    found = tables.compare(values, 92.73, 0.18)
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["std"] == pytest.approx(np.std(values, ddof=1))
    assert found["difference"] == pytest.approx(np.mean(values) - 92.73)
    welch = ttest_ind_from_stats(
        np.mean(values), np.std(values, ddof=1), 3, 92.73, 0.18, 5, equal_var=False
    )
    assert found["standard_errors"] == pytest.approx(welch.statistic)


@pytest.mark.parametrize("paper_std", [None, 0.2])
@pytest.mark.parametrize("values", [[], [91.0]])
def test_without_a_spread_there_are_no_standard_errors(values, paper_std):
    found = tables.compare(values, 90.0, paper_std)
    assert (found["runs"], found["std"], found["standard_errors"]) == (len(values), None, None)
    assert found["difference"] == (1.0 if values else None)


def test_a_table_is_markdown():
    columns = {"name": lambda row: row["name"], "twice": lambda row: 2 * row["size"]}
    rows = [{"name": "a", "size": 1}, {"name": "b", "size": 2}]
    expected = ["| name | twice |", "|---|---|", "| a | 2 |", "| b | 4 |"]
    assert tables.table(rows, columns).splitlines() == expected


def test_a_table_says_what_was_not_run():
    rows = [tables.compare(values, 90.0, 0.5) for values in ([], [91.0], [91.0, 92.0])]
    lines = tables.table(rows, {"n": lambda row: "x", **tables.COMPARISON}).splitlines()
    assert lines == [
        "| n | ours | runs | paper | difference | standard errors |",
        "|---|---|---|---|---|---|",
        "| x | not run | 0 | 90.00 ± 0.50 |  |  |",
        "| x | 91.00 | 1 | 90.00 ± 0.50 | +1.00 |  |",
        "| x | 91.50 ± 0.71 | 2 | 90.00 ± 0.50 | +1.50 | +2.7 |",
    ]


def test_files_hold_the_rows_and_a_picture(tmp_path, capsys):
    rows = [
        {"net": "a", "by": by, **tables.compare(values, 90.0, 0.5), "more": [1, 2]}
        for by, values in (("x", [91.0, 92.0]), ("y", []))
    ]
    stem = str(tmp_path / "table")
    panels = {"left": (rows, "net", "by"), "right": (rows[1:], "net", "by")}
    tables.conclude(stem, rows, tables.COMPARISON, {"unit": "%"}, panels)
    assert capsys.readouterr().out.count("\n") == 4 + 1
    with open(f"{stem}.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert [float(found[0]["mean"]), found[1]["mean"]] == [91.5, ""]
    assert "more" not in found[0]
    assert json.loads((tmp_path / "table.json").read_text()) == {"unit": "%", "rows": rows}
    with Image.open(f"{stem}.png") as image:
        assert image.format == "PNG"
        assert len(image.getcolors(1_000_000)) > 10  # something is drawn


def test_what_cannot_be_written_is_said_first(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="can't make folder"):
        tables.check_writable(str(tmp_path / "file" / "table"))


def test_names_that_the_paper_does_not_have_are_refused():
    tables.known("--archs", ["cifar_resnet20"], TABLE2, 1)
    with pytest.raises(UsageError, match=r"--archs resnet18 .* known: cifar_resnet20 cifar_res"):
        tables.known("--archs", ["resnet18"], TABLE2, 1)
