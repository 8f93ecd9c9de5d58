"""What a run's files hold after a full disk or a cut in the power."""

import json
import resource

import pytest
from jobs import COMMAND, Job, training

from utils.errors import UsageError
from utils.report.results import read_entries
from utils.training.log import RunLog


def entries(count: int) -> list[dict]:
    return [{"epoch": epoch, "lr": 0.5 / (epoch + 1)} for epoch in range(count)]


@pytest.mark.parametrize("cut", [b'{"epoch": 2, "l', b"\x00\x00\xff"], ids=["half", "no text"])
@pytest.mark.parametrize("first_epoch", [2, 1])
def test_a_run_goes_on_after_a_line_that_was_cut_off(tmp_path, cut, first_epoch):
    path = tmp_path / "metrics.jsonl"
    whole = "".join(json.dumps(entry) + "\n" for entry in entries(2))
    path.write_bytes(whole.encode() + cut)
    assert read_entries(path) == entries(2)
    log = RunLog(str(tmp_path), first_epoch=first_epoch)
    for entry in entries(3)[first_epoch:]:
        log.metrics(entry)
    log.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == entries(3)


def test_a_line_after_one_that_was_cut_off_stands_alone(tmp_path):
    log = RunLog(str(tmp_path))
    log.metrics(entries(1)[0])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 1, ')  # as much as went onto the disk
    for entry in entries(4)[2:]:
        log.metrics(entry)
    log.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in (lines[0], *lines[2:])] == [0, 2, 3]
    assert read_entries(tmp_path / "metrics.jsonl") == [entries(1)[0], *entries(4)[2:]]


def test_a_run_stops_as_told_when_the_disk_is_full(many_digits, tmp_path):
    command = training(many_digits, tmp_path / "ckpts", "--gpu=-1", "-j0", epochs=20)
    limit = ("bash", "-c", 'ulimit -f 4; exec "$@"', "limit")  # KiB: less than the first batch
    with Job(tmp_path / "output", COMMAND, *command, mark=tmp_path, wrapper=limit) as job:
        job.after_steps(1).process.terminate()
        assert job.finish() == 143
        kinds = [line[:35] for line in job.err.read_text().splitlines()]
        assert sorted(kinds[:-1]) == [
            f"warning: can't save {tmp_path}"[:35],
            "warning: can't write TensorBoard events"[:35],
        ]
        assert "which could not be saved: [Errno 27]" in job.last_line()


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
