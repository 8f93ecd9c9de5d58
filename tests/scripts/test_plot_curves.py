"""The curves are the numbers of metrics.jsonl."""

import json
import math
import os
from pathlib import Path

import pytest
from PIL import Image

from scripts.plot_curves import draw, main
from utils.report.runs import PastRun, labels, read_run

ROW = {"epoch": 0, "train_loss": 1.5, "val_loss": 2.5, "train_acc1": 3.5, "val_acc1": 4}


def written(folder: Path, epochs: int, average_from: int | None = None) -> list[dict]:
    """Made-up numbers in `folder`, those of the weights' average from an epoch on."""
    rows = [{name: value + epoch for name, value in ROW.items()} for epoch in range(epochs)]
    for row in rows[average_from:] if average_from is not None else []:
        row |= {"val_ema_loss": row["epoch"] * 0.5, "val_ema_acc1": row["epoch"] * 3.0}
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def test_lines_are_the_files_numbers(tmp_path):
    files = [written(tmp_path / "a", 2), written(tmp_path / "b", 12, average_from=5)]
    figure = draw({name: read_run(str(tmp_path / name)) for name in "ab"})
    colours = [line.get_color() for line in figure.axes[0].get_lines()]
    assert colours == ["C0", "C0", "C1", "C1", "C1"]
    for axis, name in zip(figure.axes, ("loss", "acc1"), strict=True):
        *lines, average = axis.get_lines()
        for line, place in zip(lines, range(4), strict=True):
            rows, split = files[place // 2], ("train", "val")[place % 2]
            assert line.get_label() == f"{'ab'[place // 2]}, {split}"
            assert list(line.get_xdata()) == [row["epoch"] + 1 for row in rows]
            assert list(line.get_ydata()) == [row[f"{split}_{name}"] for row in rows]
        assert average.get_label() == "b, val_ema"
        heights = list(average.get_ydata())
        assert all(map(math.isnan, heights[:5]))
        assert heights[5:] == [row[f"val_ema_{name}"] for row in files[1][5:]]


def test_the_authors_top1_is_a_line():
    """Their log of the released file; the mean in their Table 2; none of other data."""
    simam = {"arch": "resnet34", "attention": "simam"}
    settings = {
        **{"a": {**simam, "images": 1_281_167}, "b": {**simam, "images": 24}},
        "c": {"dataset": "cifar10", "arch": "cifar_resnet20", "attention": "none"},
    }
    figure = draw({name: PastRun(name, each, [ROW]) for name, each in settings.items()})
    _, accuracy = figure.axes
    lines = {line.get_label(): set(line.get_ydata()) for line in accuracy.get_lines()}
    papers = {name: heights for name, heights in lines.items() if name.endswith("paper")}
    assert papers == {"a, paper": {74.462}, "c, paper": {92.33}}


def test_picture(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "other", 12)
    assert main([str(trained), "other"]) == 0
    assert capsys.readouterr().out == "wrote curves.png\n"
    with Image.open("curves.png") as picture:
        assert picture.size == (1100, 450)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(100_000)}
    assert colours > {(31, 119, 180), (255, 127, 14)}  # matplotlib's first two, blue and orange


def test_runs_of_one_name_keep_their_paths():
    assert labels(["a/run", "b/other/"]) == ["run", "other"]
    assert labels(["a/run", "b/run"]) == ["a/run", "b/run"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "can't read bad/metrics.jsonl (No such file or directory); is bad a run folder?"),
        ("", "bad/metrics.jsonl holds no epoch"),
        (json.dumps({**ROW, "val_loss": None}), "not every line has numbers epoch, train"),
    ],
)
def test_mistakes_are_one_line(content, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "good", 2)
    (tmp_path / "bad").mkdir()
    if content is not None:
        (tmp_path / "bad" / "metrics.jsonl").write_text(content)
    assert main(["good", "bad"]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert words in said.err
    assert not said.out
    assert not os.path.exists("curves.png")
