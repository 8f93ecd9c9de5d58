"""The tables of reproduce.py."""

import signal
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from utils.errors import UsageError
from utils.processes.signals import SIGNALS


def of_checkout(place: str) -> Path:
    """A file or folder of the repository that the installed package does not have.

    Raises UsageError where it is not there.
    """
    path = Path(__file__).resolve().parents[2] / place
    if not path.exists():
        raise UsageError(f"--run needs a checkout of the repository, with its {place}")
    return path


def run_in_turn(commands: Iterable[list[str]], environment: Mapping[str, str]) -> int:
    """Run the commands until one fails; its exit code (128 + signal where it was killed), or 0.

    SIGINT, SIGTERM and SIGUSR1 are passed on to the command that runs, which may take its time to
    save; none is started after that, and the exit code is not 0.
    """
    child, noted = None, []

    def pass_on(signum: int, _frame) -> None:
        noted.append(signum)
        if child:
            child.send_signal(signum)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        for command in commands:
            # in a session of its own Ctrl-C reaches it once; twice would end it without saving
            child = subprocess.Popen(command, env=environment, start_new_session=True)
            if noted:  # before there was a child to tell
                child.send_signal(noted[0])
            code = child.wait()
            if code:
                return code if code > 0 else 128 - code
            if noted:
                return 128 + (signal.SIGTERM if noted[0] == signal.SIGUSR1 else noted[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0
