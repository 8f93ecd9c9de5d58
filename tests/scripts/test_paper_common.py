"""Commands that are run in turn."""

import os
import signal
import threading

from scripts.paper.common import run_in_turn


def shell(text: str) -> list[str]:
    return ["sh", "-c", text]


def test_none_is_started_after_a_failure(tmp_path):
    commands = [shell(f"touch {tmp_path}/{name}; exit {code}") for name, code in ("a0", "b3", "c0")]
    assert run_in_turn(commands, os.environ) == 3
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "b"]


def test_a_signal_is_passed_on_and_nothing_is_started_after_it(tmp_path):
    commands = [shell(f"touch {tmp_path}/{name}; exec sleep 100") for name in "ab"]
    timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    assert run_in_turn(commands, os.environ) == 128 + signal.SIGTERM
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
