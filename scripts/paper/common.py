"""What the tables share: the runs that they read, and commands that are run in turn."""

import glob
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from itertools import islice
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


def run_in_turn(
    commands: Iterable[list[str]], environment: Mapping[str, str], at_once: int = 1
) -> int:
    """Run the commands until one fails; its exit code (128 + signal where it was killed), or 0.

    at_once: how many run at the same time; those of several are not heard. A signal to stop is
    passed on to what runs, which may take its time to save; none is started after that, and the
    exit code is not 0.
    """
    waiting, running, code, told = iter(commands), [], 0, False
    out = subprocess.DEVNULL if at_once > 1 else None
    with StopRequest() as stop:
        try:
            while True:
                free = 0 if code or stop.signum else at_once - len(running)
                # in a session of its own Ctrl-C reaches it once; twice would end it without saving
                running += [
                    subprocess.Popen(each, env=environment, start_new_session=True, stdout=out)
                    for each in islice(waiting, free)
                ]
                if not running:
                    break
                time.sleep(0.1)
                if stop.signum and not told:
                    for each in running:
                        each.send_signal(stop.signum)
                    told = True
                ended = [each for each in running if each.poll() is not None]
                running = [each for each in running if each not in ended]
                code = code or next((each.returncode for each in ended if each.returncode), 0)
        except KeyboardInterrupt:  # the second Ctrl-C
            for each in running:
                each.send_signal(signal.SIGINT)
            raise
    if code:
        return code if code > 0 else 128 - code
    return 128 + stop.signum if stop.signum else 0
