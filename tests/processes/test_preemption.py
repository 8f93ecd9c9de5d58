"""Stopped and killed at any moment, runs end with the weights of a run that never was.

Stops that need no process of their own are in tests/training/test_run.py.
"""

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import run_command
from jobs import COMMAND, Job, torchrun
from runs import STEPS, assert_equal, assert_same_run, command, load, path, run

KILLS = 2
EPOCHS = 5  # of four steps: enough to be killed in that often
GOES_ON = "the same command with --resume auto goes on"


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)]
)
def test_a_run_that_has_not_begun_ends_at_once(signum, code, digits, tmp_path):
    words = command(digits, tmp_path / "ckpts")
    with Job(tmp_path / "output", COMMAND, *words, mark=tmp_path) as job:
        loaded = Path(f"/proc/{job.process.pid}/maps")
        job.wait_until(lambda: "libtorch" in loaded.read_text())
        job.process.send_signal(signum)
        assert job.finish() == code
        said = "interrupted" if signum == signal.SIGINT else "stopped without saving"
        assert job.err.read_text() == f"{said}\n"
    assert not (tmp_path / "ckpts").exists()


def test_ctrl_c_reaches_the_workers_too_and_the_run_goes_on(digits, tmp_path, undisturbed):
    words = command(digits, tmp_path / "ckpts", "--epochs", 3)
    with Job(tmp_path / "output", COMMAND, *words, "-j2", mark=tmp_path) as job:
        job.after_steps(3)
        os.killpg(job.process.pid, signal.SIGINT)
        assert job.finish() == 130
        (line,) = job.err.read_text().splitlines()
        assert line.endswith(GOES_ON)
        assert job.all_gone()
    assert run(digits, tmp_path / "ckpts", "--epochs", 3, "--resume", "auto") == 0
    assert_same_run(tmp_path / "ckpts", undisturbed)


def test_a_killed_run_goes_on_from_within_its_epoch(digits, tmp_path, undisturbed):
    words = command(digits, tmp_path / "ckpts", "--epochs", 3, "--save-every-minutes", 1e-5)
    with Job(tmp_path / "output", COMMAND, *words, mark=tmp_path) as job:
        job.after_steps(STEPS + 3).process.kill()
        assert job.finish() == -signal.SIGKILL
    killed = load(tmp_path / "ckpts")
    assert killed["epoch"] >= 1
    assert (killed["epoch"], killed["step"]) != (1, 0)
    assert run(digits, tmp_path / "ckpts", "--epochs", 3, "--resume", "auto") == 0
    assert_same_run(tmp_path / "ckpts", undisturbed)


@pytest.mark.slow
def test_a_cluster_signals_the_launcher_and_all_processes(digits, tmp_path):
    words = command(digits, tmp_path / "ckpts", "--gpu=-1,-1", "-j2")
    with Job(tmp_path / "output", COMMAND, *words, mark=tmp_path) as job:
        job.after_steps(2)
        for pid in [*job.ranks(), job.process.pid]:
            os.kill(pid, signal.SIGTERM)
        assert job.finish() == 143
        (line,) = job.err.read_text().splitlines()
        assert line.endswith(GOES_ON)
        assert job.all_gone()
    assert path(tmp_path / "ckpts").exists()


@pytest.mark.slow
def test_torchrun_stops_its_processes(digits, tmp_path):
    words = command(digits, tmp_path / "ckpts", "-j2")
    with Job(tmp_path / "output", *torchrun(2), COMMAND, *words, mark=tmp_path) as job:
        job.after_steps(2).process.terminate()
        assert job.finish() == 1  # torchrun's own, whatever its processes return
        assert job.err.read_text().count(GOES_ON) == 1
        assert job.all_gone()
    assert path(tmp_path / "ckpts").exists()


SLOW_DISK = """
#include <sys/stat.h>
#include <unistd.h>

int fsync(int file) {
    struct stat found;
    fstat(file, &found);
    sleep(found.st_size >> 18); /* four seconds for a megabyte */
    return 0;
}
"""


@pytest.mark.slow
def test_a_signal_to_one_stops_all_and_none_leaves_before_the_first_has_saved(digits, tmp_path):
    library = tmp_path / "slow_disk.so"
    build = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library]
    subprocess.run(build, input=SLOW_DISK, text=True, check=True)
    words = command(digits, tmp_path / "ckpts", "--gpu=-1,-1")
    slow = ("env", f"LD_PRELOAD={library}")
    with Job(tmp_path / "output", COMMAND, *words, mark=tmp_path, wrapper=slow) as job:
        os.kill(job.after_steps(2).ranks()[1], signal.SIGINT)
        job.wait_until(lambda: len(job.ranks()) < 2)
        assert path(tmp_path / "ckpts").exists()
        assert job.finish() == 130
        assert job.last_line().endswith(GOES_ON)
        assert job.all_gone()


@pytest.mark.slow
def test_processes_stop_and_save_when_their_launcher_is_killed(digits, tmp_path):
    words = command(digits, tmp_path / "ckpts", "--gpu=-1,-1", "-j2")
    with Job(tmp_path / "output", COMMAND, *words, mark=tmp_path) as job:
        job.after_steps(2)
        job.process.kill()
        assert job.all_gone()
        assert job.last_line().endswith(GOES_ON)
    assert path(tmp_path / "ckpts").exists()


def runs_anew(job, victims):
    ranks = job.ranks()
    return len(ranks) == 2 and not set(ranks) & set(victims)


@pytest.mark.slow
def test_two_processes_that_are_killed_come_back(digits, tmp_path):
    draw = random.Random(2)
    words = ["--epochs", EPOCHS, "--save-every-minutes", 1e-5]
    start = torchrun(2, f"--max-restarts={KILLS}")
    killed = command(digits, tmp_path / "ckpts", *words, "-j2", "--resume=auto")
    with Job(tmp_path / "output", *start, COMMAND, *killed, mark=tmp_path) as job:
        victims = set()
        for kill in range(KILLS):
            job.wait_until(lambda: runs_anew(job, victims))  # noqa: B023
            job.after_steps(job.steps() + draw.randint(1, 3))
            victims = job.ranks()
            os.kill(draw.choice(victims), signal.SIGKILL if kill % 2 else signal.SIGTERM)
        assert job.finish() == 0, job.err.read_text()
        assert job.out.read_text().count("resumed") == KILLS
        assert job.all_gone()
    done = run_command(*command(digits, tmp_path / "whole", *words, "--gpu=-1,-1"))
    assert done.returncode == 0, done.stderr
    assert_equal(load(tmp_path / "ckpts"), load(tmp_path / "whole"), "checkpoint")
