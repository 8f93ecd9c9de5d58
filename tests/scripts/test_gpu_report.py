"""The GPU report, in its smallest form on the CPU, on a machine with few packages."""

import importlib
import json
import os
import subprocess
import sys
import tarfile
import time
from math import inf
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from scripts.gpu_report.claims import NOT_MEASURED as UNMEASURED
from scripts.gpu_report.claims import page as page_of
from scripts.gpu_report.runner import GRACE, JSON, Step, run_together
from scripts.gpu_report.runs import keep_runs, take_up_runs, unpack
from scripts.gpu_report.steps import KERNEL_TESTS, OTHER_TESTS, Place, plan
from scripts.gpu_report.traffic import read

SCRIPT = ROOT / "scripts" / "gpu_report.sh"
# all that is not needed: a machine has some of them or none
OPTIONAL = (
    "grad_cam matplotlib onnx onnxruntime onnxscript pytorch_grad_cam scipy simplejpeg sklearn "
    "thop timm"
)


def run(*command, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        timeout=3000,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **environment},
    )


@pytest.fixture
def bare(tmp_path) -> dict[str, str]:
    """The environment of a Python, and its children, that find none of the packages `OPTIONAL`."""
    code = f"import sys\nsys.modules.update(dict.fromkeys({OPTIONAL.split()}))\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


@pytest.mark.slow
def test_the_smallest_form_measures_everything_but_the_gpu(digits32, tmp_path, bare):
    folder = tmp_path / "report"
    words = folder, "--cifar", digits32, "--device", "cpu", "--seconds", 6000
    # its own PYTHONPATH would hide the packages again
    done = run(sys.executable, "-m", "scripts.gpu_report", *words, **bare)
    report = json.loads((folder / "report.json").read_text())
    failed = [name for name, each in report["steps"].items() if each["stopped"] or each["code"]]
    assert not failed, done.stdout
    checks = [row for step in report["steps"].values() for row in step["rows"].get("checks", [])]
    assert len(checks) == 6
    assert all(row["passed"] for row in checks), done.stdout
    text = (folder / "report.txt").read_text()
    assert " failed" not in text.replace("gpuGetDeviceCount failed", "")
    page = (folder / "page.md").read_text()
    assert done.stdout.rstrip().endswith(page.rstrip())
    # speeds of the smallest maps mean nothing
    assert done.returncode == int("| NO |" in page)
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    unmeasured = [claim.removeprefix("| ") for claim, measured, _ in rows if measured == UNMEASURED]
    assert unmeasured == [
        "the kernels compute SimAM: its tests on CUDA",
        "the other tests on CUDA; no step waits for the GPU",
        "... and than torch.compile's",
        "SimAM, norm and ReLU6 in one are faster than one by one: compiled",
        "training is faster than the published loop",
        "... than timm's network without SimAM",
        "--compile: faster than the published loop",
        "a batch is copied while the one before is in use",
    ]
    kept = {each.name for each in folder.glob("*.tar")}
    assert kept == {f"digits32-cifar_resnet20{each}.tar" for each in ("", "-simam-param0.0001")}


def gpu_tests(*files, **environment) -> list[str]:
    command = (sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--collect-only")
    done = run(*command, "-p", "no:cacheprovider", *files, **environment)
    assert "error" not in done.stdout, done.stdout
    return [line for line in done.stdout.splitlines() if "::" in line]


@pytest.mark.slow
def test_few_packages_are_enough_for_every_gpu_test(bare):
    expected = gpu_tests("tests")
    assert len(expected) > 80
    assert sorted(gpu_tests(*KERNEL_TESTS, *OTHER_TESTS, **bare)) == sorted(expected)


def test_the_limits_leave_five_minutes_for_table_2(tmp_path):
    groups = list(plan(Place("cuda", tmp_path, str(tmp_path))))
    limits = [[step.seconds for step in group if step.seconds < inf] for group in groups]
    assert 540 - sum(max(group, default=0) for group in limits) - GRACE >= 300
    names = [step.name for group in groups for step in group]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("cifar", [None, "archive.tar.xz"])
def test_the_commands_of_a_gpu_are_taken(cifar, tmp_path):
    steps = [step for group in plan(Place("cuda", tmp_path, cifar)) for step in group]
    for first, *words in (step.command for step in steps):
        if first == "-m":
            first, *words = words
        paths = [word for word in words if word.startswith("tests/")]
        assert all((ROOT / path).exists() for path in paths)
        module = importlib.import_module(first.removesuffix(".py").replace("/", "."))
        if first.startswith("scripts/"):
            module.parse_args([str(word) for word in words])


def test_a_step_that_hangs_is_stopped_and_what_it_wrote_is_kept(tmp_path):
    hangs = (
        "import signal, sys, time; open(sys.argv[1], 'w').write('{\"a\": 1}');"
        "print('begun', flush=True); signal.signal(signal.SIGINT, lambda *_: sys.exit(3));"
        "time.sleep(100)"
    )
    steps = [Step("hangs", 2, ("-c", hangs, JSON)), Step("ends", 50, ("-c", "print('ended')"))]
    started = time.monotonic()
    ends, hangs = sorted(run_together(steps, tmp_path, started + 100), key=lambda each: each.name)
    assert time.monotonic() - started < 20
    assert (ends.code, ends.stopped, ends.said) == (0, False, "ended\n")
    assert (hangs.code, hangs.stopped, hangs.rows, hangs.said) == (3, True, {"a": 1}, "begun\n")
    assert not list(run_together(steps, tmp_path, time.monotonic()))


def test_runs_are_carried_to_the_next_call(tmp_path):
    runs = tmp_path / "runs"
    for name in ("cifar10-net-seed1", "cifar10-net-seed2", "cifar10-net-simam-seed1"):
        (runs / name).mkdir(parents=True)
        for file in ("checkpoint.pth.tar", "metrics.jsonl", "args.json", "log.txt"):
            (runs / name / file).write_text(f"{name} {file}")
    folder = tmp_path / "report"
    folder.mkdir()
    keep_runs(runs, folder)
    kept = sorted(each.name for each in folder.iterdir())
    assert kept == ["cifar10-net-simam.tar", "cifar10-net.tar"]
    take_up_runs(folder, tmp_path / "next")
    found = sorted(str(each.relative_to(tmp_path / "next")) for each in tmp_path.glob("next/*/*"))
    assert len(found) == 9
    assert not any(each.endswith("log.txt") for each in found)


def test_an_archive_is_unpacked_without_its_root(tmp_path):
    image = tmp_path / "cifar10-jpeg" / "train" / "cat" / "1.jpg"
    image.parent.mkdir(parents=True)
    image.write_text("pixels")
    with tarfile.open(tmp_path / "cifar.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "cifar10-jpeg", "cifar10-jpeg")
    unpack(str(tmp_path / "cifar.tar.xz"), str(tmp_path / "there"))
    assert (tmp_path / "there/train/cat/1.jpg").read_text() == "pixels"


def test_what_does_not_hold_is_on_the_page_and_in_the_exit_code():
    def outcome(said: str, **tables) -> dict:
        return {"seconds": 1.0, "code": 0, "stopped": False, "rows": tables, "said": said}

    row = {"maps": "2x3", "layout": "contiguous", "dtype": "float32", "pass": "forward"}
    row |= {"SimAM": "operator", "ms": 1.0, "maps kept": 1.0, "GB/s": 9.0, "copy GB/s": 10.0}
    reached = {"arch": "net", "attention": "none", "runs": 2, "mean": 92.5, "std": 0.25}
    reached |= {"paper": 92.33}
    steps = {
        "kernel_tests": outcome("7 passed, 3 skipped in 1.2s"),
        "layers": outcome("", layers=[row | {"speed": 2.5}, row | {"speed": 1.5}]),
        "table2_so_far": outcome("", rows=[reached]),
    }
    text, passed = page_of({"about": {"gpu": "none"}, "steps": steps})
    assert passed
    assert "| its tests on CUDA | 7 passed, 0 failed | yes |" in text.replace(
        "the kernels compute SimAM: ", ""
    )
    assert "1.5 at the least (2x3, contiguous, float32, forward), 2 measured | yes |" in text
    assert "JPEG: net, none | 92.50 +- 0.25 of 2; paper 92.33 | – |" in text
    steps["kernel_tests"] = outcome("1 failed, 7 passed in 1.2s")
    text, passed = page_of({"about": {}, "steps": steps})
    assert not passed
    assert "| 7 passed, 1 failed | NO |" in text


def test_ncus_table_is_read():
    head = '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"'
    lines = [
        '"0","forward_kernel","dram__bytes_read.sum","Mbyte","102.76"',
        '"0","forward_kernel","dram__bytes_write.sum","Kbyte","1,000"',
        '"0","forward_kernel","lts__t_sector_hit_rate.pct","%","33.5"',
        '"1","forward_kernel","dram__bytes_read.sum","Mbyte","9"',
    ]
    found = read("\n".join(["==PROF== Connected", head, *lines]))
    kernel = {"read": 102.76e6, "written": 1e6, "L2 hits %": 33.5}
    assert found == {"forward_kernel": pytest.approx(kernel)}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu(tmp_path):
    done = run("bash", SCRIPT, tmp_path / "report")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith("sees no CUDA device; run this on a machine with a GPU")
    assert not Path(tmp_path, "report").exists()
