"""What a run's files hold after it was stopped, a full disk, or a cut in the power."""

import csv
import json

import pytest
from runs import full_disk

from utils.errors import UsageError
from utils.training.log import RunLog


def entries(count: int) -> list[dict]:
    return [{"epoch": epoch, "val_acc1": 10.0 + epoch} for epoch in range(count)]


@pytest.mark.parametrize(
    "end", [b"", b'{"epoch": 2, "l', b"\x00\x00\xff"], ids=["whole", "cut off", "no text"]
)
@pytest.mark.parametrize("first_epoch", [2, 1])
def test_a_run_that_goes_on_takes_back_what_comes_again(tmp_path, end, first_epoch):
    path = tmp_path / "metrics.jsonl"
    whole = "".join(json.dumps(entry) + "\n" for entry in entries(2))
    path.write_bytes(whole.encode() + end)
    log = RunLog(str(tmp_path), first_epoch=first_epoch, settings={"epochs": 3})
    for entry in entries(3)[first_epoch:]:
        log.metrics(entry, seen=0)
    log.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == entries(3)
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == entries(3)
    assert json.loads((tmp_path / "args.json").read_text()) == {"epochs": 3}


@pytest.mark.parametrize("name", ["args.json", "metrics.jsonl"])
def test_a_full_disk_leaves_what_was_there(tmp_path, name):
    epochs, word = (3, "x" * 20_000) if name == "args.json" else (3000, "x")
    lines = "".join(json.dumps(entry) + "\n" for entry in entries(epochs))
    (tmp_path / "metrics.jsonl").write_text(lines)
    RunLog(str(tmp_path), first_epoch=epochs, settings={"arch": "resnet18"}).close()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    refused = pytest.raises(UsageError, match=f"can't write to run folder {tmp_path}: .*too large")
    with full_disk(10_000), refused:
        RunLog(str(tmp_path), first_epoch=epochs, settings={"arch": word})
    after = {path: path.read_bytes() for path in tmp_path.iterdir()}
    if name == "metrics.jsonl":  # the settings are written before
        assert json.loads(after.pop(tmp_path / "args.json")) == {"arch": word}
        del before[tmp_path / "args.json"]
    assert after == before
