"""What the tables share: the runs that they read, and commands that are run in turn."""

import glob
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from utils.config import Config
from utils.processes.signals import StopRequest
from utils.report.runs import read_finished

REPOSITORY = Path(__file__).resolve().parents[2]


def folders(root: str, pattern: str, others: list[str]) -> list[str]:
    """The folders in `root` that are called so, and `others`, each once."""
    inside = sorted(glob.glob(f"{glob.escape(root)}/{pattern}"))
    return list({os.path.realpath(path): path for path in [*inside, *others]}.values())


def last_acc1(configs: Iterable[Config]) -> list[float]:
    """Top-1 after the last epoch of those that are finished; another schedule is passed over."""
    reached = []
    for config in configs:
        run = read_finished(config.folder)
        if run and run.has({"iterations": config.optim.iterations}):
            reached.append(run.epochs[-1]["val_acc1"])
    return reached


def run_in_turn(commands: Iterable[list[str]], environment: Mapping[str, str]) -> int:
    """Run the commands until one fails; its exit code (128 + signal where it was killed), or 0.

    A signal to stop is passed on to the command that runs, which may take its time to save; none
    is started after that, and the exit code is not 0.
    """
    with StopRequest() as stop:
        for command in commands:
            # in a session of its own Ctrl-C reaches it once; twice would end it without saving
            child = subprocess.Popen(command, env=environment, start_new_session=True)
            while child.poll() is None and not stop.signum:
                time.sleep(0.1)
            if stop.signum:
                child.send_signal(stop.signum)
            try:
                code = child.wait()
            except KeyboardInterrupt:  # the second Ctrl-C
                child.send_signal(signal.SIGINT)
                raise
            if code:
                return code if code > 0 else 128 - code
            if stop.signum:
                return 128 + stop.signum
    return 0
