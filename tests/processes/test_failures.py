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
from jobs import COMMAND, Job, parent_of, torchrun
from runs import STEPS, command, load, run

from utils.errors import UsageError
from utils.processes.ending import exit_code


def fails_within_a_minute(job) -> int:
    started = time.monotonic()
    code = job.finish(60)
    assert job.all_gone(60 - (time.monotonic() - started))
    return code


@pytest.mark.slow
def test_killed_process_ends_the_job(digits, tmp_path):
    words = command(digits, tmp_path / "ckpts", "--gpu=-1,-1", "-j2")
    with Job(tmp_path / "output", COMMAND, *words, mark=tmp_path) as job:
        job.after_steps(STEPS + 1)
        os.kill(job.ranks()[1], signal.SIGKILL)
        assert fails_within_a_minute(job) == 128 + signal.SIGKILL
        assert job.last_line().startswith("error: rank 1: killed by SIGKILL")
    kept = load(tmp_path / "ckpts")
    assert kept["epoch"] >= 1
    assert kept["step"] == 0


@pytest.mark.slow
def test_bad_image_of_one_process_ends_the_job(digits, tmp_path):
    data = shutil.copytree(digits, tmp_path / "data")
    bad = data / "val" / "1" / "001.png"  # the sixth of the listing, so rank 1's
    bad.write_bytes(b"no image")
    words = command(data, tmp_path / "ckpts", "--gpu=-1,-1")
    with Job(tmp_path / "output", COMMAND, *words, mark=tmp_path) as job:
        job.after_steps(1)
        assert fails_within_a_minute(job) == 2
        (line,) = job.err.read_text().splitlines()
        assert line.startswith(f"error: rank 1: can't decode image {bad}")


@pytest.mark.slow
def test_exception_in_one_process_ends_the_job(digits, tmp_path):
    words = command(digits, tmp_path / "ckpts", "-j2")
    start = [*torchrun(2), Path(__file__).with_name("failing.py"), *words]
    with Job(tmp_path / "output", *start, mark=tmp_path) as job:
        job.wait_until(lambda: "run folder" in job.out.read_text())
        assert fails_within_a_minute(job) == 1
        said = job.err.read_text()
        assert "Traceback" in said
        root_cause = said.split("Root Cause")[1]
        assert "LookupError: nobody foresaw it" in root_cause.splitlines()[-2]
        assert "rank      : 1" in root_cause


@pytest.mark.slow
def test_lost_worker_of_one_process_ends_the_job(digits, tmp_path):
    words = command(digits, tmp_path / "ckpts", "--gpu=-1,-1", "-j2")
    with Job(tmp_path / "output", COMMAND, *words, mark=tmp_path) as job:
        job.after_steps(2)
        victim = job.ranks()[1]
        worker = next(pid for pid in job.alive() if parent_of(pid) == victim)
        os.kill(worker, signal.SIGKILL)
        assert fails_within_a_minute(job) == 2
        # PyTorch notices it by the signal, or by its own look at the workers, unless the process
        # was just then taking a batch from it
        assert re.fullmatch(
            rf"error: rank 1: DataLoader worker ((\(pid(\(s\))? {worker}\) "
            r"(is killed by signal: Killed|exited unexpectedly))|hung up \(\w+: .*\)); "
            r"the system kills what it has no memory for: fewer workers \(-j\) or .*",
            job.last_line(),
        )


def test_shared_memory_that_runs_out_is_one_line(digits, tmp_path):
    mount = 'mount -t tmpfs -o size=3M tmpfs /dev/shm && exec "$@"'  # a batch or two
    small = ("unshare", "--mount", "--map-root-user", "bash", "-c", mount, "small")
    if subprocess.run([*small, "true"], capture_output=True).returncode:
        pytest.skip("needs mount namespaces")
    words = command(digits, tmp_path / "ckpts", "-j4", "--image-size=224", "-b24")
    with Job(tmp_path / "output", COMMAND, *words, mark=tmp_path, wrapper=small) as job:
        assert job.finish() == 2
        (line,) = job.err.read_text().splitlines()
        assert job.all_gone()
    assert line.startswith("error: out of shared memory; fewer workers (-j) or")


def test_memory_that_runs_out_is_one_line(digits, tmp_path, capsys):
    # more bytes than a process can address
    assert run(digits, tmp_path, "--synthetic", "--image-size", 10**7) == 2
    (line,) = capsys.readouterr().err.splitlines()
    less = r"a smaller -b \(with --accumulate for the same update\) or --amp bf16 needs less"
    said = rf"error: out of memory on the CPU, which was asked for \d+ bytes; {less}"
    assert re.fullmatch(said, line)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a"),
            "out of memory on the GPU, which was asked for 2.50 GiB; less",
        ),
        *(
            (RuntimeError(words), "out of memory on the GPU; less")
            for words in (
                "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
                "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
                "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
                "Triton Error [CUDA]: out of memory",
                "NCCL error: unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'",
            )
        ),
        (MemoryError(), "out of memory on the CPU; less"),
        (RuntimeError("std::bad_alloc"), "out of memory on the CPU; less"),
        (OSError(12, "Cannot allocate memory"), "out of memory on the CPU; less"),
        (
            RuntimeError("unable to mmap 640 bytes from file <a>: Cannot allocate memory (12)"),
            "out of memory on the CPU; less",
        ),
        # a file that asks for too much is not mended by a smaller batch
        (UsageError("a.pth can't be read (can't allocate memory)"),) * 2,
    ],
)
def test_other_lacks_of_memory(error, line, capsys):
    def fail():
        raise error

    assert exit_code(fail, "less") == 2
    assert capsys.readouterr().err == f"error: {line}\n"
