"""Commands that are run in turn, or several at once."""

import os
import signal
import threading

from scripts.paper.common import run_in_turn


def shell(text: str) -> list[str]:
    return ["sh", "-c", text]


def test_several_run_at_once_and_none_is_started_after_a_failure(tmp_path):
    wait = "touch {0}/{1}; until [ -e {0}/{2} ]; do sleep 0.05; done; {3}"
    pairs = ("a", "b", "sleep 3"), ("b", "a", "exit 3")
    commands = [shell(wait.format(tmp_path, *each)) for each in pairs]
    assert run_in_turn([*commands, shell(f"touch {tmp_path}/c")], os.environ, 2) == 3
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "b"]


def test_a_signal_reaches_all_and_nothing_is_started_after_it(tmp_path):
    commands = [shell(f"touch {tmp_path}/{name}; exec sleep 100") for name in "abc"]
    timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    assert run_in_turn(commands, os.environ, 2) == 128 + signal.SIGTERM
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "b"]
