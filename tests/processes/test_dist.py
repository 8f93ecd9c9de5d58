"""Several processes: the same numbers as one, one stream of output, and what is refused."""

import json
import math
import re
import shutil
import threading
from pathlib import Path

import pytest
import torch
from conftest import run_command
from jobs import Job, torchrun
from runs import STEPS, assert_equal, command, load, metrics, path, run
from several_processes import SIZES, results

from utils.config import Machine
from utils.errors import UsageError
from utils.processes.dist import (
    Dist,
    alone,
    choose_devices,
    in_callers_type,
    in_channels_last,
)
from utils.processes.launch import processes_to_start

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """Holds `digits`, and one and three of their validation images."""
    folder = tmp_path_factory.mktemp("several")
    shutil.copytree(digits, folder / "digits")
    for name, count in (("one", 1), ("three", 3)):
        for image in sorted((digits / "val").rglob("*.png"))[2 : 2 + count]:  # of two classes
            target = folder / name / image.relative_to(digits)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, target)
    return folder


@pytest.fixture(scope="module")
def two(folder, undisturbed):
    """What two processes found, and what they printed."""
    script = Path(__file__).with_name("several_processes.py")
    words = [*torchrun(2), script, folder, path(undisturbed)]
    with Job(folder / "output", *words, mark=folder) as job:
        assert job.finish() == 0, job.err.read_text()
        return json.loads((folder / "results").read_text()), job.out.read_text()


@pytest.fixture(scope="module")
def one(digits):
    return results(Dist(0, 1, CPU), digits)


def test_evaluation_is_the_same_in_two_processes(one, two):
    found = zip(SIZES, one["evaluations"], two[0]["evaluations"], strict=True)
    for size, whole, shared in found:
        assert shared["images"] == whole["images"] == size
        assert (shared["acc1"], shared["acc5"]) == (whole["acc1"], whole["acc5"])
        assert math.isclose(shared["loss"], whole["loss"], rel_tol=1e-6)


def test_processes_with_a_share_of_the_batch_train_as_one_with_all(one, two):
    weights = [
        {key: torch.tensor(value) for key, value in found["training"].items()}
        for found in (two[0], one)
    ]
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


def test_processes_agree(two):
    found, _ = two
    assert found["lost statistics"] == [0]
    assert found["largest"] == [1, 5]
    assert found["from main"] == "made by 0"
    first, second = found["refusals"]
    assert first == ""
    wanted = "process 1 on .* has other images than the first process: 11, not 10;"
    assert re.match(wanted, second)


def test_a_signal_to_one_stops_both_and_they_go_on_bit_for_bit(two, folder):
    _, said = two
    assert f"resumed     {path(folder / 'parts')}, after epoch 2, step 2" in said
    assert_equal(load(folder / "parts"), load(folder / "whole"), "checkpoint")


def test_console_and_files_come_from_the_first_process(two, folder):
    epochs = [line for line in two[1].splitlines() if line.startswith("Epoch ")]
    assert len(epochs) == 2 * 2 * (STEPS + 1)  # two runs of two epochs
    log = path(folder / "whole", "log.txt").read_text().splitlines()
    assert "2 processes on 1 node" in "\n".join(log)
    assert [line for line in log if line.startswith("Epoch ")] == epochs[: len(epochs) // 2]
    assert len(metrics(folder / "whole")) == 2
    assert len(list(path(folder / "whole").parent.glob("events*"))) == 1


def test_e_prints_the_same_numbers_in_two_processes(two, folder, undisturbed, capsys):
    """While it runs, too. The second has none of one image, and one less than the first of three;
    of twelve both have two batches."""

    def numbers(said: str) -> list[list[str]]:
        lines = [li for li in said.splitlines() if li.startswith((" * Acc@1 ", "Validation ["))]
        return [line.split("  ")[:3] for line in lines]

    expected = []
    for few in ("one", "three", "digits"):
        assert run(folder / few, folder, "-e", "--resume", path(undisturbed)) == 0
        expected += numbers(capsys.readouterr().out)
    assert len(expected) == 2 + 2 + 3
    assert numbers(two[1])[-len(expected) :] == expected


def test_no_thread_outlives_the_processes_group(two):
    """Gloo's would now and then abort the process at its end."""
    threads = two[0]["threads"]
    assert any("python" in name for name in threads)
    assert not any("gloo" in name for name in threads)


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
        ("--gpu=-1,-1 --parallel dp", "--parallel dp needs GPUs"),
        ("--gpu=-1,first", "--gpu first is not a GPU number"),
        ("--gpu=-1 --dist-backend nccl", "--dist-backend nccl needs GPUs"),
    ],
)
def test_what_can_not_be_is_one_line(options, message, digits, tmp_path, capsys):
    assert run(digits, tmp_path, *options.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert not list(tmp_path.iterdir())


def test_batch_statistics_are_shared_on_gpus_only():
    with pytest.raises(UsageError, match="--sync-bn needs GPUs"):
        Dist(0, 2, CPU).wrap(torch.nn.BatchNorm2d(3), sync_bn=True)


def test_devices_of_a_run(monkeypatch):
    assert len(choose_devices("-1,-1")) == 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="on GPUs or on the CPU, not on both"):
        choose_devices("0,-1")
    with pytest.raises(UsageError, match="--gpu 0,1,0 names one twice, which needs --dist"):
        choose_devices("0,1,0")
    assert [device.index for device in choose_devices("0,0", shared=True)] == [0, 0]


def test_processes_are_started_for_several_devices_unless_one_takes_all():
    assert processes_to_start(Machine(gpu="-1")) == 0
    assert processes_to_start(Machine(gpu="-1,-1,-1")) == 3
    assert processes_to_start(Machine(gpu="-1,-1", parallel="dp")) == 0


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


def test_a_replicas_weights_are_channels_last_again():
    """It holds them as plain tensors, as DataParallel's do."""
    replica, weight = torch.nn.Module(), torch.randn(4, 3, 2, 2, requires_grad=True)
    replica.norm = torch.nn.BatchNorm2d(4)
    replica.weight = weight * 1
    assert in_channels_last(replica) is replica
    assert replica.weight.is_contiguous(memory_format=torch.channels_last)
    replica.weight.square().sum().backward()
    torch.testing.assert_close(weight.grad, 2 * weight.detach())


@pytest.mark.gpu
def test_replicas_on_one_gpu_train_as_the_network_alone():
    torch.manual_seed(0)
    dist = Dist(0, 1, torch.device("cuda", 0), replicas=(torch.device("cuda", 0),) * 2)
    layers = torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten()
    model, images = torch.nn.Sequential(*layers), torch.randn(6, 3, 9, 9, device="cuda")
    seen, gradients = [], []
    model[0].register_forward_hook(lambda module, *_: seen.append(module.weight))
    for wrapped in (dist.replicate(model), model):
        model.zero_grad()
        wrapped(images).square().sum().backward()
        gradients.append(model[0].weight.grad.clone())
    assert len(seen) == 3
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in seen)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_sync_bn_trains_as_one_process_with_the_whole_batch(request, tmp_path):
    for package in ("sklearn", "safetensors", "tensorboard", "tqdm"):
        pytest.importorskip(package, reason=f"the command and its images need {package}")
    digits, weights = request.getfixturevalue("digits"), []
    for gpus in ("0", "0,0"):
        options = (f"--gpu={gpus}", "--dist-backend=gloo", "--sync-bn")  # one GPU, shared
        done = run_command(*command(digits, tmp_path / gpus, *options, "--epochs", 1))
        assert done.returncode == 0, done.stderr
        weights.append(load(tmp_path / gpus)["state_dict"])
    torch.testing.assert_close(*weights, rtol=1e-2, atol=1e-3)


# of PyTorch jobs, Open MPI, MPICH and Slurm
STARTED = ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"]


@pytest.mark.parametrize("name", STARTED)
def test_processes_of_another_launcher_do_not_train_each_alone(
    name, digits, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv(name, "2")
    monkeypatch.setenv("RANK", "1")
    assert run(digits, tmp_path) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {name} is 2, but torchrun did not start this process")
    assert not list(tmp_path.iterdir())


def test_the_only_process_of_another_launcher_trains(digits, tmp_path, monkeypatch, undisturbed):
    for name in STARTED:
        monkeypatch.setenv(name, "1")
    for name in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        monkeypatch.setenv(name, "0")
    assert run(digits, tmp_path, "--epochs", 1) == 0
    assert metrics(tmp_path)[0]["val_loss"] == metrics(undisturbed)[0]["val_loss"]
