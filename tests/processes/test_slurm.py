"""The batch script, with stand-ins for Slurm's programs that note how they were called."""

import os
import subprocess

import pytest
from conftest import ROOT

NOTES = '#!/bin/sh\necho "$(basename $0)" "$@" "OMP_NUM_THREADS=$OMP_NUM_THREADS" >> "$NOTES"\n'


@pytest.fixture
def submit(tmp_path):
    """A function from a job's number and arguments to the words that srun was called with."""
    for name, text in {"srun": NOTES, "scontrol": '#!/bin/sh\nprintf "node7\\nnode8\\n"\n'}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(job: int, *arguments: str) -> list[str]:
        notes = tmp_path / f"{job}.txt"
        sizes = {"JOB_ID": job, "NNODES": 2, "GPUS_ON_NODE": 4, "CPUS_PER_TASK": 24}
        environ = {f"SLURM_{name}": str(value) for name, value in sizes.items()}
        environ |= {"SLURM_JOB_NODELIST": "node[7-8]", "NOTES": str(notes)}
        environ["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
        script = str(ROOT / "scripts" / "slurm_train.sbatch")
        subprocess.run(["bash", script, *arguments], check=True, env=os.environ | environ)
        return notes.read_text().split()

    return run


def test_each_node_has_its_cpus_and_each_job_its_port(submit):
    words = submit(123456, "DATA", "-a", "resnet18")
    assert words[0] == "srun"
    assert "--cpus-per-task=24" in words[: words.index("torchrun")]
    assert words[-1] == "OMP_NUM_THREADS=6"
    command = " ".join(words[words.index("main_imagenet.py") :])
    assert command.startswith("main_imagenet.py DATA -a resnet18 --resume auto")
    ends = []
    for job in (123456, 123457):
        words = submit(job, "DATA")
        ends.append(words[words.index("--rdzv-endpoint") + 1].split(":"))
    assert ends[0][0] == ends[1][0] == "node7"
    assert ends[0][1] != ends[1][1]
    assert all(1024 <= int(port) < 32768 for _, port in ends)  # below those given to clients
