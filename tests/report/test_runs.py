"""A folder is a run where all of its epochs are there, whatever else lies in it."""

import json

import pytest

from utils.report.runs import read_finished

LOSSES = {"train_loss": 0.2, "val_loss": 0.3, "train_acc1": 95}
EPOCHS = [json.dumps({"epoch": n, "val_acc1": 90.5 + n, **LOSSES}) for n in range(2)]


def test_a_run_counts_when_all_its_epochs_are_there(tmp_path):
    assert read_finished(str(tmp_path)) is None
    (tmp_path / "args.json").write_text(json.dumps({"epochs": 2, "arch": "x"}))
    assert read_finished(str(tmp_path)) is None
    (tmp_path / "metrics.jsonl").write_text(EPOCHS[0] + "\n")
    assert read_finished(str(tmp_path)) is None
    (tmp_path / "metrics.jsonl").write_text("\n".join([EPOCHS[0], EPOCHS[1][:20], EPOCHS[1]]))
    run = read_finished(str(tmp_path))
    assert (run.folder, run.settings["arch"]) == (str(tmp_path), "x")
    assert [epoch["val_acc1"] for epoch in run.epochs] == [90.5, 91.5]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("args.json", "7"),
        ("args.json", "{"),
        ("args.json", '{"epochs": "2"}'),
        ("metrics.jsonl", "1\n2"),
        ("metrics.jsonl", '{"epoch": 0}\n{"epoch": 1}'),
    ],
)
def test_files_of_another_kind_are_no_run(tmp_path, name, text):
    (tmp_path / "args.json").write_text('{"epochs": 2}')
    (tmp_path / "metrics.jsonl").write_text("\n".join(EPOCHS))
    assert read_finished(str(tmp_path)) is not None
    (tmp_path / name).write_text(text)
    assert read_finished(str(tmp_path)) is None
