"""Stopped and killed at any moment, runs end with the weights of a run that never was."""

import functools
import os
import random
import signal
from pathlib import Path

import pytest
from conftest import ROOT, run_command
from jobs import COMMAND, Job, checkpoint, same, torchrun, training, weights

KILLS = 10
EPOCHS = 9  # of six steps: enough to be killed in that often


@pytest.fixture(scope="module")
def undisturbed(many_digits, tmp_path_factory):
    """Final weights by (processes, epochs)."""
    root = tmp_path_factory.mktemp("undisturbed")

    @functools.cache
    def run(processes, epochs):
        folder = root / f"{processes}-{epochs}"
        gpu = "--gpu=" + ",".join(["-1"] * processes)
        done = run_command(*training(many_digits, folder, "-j0", gpu, epochs=epochs))
        assert done.returncode == 0, done.stderr
        return weights(folder)

    return run


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 143)]
)
def test_one_process_stops_and_goes_on_mid_epoch(number, code, many_digits, tmp_path, undisturbed):
    command = training(many_digits, tmp_path / "ckpts", "--gpu=-1", "-j2", "--resume=auto")
    with Job(tmp_path / "output", COMMAND, *command, mark=tmp_path).after_steps(3) as job:
        os.killpg(job.process.pid, number)  # the loader's workers get it too
        assert job.finish() == code
        assert "--resume auto goes on" in job.last_line()
        assert job.err.read_text().count("\n") == 1
        assert job.all_gone()
    stopped = checkpoint(tmp_path / "ckpts")
    assert stopped.exists()
    command = training(many_digits, tmp_path / "ckpts", "--gpu=-1", "-j1", "--resume=auto")
    done = run_command(*command)
    assert done.returncode == 0, done.stderr
    assert "resumed" in done.stdout
    assert same(weights(tmp_path / "ckpts"), undisturbed(1, 2))


def test_two_processes_stop_together_and_go_on(many_digits, tmp_path, undisturbed):
    command = training(many_digits, tmp_path / "ckpts", "--gpu=-1,-1", "-j2", "--resume=auto")
    with Job(tmp_path / "output", COMMAND, *command, mark=tmp_path).after_steps(2) as job:
        for pid in [*job.ranks(), job.process.pid]:  # a cluster signals them all, the launcher too
            os.kill(pid, signal.SIGTERM)
        assert job.finish() == 143
        assert "--resume auto goes on" in job.last_line()
        assert job.err.read_text().count("\n") == 1
        assert job.all_gone()
    command[command.index("-j2")] = "-j4"
    with Job(tmp_path / "output", COMMAND, *command, mark=tmp_path) as job:
        assert job.finish() == 0
        assert "resumed" in job.out.read_text()
    assert same(weights(tmp_path / "ckpts"), undisturbed(2, 2))


def test_two_processes_of_torchrun_stop_together(many_digits, tmp_path):
    command = training(many_digits, tmp_path / "ckpts", "--gpu=-1", "-j2", epochs=20)
    with Job(tmp_path / "output", *torchrun(2), COMMAND, *command, mark=tmp_path).after_steps(
        2
    ) as job:
        job.process.terminate()
        assert job.finish() == 1  # torchrun's own, whatever its processes return
        assert job.err.read_text().count("--resume auto goes on") == 1
        assert job.all_gone()
    assert checkpoint(tmp_path / "ckpts").exists()


def test_a_signal_to_one_process_stops_all(many_digits, tmp_path):
    command = training(many_digits, tmp_path / "ckpts", "--gpu=-1,-1", "-j0", epochs=20)
    with Job(tmp_path / "output", COMMAND, *command, mark=tmp_path).after_steps(2) as job:
        os.kill(job.ranks()[1], signal.SIGINT)
        assert job.finish() == 130
        assert "--resume auto goes on" in job.last_line()
        assert job.all_gone()


def test_no_process_leaves_before_the_first_has_saved(many_digits, tmp_path):
    slow = Path(__file__).with_name("slow_saving.py")
    command = training(many_digits, tmp_path / "ckpts", "-j0", "--gpu=-1", epochs=20)
    start = [*torchrun(2), slow, *command]
    environ = ("env", f"PYTHONPATH={ROOT}")
    with Job(tmp_path / "output", *start, mark=tmp_path, wrapper=environ).after_steps(2) as job:
        os.kill(job.ranks()[1], signal.SIGTERM)
        job.wait_until(lambda: len(job.ranks()) < 2)
        assert checkpoint(tmp_path / "ckpts").exists()
        job.finish()
        assert job.err.read_text().count("--resume auto goes on") == 1


def test_processes_stop_and_save_when_their_launcher_is_killed(many_digits, tmp_path):
    command = training(many_digits, tmp_path / "ckpts", "--gpu=-1,-1", "-j2", epochs=20)
    with Job(tmp_path / "output", COMMAND, *command, mark=tmp_path).after_steps(2) as job:
        job.process.kill()
        assert job.all_gone()
        assert "--resume auto goes on" in job.last_line()
    assert checkpoint(tmp_path / "ckpts").exists()


@pytest.mark.slow
def test_one_process_killed_five_times(many_digits, tmp_path, undisturbed):
    draw = random.Random(1)
    command = training(many_digits, tmp_path / "ckpts", "--gpu=-1", "-j1", "--resume=auto")
    command.append("--save-every-minutes=0.0001")  # at every step
    for _ in range(5):
        with Job(tmp_path / "output", COMMAND, *command, mark=tmp_path) as job:
            job.after_steps(draw.randint(1, 2))
            job.process.send_signal(draw.choice([signal.SIGTERM, signal.SIGKILL]))
            assert job.finish() != 0
            assert job.all_gone()
    assert run_command(*command).returncode == 0
    assert same(weights(tmp_path / "ckpts"), undisturbed(1, 2))


def runs_anew(job, victims):
    ranks = job.ranks()
    return len(ranks) == 2 and not set(ranks) & set(victims)


@pytest.mark.slow
def test_two_processes_killed_ten_times_come_back(many_digits, tmp_path, undisturbed):
    draw = random.Random(2)
    command = training(many_digits, tmp_path / "ckpts", "-j2", "--resume=auto", epochs=EPOCHS)
    command += ["--gpu=-1", "--save-every-minutes=0.0001"]
    start = [*torchrun(2, f"--max-restarts={KILLS}"), COMMAND, *command]
    with Job(tmp_path / "output", *start, mark=tmp_path) as job:
        victims = set()
        for kill in range(KILLS):
            job.wait_until(lambda: runs_anew(job, victims))  # noqa: B023
            job.after_steps(job.steps() + draw.randint(1, 3))
            victims = job.ranks()
            os.kill(draw.choice(victims), signal.SIGKILL if kill % 2 else signal.SIGTERM)
        assert job.finish(300) == 0, job.err.read_text()
        assert job.out.read_text().count("resumed") == KILLS
        assert job.all_gone()
    assert same(weights(tmp_path / "ckpts"), undisturbed(2, EPOCHS))
