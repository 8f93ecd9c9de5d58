"""Ctrl-C while a command still imports is one word."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from conftest import ROOT


def test_ctrl_c_while_torch_is_imported():
    command = [sys.executable, str(ROOT / "main_imagenet.py"), "nowhere"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        loaded = Path(f"/proc/{process.pid}/maps")
        while "libtorch" not in loaded.read_text():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "interrupted\n"
    assert process.returncode in (130, -signal.SIGINT)  # a shell shows both as 130
