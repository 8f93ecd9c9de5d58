"""What Windows and macOS lack is not needed: taken away here, as far as PyTorch goes without it."""

import subprocess
import sys

import pytest
from conftest import ROOT
from runs import command, metrics

LACKING = """
import multiprocessing, os, signal, sys
import torch
sys.modules["fcntl"] = None
del signal.SIGUSR1, signal.SIGPIPE, os.register_at_fork
os.fork = multiprocessing.get_all_start_methods = None
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")  # workers that share nothing with this process
    from main_imagenet import main
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_without_fork_locks_and_sigusr1(undisturbed, digits, tmp_path):
    (tmp_path / "lacking.py").write_text(LACKING)
    words = command(digits, tmp_path / "root", "--epochs", 1, "-j", 1)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "lacking.py"), *words],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    (line,), (first, *_) = metrics(tmp_path / "root"), metrics(undisturbed)
    assert (line["val_loss"], line["train_loss"]) == (first["val_loss"], first["train_loss"])
