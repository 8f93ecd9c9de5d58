"""What a run's files hold after a full disk or a cut in the power."""

import json

import pytest
from jobs import COMMAND, Job, training

from utils.log import RunLog
from utils.results import read_entries


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
