"""The curves are the numbers of metrics.jsonl."""

import json
import math
import os

import pytest
from PIL import Image

from scripts.plot_curves import draw, labels, main, read_metrics


@pytest.fixture
def other_run(tmp_path):
    """A run folder with twelve epochs of made-up numbers."""
    folder = tmp_path / "other"
    folder.mkdir()
    names = ("train_loss", "val_loss", "train_acc1", "val_acc1")
    rows = [
        {"epoch": epoch, **{name: epoch * 2.5 + n for n, name in enumerate(names)}}
        for epoch in range(12)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_lines_are_the_files_numbers(trained, other_run):
    figure = draw({"ours": read_metrics(str(trained)), "other": read_metrics(str(other_run))})
    files = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (trained, other_run)
    ]
    assert [len(rows) for rows in files] == [2, 12]
    for axis, name in zip(figure.axes, ("loss", "acc1"), strict=True):
        lines = iter(axis.get_lines())
        for label, rows in zip(("ours", "other"), files, strict=True):
            for split in ("train", "val"):
                line = next(lines)
                assert line.get_label() == f"{label}, {split}"
                assert list(line.get_xdata()) == [row["epoch"] + 1 for row in rows]
                assert list(line.get_ydata()) == [row[f"{split}_{name}"] for row in rows]
        assert next(lines, None) is None
    colours = [line.get_color() for line in figure.axes[0].get_lines()]
    assert colours == ["C0", "C0", "C1", "C1"]


def test_the_average_has_a_line_where_there_is_one(trained, other_run):
    path = other_run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[5:]:
        row |= {"val_ema_loss": row["epoch"] * 0.5, "val_ema_acc1": row["epoch"] * 3.0}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    figure = draw({"a": read_metrics(str(trained)), "b": read_metrics(str(other_run))})
    for axis, factor in zip(figure.axes, (0.5, 3.0), strict=True):
        drawn = [line.get_label() for line in axis.get_lines()]
        assert drawn == ["a, train", "a, val", "b, train", "b, val", "b, val_ema"]
        heights = axis.get_lines()[-1].get_ydata()
        assert [math.isnan(height) for height in heights] == [True] * 5 + [False] * 7
        assert list(heights[5:]) == [epoch * factor for epoch in range(5, 12)]


def test_picture(trained, other_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([str(trained), str(other_run)]) == 0
    assert capsys.readouterr().out == "wrote curves.png\n"
    with Image.open("curves.png") as picture:
        assert picture.size == (1100, 450)
        colours = [colour for _, colour in picture.convert("RGB").getcolors(100_000)]
    # matplotlib's first two colours, blue and orange, as near as 256 colours come
    for wanted in ((31, 119, 180), (255, 127, 14)):
        assert any(all(abs(a - b) < 24 for a, b in zip(c, wanted, strict=True)) for c in colours)


def test_runs_of_one_name_keep_their_paths(tmp_path):
    assert labels(["a/run", "b/other/"]) == ["run", "other"]
    assert labels(["a/run", "b/run"]) == ["a/run", "b/run"]


def test_a_line_that_was_cut_off_is_passed_over(other_run):
    whole = read_metrics(str(other_run))
    with (other_run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 12, "train_l')
    assert read_metrics(str(other_run)) == whole


def test_mistakes_are_one_line(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    row = {"epoch": 0, "train_loss": 1, "val_loss": 1, "train_acc1": 1, "val_acc1": 1}
    for name, text in {
        "empty": "",
        "cut": json.dumps(row)[:30],
        "lacking": json.dumps({**row, "val_loss": None}),
        "list": "[]\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(text)
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "metrics.jsonl").write_bytes(b"\xff\xfe\xff")
    for folder, words in [
        ("gone", "can't read gone/metrics.jsonl (No such file or directory); is gone a run folder"),
        ("empty", "empty/metrics.jsonl holds no epoch"),
        ("cut", "cut/metrics.jsonl holds no epoch"),
        ("lacking", "lacking/metrics.jsonl, line 1: no numbers epoch, train_acc1"),
        ("list", "list/metrics.jsonl, line 1"),
        ("binary", "binary/metrics.jsonl (not a text file)"),
    ]:
        assert main([str(trained), folder]) == 2
        said = capsys.readouterr()
        assert said.err.count("\n") == 1
        assert words in said.err
        assert not said.out
    assert not os.path.exists("curves.png")
