"""Runs side by side: the numbers are their files', means and deviations numpy's."""

import json
from pathlib import Path

import numpy as np

from scripts.compare import main

SAME = {"arch": "resnet18", "attention": "none", "attention_param": None, "epochs": 2, "gpu": "0"}
SIMAM = {"attention": "simam", "attention_param": 0.1}


def written(folder: Path, accuracies: list[float], **settings) -> str:
    folder.mkdir()
    (folder / "args.json").write_text(json.dumps({**SAME, "ckpt": folder.name, **settings}))
    entries = [
        {
            **{"epoch": epoch, "train_loss": 1.0, "train_acc1": 50.0, "val_loss": 2 - epoch},
            **{"val_acc1": acc1, "seconds": 3600.4, "images_per_s": 100.0 + epoch},
        }
        for epoch, acc1 in enumerate(accuracies)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, entries)))
    return str(folder)


def cells(lines: list[str]) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_what_differs_and_what_was_reached(tmp_path, capsys):
    plain = written(tmp_path / "plain", [70.5, 60.25], seed=1)
    simam = written(tmp_path / "simam", [61.0], seed=1, lr=0.05, **SIMAM)
    assert main([plain, simam]) == 0
    assert cells(capsys.readouterr().out.splitlines()) == [
        [
            *("run", "attention", "attention_param", "lr", "epochs done", "best top-1"),
            *("last top-1", "last loss", "time", "images/s"),
        ],
        ["---"] * 10,
        ["plain", "none", "", "", "2", "70.50", "60.25", "1.0000", "2:00:01", "100.5"],
        ["simam", "simam", "0.1", "0.05", "1", "61.00", "61.00", "2.0000", "1:00:00", "100.0"],
    ]


def test_means_over_seeds(tmp_path, capsys):
    last = {"none": [70.0, 71.0, 73.0], "simam": [72.0, 74.0]}
    folders = [
        written(
            tmp_path / f"{name}{seed}",
            [80.0, acc1],
            seed=seed,
            **(SIMAM if name == "simam" else {}),
        )
        for name, several in last.items()
        for seed, acc1 in enumerate(several)
    ]
    begun = written(tmp_path / "begun", [10.0], seed=9)  # not to be taken for a third of SimAM's
    assert main([*folders, begun]) == 0
    _, means = capsys.readouterr().out.split("\n\n")
    rows = cells(means.splitlines())
    assert rows[0] == ["attention", "attention_param", "runs", "best top-1", "last top-1"]
    for row, (name, several) in zip(rows[2:], last.items(), strict=False):
        spread = f"{np.mean(several):.2f} ± {np.std(several, ddof=1):.2f}"
        assert (row[0], row[2:]) == (name, [str(len(several)), "80.00 ± 0.00", spread])
    assert rows[4][2:] == ["1", "10.00", "10.00"]


def test_a_real_run_and_what_is_none(trained, tmp_path, capsys):
    assert main([str(trained)]) == 0
    assert f"| {trained.name} | 2 |" in capsys.readouterr().out
    assert main([str(trained), str(tmp_path)]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: can't read {tmp_path}/metrics.jsonl")


def test_settings_that_are_none_are_empty(tmp_path):
    folder = written(tmp_path / "run", [1.0])
    Path(folder, "args.json").write_text("{")
    assert main([folder]) == 0
