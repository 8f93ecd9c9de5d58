"""The GPU report, as far as it goes without a GPU, and on machines with few packages."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

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
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **environment},
    )


@pytest.fixture
def bare(tmp_path) -> dict[str, str]:
    """The environment of a Python, and its children, that find none of the packages `OPTIONAL`."""
    code = f"import sys\nsys.modules.update(dict.fromkeys({OPTIONAL.split()}))\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    assert run(sys.executable, "-c", "import timm", **environment).returncode == 1
    return environment


def gpu_tests(*files, **environment) -> list[str]:
    command = (sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--collect-only")
    done = run(*command, "-p", "no:cacheprovider", *files, **environment)
    assert "error" not in done.stdout, done.stdout
    return [line for line in done.stdout.splitlines() if "::" in line]


@pytest.mark.slow
def test_few_packages_are_enough_for_every_gpu_test(bare):
    named = [word for word in SCRIPT.read_text().split() if word.startswith("tests/")]
    expected = gpu_tests("tests")
    assert len(expected) > 80
    assert sorted(gpu_tests(*named, **bare)) == sorted(expected)


@pytest.mark.slow
def test_few_packages_are_enough_for_the_benchmarks(bare):
    done = run(sys.executable, "-c", "import scripts.bench_simam, scripts.bench_train", **bare)
    assert done.returncode == 0, done.stderr


def test_time_limits_stay_below_eight_minutes():
    limits = [int(limit) for limit in re.findall(r"^step \S+ (\d+) ", SCRIPT.read_text(), re.M)]
    assert len(limits) == 4
    assert sum(limits) <= 450


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu(tmp_path):
    done = run("bash", SCRIPT, tmp_path / "report")
    assert done.returncode == 2
    assert "sees no CUDA device; run this on a machine with a GPU" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(tmp_path, "report").exists()
    done = run("bash", SCRIPT)
    assert done.returncode == 2
    assert "usage:" in done.stderr
