"""Runs of one and of two processes, killed at random moments until they have come to their end.

    python tests/soak.py --kills 100 --seed S

Kills come from the first line of the command on, by SIGKILL and by the signals that ask, to all
processes or to one: a launcher, a rank, a loader worker. After each, the same command goes on. The
checkpoints and the curves must be those of a run that nobody disturbed, bit for bit; else exit code
1. The first process is a copy of this one, which has imported all that a run needs: that takes
longer than the run lives. The ranks of two are new ones.
"""

import argparse
import atexit
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ["OMP_NUM_THREADS"] = "1"

from jobs import COMMAND, Job
from runs import STEPS, assert_same_run, command

from main_imagenet import main as train
from scripts.make_digits import write_digits
from utils.processes.signals import end_when_asked

EPOCHS = 5
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def train_here(words: list[str]) -> NoReturn:
    """Be the process of a command, from the imports to the end."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # as a new program would: Popen waits for it
    try:
        end_when_asked()
        code = train(words)
    except SystemExit as end:
        code = end.code
    atexit._run_exitfuncs()
    os._exit(code)


class Soak:
    """Runs in folders of their own below `folder`, each with the same images."""

    def __init__(self, folder: Path):
        self.folder, self.data = folder, folder / "data"
        write_digits(self.data, val=4, train=8, classes=3)

    def start(self, root: Path, processes: int, draw: Random) -> Job:
        words = command(self.data, root, "--epochs", EPOCHS, "--save-every-minutes", 1e-5)
        gpus = ",".join(["-1"] * processes)
        words += [f"--gpu={gpus}", f"-j{processes * draw.randint(0, 1)}", "--resume", "auto"]
        output, instead = self.folder / "output", partial(train_here, words)
        return Job(output, COMMAND, *words, mark=root, instead=instead)

    def killed(self, root: Path, processes: int, draw: Random) -> bool:
        """Whether a run, started anew, was killed before its end."""
        with self.start(root, processes, draw) as job:
            steps = draw.randint(0, 2 * STEPS)
            while job.steps() < steps and job.process.poll() is None:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.3))
            alive, signum = job.alive(), draw.choice(SIGNALS)
            victims = draw.choice([alive, draw.sample(alive, min(len(alive), 1))])
            for victim in victims:
                with suppress(ProcessLookupError):
                    os.kill(victim, signum)
            code = job.finish()
            assert job.all_gone(60)
            said = f"{processes} processes, {signal.Signals(signum).name} to {len(victims)} of "
            print(f"{said}{len(alive)} after {job.steps()} steps: exit code {code}", flush=True)
            return code != 0

    def whole(self, processes: int) -> Path:
        """Where a run was that nobody disturbed."""
        root = self.folder / f"whole{processes}"
        with self.start(root, processes, Random(0)) as job:
            assert job.finish() == 0, job.err.read_text()
        return root


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main() -> int:
    args = parse_args()
    draw, kills, runs = Random(args.seed), 0, 0
    folder = Path(tempfile.mkdtemp())  # which no copy of this process takes along when it ends
    try:
        soak = Soak(folder)
        whole = {processes: soak.whole(processes) for processes in (1, 2)}
        while kills < args.kills:
            processes = draw.choice([1, 1, 1, 2])  # two take ten times as long
            root = folder / f"killed{runs}"
            while soak.killed(root, processes, draw):
                kills += 1
            assert_same_run(root, whole[processes])
            runs += 1
    finally:
        shutil.rmtree(folder)
    print(f"{kills} kills of {runs} runs: the same as undisturbed, bit for bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
