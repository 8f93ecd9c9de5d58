"""Some made files of each kind, always the same; `fuzz.py` alone reads as many as wanted."""

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["checkpoints", "images", "archives"])
def test_made_files_are_read_or_refused_in_one_line(kind):
    words = [sys.executable, ROOT / "tests" / "fuzz.py", kind, "--seed", "0", "--seconds", "20"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
