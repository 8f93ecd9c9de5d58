"""Twelve kills at random moments, always the same; `soak.py` alone gives as many as wanted."""

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_runs_that_are_killed_end_as_if_nothing_had_been():
    words = [sys.executable, ROOT / "tests" / "soak.py", "--kills", "12", "--seed", "44"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
