"""Two nodes with addresses of their own, in network namespaces of this machine."""

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import run_command
from jobs import COMMAND, Job
from runs import STEPS, assert_equal, command, load

IMPATIENT = str(Path(__file__).with_name("impatient.py"))


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def nodes():
    """Names of two namespaces, joined by a cable: 10.77.0.1 and 10.77.0.2, each at `wire`."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    names = [f"simam-{os.getpid()}-{number}" for number in (1, 2)]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", names[0], "link", "add", "wire", "type", "veth", "peer", "wire", "netns", names[1])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine has no network namespaces: {error.stderr.decode().strip()}")
    else:
        for number, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "wire")
            ip("-n", name, "link", "set", "wire", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)


def start(nodes, number, folder, script, *words) -> Job:
    """torchrun with one process on node `number`; they meet at the first."""
    inside = ("ip", "netns", "exec", nodes[number - 1])
    environ = ("env", "GLOO_SOCKET_IFNAME=wire")
    meet = "--nnodes=2 --nproc-per-node=1 --rdzv-backend=c10d --rdzv-endpoint=10.77.0.1:29400"
    # the host's name says nothing of a namespace, so each is told who it is
    here = [f"--local-addr=10.77.0.{number}", f"--rdzv-conf=is_host={int(number == 1)}"]
    torchrun = ["-m", "torch.distributed.run", *meet.split(), *here, script]
    return Job(folder, *torchrun, *words, mark=folder, wrapper=(*inside, *environ))


@pytest.mark.slow
def test_two_nodes_train_like_one_with_two_processes(nodes, digits, tmp_path):
    """Without a shared run folder: the second node has none of its own."""
    folders = [tmp_path / "1", tmp_path / "2"]
    with contextlib.ExitStack() as stack:
        jobs = []
        for number, folder in enumerate(folders, 1):
            words = command(digits, folder / "ckpts", "--epochs", 2, "-b3")  # on each node
            jobs.append(stack.enter_context(start(nodes, number, folder, COMMAND, *words)))
        for job in jobs:
            assert job.finish() == 0, job.err.read_text()
    (main,) = (folder for folder in folders if (folder / "ckpts").exists())
    assert "2 processes on 2 nodes" in next(main.glob("*.out")).read_text()
    done = run_command(*command(digits, tmp_path / "alone", "--epochs", 2, "--gpu=-1,-1"))
    assert done.returncode == 0, done.stderr
    assert_equal(load(main / "ckpts"), load(tmp_path / "alone"), "checkpoint")


@pytest.mark.slow
def test_a_node_that_is_cut_off_ends_the_job_on_the_other(nodes, digits, tmp_path):
    folders = [tmp_path / "1", tmp_path / "2"]
    with contextlib.ExitStack() as stack:
        jobs = []
        for number, folder in enumerate(folders, 1):
            words = command(digits, folder / "ckpts", "-b3", "-j1")
            jobs.append(stack.enter_context(start(nodes, number, folder, IMPATIENT, *words)))
        jobs[0].wait_until(lambda: sum(job.steps() for job in jobs) >= STEPS + 2)
        ip("-n", nodes[1], "link", "set", "wire", "down")
        assert jobs[0].finish() != 0
        root_cause = jobs[0].err.read_text().split("Root Cause")[1].splitlines()[-2]
        assert re.search("Timed out waiting|Application timeout|Connection", root_cause)
        assert jobs[0].all_gone()
        # the launcher of the other node waits longer, for the store that was on the first
        jobs[1].wait_until(lambda: not jobs[1].ranks())
    (main,) = (folder for folder in folders if (folder / "ckpts").exists())
    assert load(main / "ckpts")["epoch"] >= 1
