"""For which devices setup_mmdet.sh builds mmcv, by what is on the machine."""

import subprocess
from pathlib import Path

import pytest
from conftest import ROOT


def write(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("tools", "code", "said"),
    [
        (["nvcc"], 3, "built for 1, 8.0;8.6;8.9;9.0+PTX"),  # a login node
        (["nvcc", "nvidia-smi"], 3, "built for 1, "),
        (["nvidia-smi"], 2, "error: a GPU but no nvcc, which builds mmcv's operators for it"),
        ([], 3, "built for , "),
    ],
)
def test_it_builds_for_gpus_where_nvcc_is(tools, code, said, tmp_path):
    for tool in tools:
        write(tmp_path / tool, "echo GPU 0: H100")
    # in Python's place: says what a build would see, and ends it
    write(tmp_path / "python", 'echo "built for $FORCE_CUDA, $TORCH_CUDA_ARCH_LIST"; exit 3')
    done = subprocess.run(
        ["/bin/bash", ROOT / "scripts" / "setup_mmdet.sh", tmp_path / "venv"],
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path), "PYTHON": str(tmp_path / "python")},
    )
    assert done.returncode == code
    assert (done.stdout + done.stderr).startswith(said)
    assert not (tmp_path / "venv").exists()
