import json
import resource

import pytest

from utils.errors import UsageError
from utils.log import RunLog


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def run(tmp_path):
    """The folder of a run of three epochs."""
    log = RunLog(str(tmp_path), settings={"epochs": 3, "arch": "resnet18"})
    for epoch in range(3):
        log.metrics({"epoch": epoch, "val_acc1": 10.0 + epoch})
    log.close()
    return tmp_path


def test_a_resumed_run_takes_back_what_comes_again(run):
    assert [line["epoch"] for line in lines(run)] == [0, 1, 2]
    RunLog(str(run), first_epoch=1, settings={"epochs": 5}).close()
    assert lines(run) == [{"epoch": 0, "val_acc1": 10.0}]
    assert json.loads((run / "args.json").read_text()) == {"epochs": 5}


def test_a_line_that_was_cut_off_is_no_obstacle(run):
    whole = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(whole[:-9])
    RunLog(str(run), first_epoch=3).close()
    assert [line["epoch"] for line in lines(run)] == [0, 1]


@pytest.mark.parametrize("name", ["args.json", "metrics.jsonl"])
def test_a_full_disk_leaves_what_was_there(run, name):
    epochs = 3000 if name == "metrics.jsonl" else 3
    with (run / "metrics.jsonl").open("w") as file:
        file.writelines(f'{{"epoch": {epoch}}}\n' for epoch in range(epochs))
    words = "x" * (20_000 if name == "args.json" else 1)
    before = {path: path.read_bytes() for path in run.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(UsageError, match=f"can't write to run folder {run}: .*too large"):
            RunLog(str(run), first_epoch=epochs, settings={"arch": words})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = {path: path.read_bytes() for path in run.iterdir()}
    if name == "metrics.jsonl":  # the settings are written before
        assert json.loads(after.pop(run / "args.json")) == {"arch": "x"}
        del before[run / "args.json"]
    assert after == before
