"""Ctrl-C while a command still imports is one word."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.parametrize("name", ["main_imagenet.py", "scripts/plot_curves.py"])
def test_ctrl_c_while_torch_is_imported(name):
    command = [sys.executable, str(ROOT / name), "nowhere"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        loaded = Path(f"/proc/{process.pid}/maps")
        while "libtorch" not in loaded.read_text():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "interrupted\n"
    assert process.returncode in (130, -signal.SIGINT)  # a shell shows both as 130
