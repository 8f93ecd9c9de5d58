"""Two nodes with addresses of their own, in network namespaces of this machine."""

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import run_command
from jobs import COMMAND, Job
from runs import STEPS, assert_equal, command, load

IMPATIENT = str(Path(__file__).with_name("impatient.py"))
MEET = """
import torch
torch.distributed.init_process_group("gloo")
torch.distributed.all_reduce(torch.ones(1))
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Names of two namespaces, joined by a cable: 10.77.0.1 and 10.77.0.2, each at `wire`."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    names = [f"simam-{os.getpid()}-{number}" for number in (1, 2)]
    try:
        connect(names)
        meet(names, tmp_path_factory.mktemp("meet"))
        yield names
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine has no network namespaces: {error.stderr.decode().strip()}")
    finally:
        for name in names:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)


def connect(names: list[str]) -> None:
    for name in names:
        ip("netns", "add", name)
    ip("-n", names[0], "link", "add", "wire", "type", "veth", "peer", "wire", "netns", names[1])
    for number, name in enumerate(names, 1):
        ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "wire")
        ip("-n", name, "link", "set", "wire", "up")
        ip("-n", name, "link", "set", "lo", "up")


def meet(names: list[str], folder: Path) -> None:
    """Skips where PyTorch alone, without our code, does not get from one node to the other."""
    script = folder / "meet.py"
    script.write_text(MEET)
    with on_both(names, folder, lambda own: [script, own]) as jobs:
        if (codes := exit_codes(jobs, seconds=60)) != [0, 0]:
            pytest.skip(f"the nodes do not meet, exit codes {codes}: {said(jobs)[:1000]}")


@contextlib.contextmanager
def on_both(nodes: list[str], folder: Path, words: Callable[[Path], list]):
    """The jobs of torchrun on both nodes, with one process each; they meet at the first.

    words: of its own folder, `folder`/1 and `folder`/2, makes a node's script and options.
    """
    meet = "--nnodes=2 --nproc-per-node=1 --rdzv-backend=c10d --rdzv-endpoint=10.77.0.1:29400"
    with contextlib.ExitStack() as stack:
        jobs = []
        for number, node in enumerate(nodes, 1):
            own = folder / str(number)
            inside = ("ip", "netns", "exec", node, "env", "GLOO_SOCKET_IFNAME=wire")
            # the host's name says nothing of a namespace, so each is told who it is
            here = [f"--local-addr=10.77.0.{number}", f"--rdzv-conf=is_host={int(number == 1)}"]
            torchrun = ["-m", "torch.distributed.run", *meet.split(), *here]
            job = Job(own, *torchrun, *words(own), mark=own, wrapper=inside)
            jobs.append(stack.enter_context(job))
        yield jobs


@contextlib.contextmanager
def cut_off(node: str):
    ip("-n", node, "link", "set", "wire", "down")
    try:
        yield
    finally:
        ip("-n", node, "link", "set", "wire", "up")


def exit_codes(jobs: list[Job], seconds: float) -> list[int | None]:
    """None: runs on after `seconds`."""
    end = time.monotonic() + seconds
    while None in (codes := [job.process.poll() for job in jobs]) and time.monotonic() < end:
        time.sleep(0.1)
    return codes


def said(jobs: list[Job]) -> str:
    return "\n".join(job.out.read_text() + job.err.read_text() for job in jobs)


def main_of(folder: Path) -> Path:
    """The node whose process wrote the run folder."""
    (main,) = (own for own in folder.iterdir() if (own / "ckpts").exists())
    return main


@pytest.mark.slow
def test_two_nodes_train_like_one_with_two_processes(nodes, digits, tmp_path):
    """Without a shared run folder: the second node has none of its own."""
    folder, options = tmp_path / "nodes", ["--epochs", 2]

    def words(own: Path) -> list:
        return [COMMAND, *command(digits, own / "ckpts", *options, "-b3")]  # on each node

    with on_both(nodes, folder, words) as jobs:
        assert exit_codes(jobs, seconds=300) == [0, 0], said(jobs)
    assert "2 processes on 2 nodes" in next(main_of(folder).glob("*.out")).read_text()
    done = run_command(*command(digits, tmp_path / "alone", *options, "--gpu=-1,-1"))
    assert done.returncode == 0, done.stderr
    assert_equal(load(main_of(folder) / "ckpts"), load(tmp_path / "alone"), "checkpoint")


@pytest.mark.slow
def test_a_node_that_is_cut_off_ends_the_job_on_the_other(nodes, digits, tmp_path):
    def words(own: Path) -> list:
        return [IMPATIENT, *command(digits, own / "ckpts", "-b3", "-j1")]

    with on_both(nodes, tmp_path, words) as jobs:
        jobs[0].wait_until(lambda: sum(job.steps() for job in jobs) >= STEPS + 2)
        with cut_off(nodes[1]):
            assert jobs[0].finish() != 0
            root_cause = jobs[0].err.read_text().split("Root Cause")[1].splitlines()[-2]
            assert re.search("Timed out waiting|Application timeout|Connection", root_cause)
            assert jobs[0].all_gone()
            # the launcher of the other node waits longer, for the store that was on the first
            jobs[1].wait_until(lambda: not jobs[1].ranks())
    assert load(main_of(tmp_path) / "ckpts")["epoch"] >= 1
