"""A process that fails ends the whole job, with its reason, and leaves nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_command
from jobs import COMMAND, Job, checkpoint, parent_of, torchrun, training

from utils.processes.launch import guarded


def fails_within_a_minute(job) -> int:
    started = time.monotonic()
    code = job.finish(60)
    assert job.all_gone(60 - (time.monotonic() - started))
    return code


def test_killed_process_ends_the_job(many_digits, tmp_path):
    command = training(many_digits, tmp_path / "ckpts", "--gpu=-1,-1", "-j2", epochs=20)
    with Job(tmp_path / "output", COMMAND, *command, mark=tmp_path).after_steps(8) as job:
        os.kill(job.ranks()[1], signal.SIGKILL)
        assert fails_within_a_minute(job) == 128 + signal.SIGKILL
        assert job.last_line().startswith("error: rank 1: killed by SIGKILL")
    content = torch.load(checkpoint(tmp_path / "ckpts"), weights_only=True)
    assert (content["epoch"], content["step"]) == (1, 0)


def test_bad_image_of_one_process_ends_the_job(many_digits, tmp_path):
    data = shutil.copytree(many_digits, tmp_path / "data")
    bad = data / "val" / "1" / "000.png"  # the sixth of the listing, so rank 1's
    bad.write_bytes(b"no image")
    command = training(data, tmp_path / "ckpts", "--gpu=-1,-1", "-j0")
    with Job(tmp_path / "output", COMMAND, *command, mark=tmp_path) as job:
        assert fails_within_a_minute(job) == 2
        assert job.last_line().startswith(f"error: rank 1: can't decode image {bad}")
        assert job.err.read_text().count("\n") == 1


NEEDS_LESS = "a smaller -b (with --accumulate for the same update) or --amp bf16 needs less"


@pytest.mark.parametrize("gpus", ["-1", "-1,-1"], ids=["alone", "in a rank"])
def test_memory_that_runs_out_is_one_line(gpus, many_digits, tmp_path):
    command = training(many_digits, tmp_path / "ckpts", f"--gpu={gpus}", "-j0")
    command += ["--image-size=512", "-b48", "--synthetic"]
    limit = ("bash", "-c", 'ulimit -d 2000000; exec "$@"', "limit")  # KiB: a step takes twice that
    with Job(tmp_path / "output", COMMAND, *command, mark=tmp_path, wrapper=limit) as job:
        assert fails_within_a_minute(job) == 2
        (line,) = job.err.read_text().splitlines()
    rank = r"" if gpus == "-1" else r"rank [01]: "
    amount = r"out of memory on the CPU, which was asked for \d+ bytes"
    assert re.fullmatch(f"error: {rank}{amount}; {re.escape(NEEDS_LESS)}", line)


@pytest.mark.parametrize("gpus", ["-1", "-1,-1"], ids=["alone", "in a rank"])
def test_shared_memory_that_runs_out_is_one_line(gpus, many_digits, tmp_path):
    mount = 'mount -t tmpfs -o size=3M tmpfs /dev/shm && exec "$@"'  # a batch or two
    small = ("unshare", "--mount", "--map-root-user", "bash", "-c", mount, "small")
    if subprocess.run([*small, "true"], capture_output=True).returncode:
        pytest.skip("needs mount namespaces")
    command = training(many_digits, tmp_path / "ckpts", f"--gpu={gpus}", "-j4")
    command += ["--image-size=96", "-b64"]
    with Job(tmp_path / "output", COMMAND, *command, mark=tmp_path, wrapper=small) as job:
        assert fails_within_a_minute(job) == 2
        (line,) = job.err.read_text().splitlines()
    assert re.match(r"error: (rank [01]: )?out of shared memory; fewer workers \(-j\) or", line)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a"),
            "out of memory on the GPU, which was asked for 2.50 GiB; less",
        ),
        (MemoryError(), "out of memory on the CPU; less"),
    ],
    ids=["cuda", "python"],
)
def test_other_lacks_of_memory(error, line, capsys):
    def fail():
        raise error

    assert guarded(fail, "less") == 2
    assert capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize("launch", ["own", "torchrun"])
def test_exception_in_one_process_ends_the_job(launch, many_digits, tmp_path):
    command = training(many_digits, tmp_path / "ckpts", "-j2", epochs=20)
    start = [Path(__file__).with_name("failing.py"), *command]
    start = [*start, "--gpu=-1,-1"] if launch == "own" else [*torchrun(2), *start, "--gpu=-1"]
    environ = ("env", f"PYTHONPATH={ROOT}")
    with Job(tmp_path / "output", *start, mark=tmp_path, wrapper=environ) as job:
        assert fails_within_a_minute(job) == 1
        err, reason = job.err.read_text(), "LookupError: nobody foresaw it"
        assert "Traceback" in err
        if launch == "own":
            assert job.last_line() == f"error: rank 1: {reason}"
        else:
            root_cause = err.split("Root Cause")[1]
            assert reason in root_cause.splitlines()[-2]
            assert "rank      : 1" in root_cause


@pytest.mark.parametrize("launch", ["own", "torchrun"])
def test_lost_worker_of_one_process_ends_the_job(launch, many_digits, tmp_path):
    command = training(many_digits, tmp_path / "ckpts", "-j2", epochs=20)
    start = [COMMAND, *command, "--gpu=-1,-1"]
    if launch == "torchrun":
        start = [*torchrun(2), COMMAND, *command, "--gpu=-1"]
    with Job(tmp_path / "output", *start, mark=tmp_path).after_steps(2) as job:
        victim = job.ranks()[1]
        loaders = [pid for pid in job.alive() if parent_of(pid) == victim]
        os.kill(loaders[0], signal.SIGKILL)
        code, last = fails_within_a_minute(job), job.last_line()
        # PyTorch notices it by the signal, or by its own look at the workers, unless the process
        # was just then taking a batch from it
        said = (
            rf"DataLoader worker ((\(pid(\(s\))? {loaders[0]}\) "
            r"(is killed by signal: Killed|exited unexpectedly))|hung up \(\w+: .*\)); "
            r"the system kills what it has no memory for: fewer workers \(-j\) or .*"
        )
        if launch == "own":
            assert code == 2
            assert re.fullmatch(f"error: rank 1: {said}", last)
        else:
            assert code == 1  # torchrun's own
            root_cause = job.err.read_text().split("Root Cause")[1]
            assert re.search(said, root_cause.splitlines()[-2])
            assert "rank      : 1" in root_cause


def test_mistake_is_one_line_with_several_processes(tmp_path):
    done = run_command(tmp_path / "nothing", "--gpu=-1,-1")
    assert done.returncode == 2
    expected = rf"error: rank [01]: data folder {tmp_path}/nothing does not exist\n"
    assert re.fullmatch(expected, done.stderr)
    assert done.stdout == ""
