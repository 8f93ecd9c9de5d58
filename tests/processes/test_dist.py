"""Several processes: the same numbers as one, one stream of output, and what is refused."""

import contextlib
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_command
from jobs import COMMAND, Job, checkpoint, same, torchrun, training, weights
from several_processes import SIZES

from utils.errors import UsageError
from utils.processes.dist import Dist, alone, choose_devices, in_callers_type
from utils.processes.launch import Nodes, processes_to_start, published_nodes
from utils.training.folder import LATEST

CPU = torch.device("cpu")


def python(*command) -> subprocess.CompletedProcess:
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environ,
    )


@pytest.fixture(scope="module")
def results(many_digits, tmp_path_factory):
    """What `several_processes` writes, by the number of processes."""
    folder, found = tmp_path_factory.mktemp("results"), {}
    script = Path(__file__).with_name("several_processes.py")
    for world in (1, 2, 3):
        done = python(*torchrun(world), script, many_digits, folder / str(world))
        assert done.returncode == 0, done.stderr
        found[world] = json.loads((folder / str(world)).read_text())
        assert found[world]["world"] == world
    return found


@pytest.mark.parametrize("world", [2, 3])
def test_evaluation_is_the_same_at_any_number_of_processes(world, results):
    for size, one, several in zip(
        SIZES, results[1]["evaluations"], results[world]["evaluations"], strict=True
    ):
        assert several["images"] == one["images"] == size
        assert (several["acc1"], several["acc5"]) == (one["acc1"], one["acc5"])
        assert math.isclose(several["loss"], one["loss"], rel_tol=1e-6)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_with_a_share_of_the_batch_train_as_one_with_all(world, results):
    for key, one in results[1]["training"].items():
        torch.testing.assert_close(
            torch.tensor(results[world]["training"][key]), torch.tensor(one), rtol=1e-4, atol=1e-6
        )


def test_processes_agree(results):
    for world, found in results.items():
        assert found["largest"] == [world - 1, 5]
        assert found["from main"] == "made by 0"
    assert results[3]["refusals"][0] == ""
    for rank in (1, 2):
        assert re.match(
            rf"process {rank} on .* has other images than the first process: {10 + rank}, not 10;",
            results[3]["refusals"][rank],
        )


def test_console_and_files_come_from_the_first_process(many_digits, tmp_path):
    options = ("-b9", "-j2", "--gpu=-1")
    done = python(*torchrun(3), COMMAND, *training(many_digits, tmp_path / "ckpts", *options))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("device  ") for line in lines) == 1
    assert "3 processes on 1 node" in lines[0]
    assert sum(line.startswith("Epoch 1/2 [") for line in lines) == 5  # the last three are too few
    folder = checkpoint(tmp_path / "ckpts").parent
    assert sum("Acc@1" in line for line in (folder / "log.txt").read_text().splitlines()) == 3
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    assert len(list(folder.glob("events*"))) == 1


def test_gpu_list_and_torchrun_are_the_same_run(many_digits, tmp_path):
    roots = [tmp_path / "own", tmp_path / "torchrun"]
    own = run_command(*training(many_digits, roots[0], "--gpu=-1,-1", "-j0", epochs=1))
    other = python(*torchrun(2), COMMAND, *training(many_digits, roots[1], "-j2", epochs=1))
    assert (own.returncode, other.returncode) == (0, 0), own.stderr + other.stderr
    assert same(weights(roots[0]), weights(roots[1]))


def test_a_node_splits_its_batch_and_workers():
    node = Dist(1, 6, CPU, local_world=3)
    assert (node.nodes, node.batch_size(12), node.workers(4)) == (2, 24, 2)
    with pytest.raises(UsageError, match=r"-b 10 can't be split evenly over 3 .*: 9 or 12"):
        node.batch_size(10)
    with pytest.raises(UsageError, match=r"-b 2 can't .* over 3 .*: 3$"):
        node.batch_size(2)
    several = Dist(0, 1, CPU, replicas=(CPU, CPU))
    with pytest.raises(UsageError, match=r"-b 5 can't .* over 2 .*: 4 or 6"):
        several.batch_size(5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--gpu=-1,-1 --sync-bn", "--sync-bn needs GPUs"),
        ("--gpu=-1,-1 --parallel dp", "--parallel dp needs GPUs"),
        ("--gpu=-1,first", "--gpu first is not a GPU number"),
        ("--gpu=-1 --dist-backend nccl", "--dist-backend nccl needs GPUs"),
        ("--gpu=-1 --rank 1", "--rank and --dist-url say nothing without --world-size"),
        (
            "--gpu=-1 --multiprocessing-distributed --parallel dp",
            "--parallel dp is one process on one machine",
        ),
        ("--world-size 2 --rank 0", "--world-size 2 .*--multiprocessing-distributed.*torchrun"),
    ],
)
def test_what_cannot_be_is_one_line(options, message, many_digits, tmp_path):
    done = run_command(*training(many_digits, tmp_path, "-j0", *options.split()))
    assert done.returncode == 2
    assert re.fullmatch(rf"error: (rank \d: )?{message}.*\n", done.stderr)
    assert not list(tmp_path.glob("**/*.pth.tar"))


def test_mixture_of_gpu_and_cpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="on GPUs or on the CPU, not on both"):
        choose_devices("0,-1")


def test_one_gpu_for_two_is_refused_but_with_gloo(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(
        UsageError, match=r"--gpu 0,1,0 names one twice, which needs --dist-backend gloo"
    ):
        choose_devices("0,1,0")
    assert [device.index for device in choose_devices("0,0", shared=True)] == [0, 0]
    assert len(choose_devices("-1,-1")) == 2


@pytest.mark.gpu
def test_the_only_process_takes_its_gpu():
    last = torch.cuda.device_count() - 1
    try:
        assert alone(str(last)).device.index == torch.cuda.current_device() == last
    finally:
        torch.cuda.set_device(0)


def test_replicas_compute_in_the_callers_type():
    """In a thread such as DataParallel's, which only knows that there is autocast."""
    seen = []

    def compute(function) -> None:
        with torch.autocast("cpu", enabled=True):
            seen.append(function(torch.ones(2, 3)).dtype)

    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype):
            replica = in_callers_type(torch.nn.Linear(3, 3), "cpu")
            thread = threading.Thread(target=compute, args=(replica,))
            thread.start()
            thread.join()
    assert seen == [torch.float16, torch.bfloat16]


LEAVING = """
from pathlib import Path
from utils.processes import dist as distributed

dist = distributed.start("-1")
import utils.training.run  # as late as the command does

dist.wait()
distributed.finish()
print([path.read_text() for path in Path("/proc/self/task").glob("*/comm")])
"""


def test_no_thread_outlives_the_processes_group(tmp_path):
    script = tmp_path / "leaving.py"
    script.write_text(LEAVING)
    done = python(*torchrun(2), script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("python") == 2
    assert "gloo" not in done.stdout


@pytest.mark.parametrize("images", [2, 4])
def test_e_prints_one_line_at_any_number_of_processes(images, many_digits, trained, tmp_path):
    """Of three processes, one has none of two images, or one image less than the first."""
    found = sorted((many_digits / "val").rglob("*.png"), key=lambda path: path.name)
    for path in found[:images]:
        target = tmp_path / path.relative_to(many_digits)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    network = ("--attention-type=simam", "--attention-param=0.1", "--num-classes=3", "-e")
    options = (*network, "--image-size=32", "-b6", "-j0", "--resume", trained / LATEST)
    lines = set()
    for gpus in ("-1", "-1,-1", "-1,-1,-1"):
        done = run_command(tmp_path, f"--gpu={gpus}", *options)
        assert (done.returncode, done.stderr) == (0, "")
        lines.add(done.stdout.splitlines()[-1])
    (line,) = lines
    assert re.fullmatch(r" \* Acc@1 \d+\.000 Acc@5 100\.000", line)


def test_published_flags():
    assert published_nodes(False, None, None, None) == Nodes()
    assert published_nodes(True, 1, 0, "tcp://127.0.0.1:1234") == Nodes()
    assert published_nodes(True, 2, 1, "tcp://10.0.0.1:1234") == Nodes(2, 1, "10.0.0.1:1234")
    for flags, message in {
        (False, 8, 3, "tcp://10.0.0.1:1234"): "goes with --multiprocessing-distributed",
        (True, None, 0, None): "say nothing without --world-size",
        (False, None, None, "tcp://10.0.0.1:1234"): "say nothing without --world-size",
        (False, None, None, "env://"): "say nothing without --world-size",
        (True, 2, None, "tcp://10.0.0.1:1234"): "needs --rank 0 to 1",
        (True, 2, 2, "tcp://10.0.0.1:1234"): "needs --rank 0 to 1",
        (True, 2, 0, None): "needs --dist-url tcp://HOST:PORT",
        (True, 2, 0, "file:///shared"): "torchrun --rdzv-backend",
    }.items():
        with pytest.raises(UsageError, match=message):
            published_nodes(*flags)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_two_machines_that_the_published_flags_name(many_digits, tmp_path):
    """Both on this one; -b counts per machine."""
    meet = f"--multiprocessing-distributed --world-size 2 --dist-url tcp://127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        jobs = []
        for rank in (0, 1):
            options = [*meet.split(), f"--rank={rank}", "--gpu=-1", "-b4", "-j0"]
            command = training(many_digits, tmp_path / str(rank), *options, epochs=1)
            job = Job(tmp_path / "output", COMMAND, *command, mark=tmp_path)
            jobs.append(stack.enter_context(job))
        for job in jobs:
            assert job.finish() == 0, job.err.read_text()
    assert "2 processes on 2 nodes" in jobs[0].out.read_text()
    assert jobs[1].out.read_text() == ""
    one = ("--gpu=-1,-1", "--multiprocessing-distributed", "-j0")  # on one machine
    done = run_command(*training(many_digits, tmp_path / "one", *one, epochs=1))
    assert (done.returncode, done.stderr) == (0, "")
    assert same(weights(tmp_path / "0"), weights(tmp_path / "one"))


def test_several_machines_need_processes():
    with pytest.raises(UsageError, match="--parallel dp is one process on one machine"):
        processes_to_start("-1", "dp", True, Nodes(2, 0, "10.0.0.1:1234"))


@pytest.mark.gpu
def test_sync_bn_trains_as_one_process_with_the_whole_batch(request, tmp_path):
    for package in ("sklearn", "safetensors", "tensorboard", "thop", "tqdm"):
        pytest.importorskip(package, reason=f"the command and its images need {package}")
    many_digits = request.getfixturevalue("many_digits")
    root = {gpus: tmp_path / gpus for gpus in ("0", "0,0")}
    for gpus, folder in root.items():
        options = (f"--gpu={gpus}", "--dist-backend=gloo", "--sync-bn", "-j0")  # one GPU, shared
        done = run_command(*training(many_digits, folder, *options, epochs=1))
        assert done.returncode == 0, done.stderr
    one, several = (weights(folder) for folder in root.values())
    for key, value in one.items():
        torch.testing.assert_close(several[key], value, rtol=1e-2, atol=1e-3)
