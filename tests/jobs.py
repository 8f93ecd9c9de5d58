"""Commands in processes of their own, that tests watch and kill."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT

COMMAND = str(ROOT / "main_imagenet.py")
STEP = re.compile(r"^Epoch \d+/\d+ \[ *\d+/\d+\]", re.MULTILINE)


def torchrun(processes: int, *options: str) -> list[str]:
    launcher = "torch.distributed.run"
    return ["-m", launcher, "--standalone", f"--nproc-per-node={processes}", *options]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class Job:
    """`python ...` in a session of its own; output in files. Leaving the context kills it all.

    It finds the checkout's modules and those of the tests. mark: a text in the command lines of
    those of its processes that leave the session, and of no others. wrapper: a command that runs
    it. instead: called, once all else is as it will be, in the place of a new Python.
    """

    def __init__(
        self,
        folder: Path,
        *command: str,
        mark: Path,
        wrapper: tuple[str, ...] = (),
        instead: Callable[[], None] | None = None,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.iterdir()))
        self.out, self.err = (folder / f"{number}.{name}" for name in ("out", "err"))
        self.mark = str(mark)
        found = {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "PYTHONWARNINGS": "ignore",
            "PYTHONFAULTHANDLER": "1",  # for `stopped_where`
        }
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [*wrapper, sys.executable, *map(str, command)],
                stdout=out,
                stderr=err,
                start_new_session=True,
                env=os.environ | found,
                preexec_fn=instead,
            )

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_exception) -> None:
        for pid in self.alive():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def steps(self) -> int:
        return len(STEP.findall(self.out.read_text()))

    def wait_until(self, condition, seconds: float = 300) -> None:
        """Wait while the job runs; fails when it ended, or after `seconds`, without it."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"ended early\n{self.said()}"
            assert time.monotonic() < end, f"never came\n{self.stopped_where()}"
            time.sleep(0.01)

    def after_steps(self, steps: int) -> "Job":
        self.wait_until(lambda: self.steps() >= steps)
        return self

    def finish(self, seconds: float = 300) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"never ended\n{self.stopped_where()}")

    def said(self) -> str:
        return f"{self.out.read_text()}\n{self.err.read_text()}"

    def stopped_where(self) -> str:
        """What it said, and the line at which each of its processes hung; they are gone then."""
        for pid in self.alive():
            os.kill(pid, signal.SIGABRT)
        self.process.wait()
        return self.said()

    def last_line(self) -> str:
        return self.err.read_text().strip().splitlines()[-1]

    def alive(self) -> list[int]:
        """The job's processes that still run; zombies don't."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            pid = int(folder.name)
            with suppress(OSError):
                command = (folder / "cmdline").read_bytes().decode(errors="replace")
                own = self.mark in command or (command and os.getsid(pid) == self.process.pid)
                if own and pid != os.getpid():
                    found.append(pid)
        return found

    def ranks(self) -> list[int]:
        """Process ids, by rank, of the processes that the launcher runs just now."""
        found = {}
        for pid in self.alive():
            with suppress(OSError):
                environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                rank = [int(entry[5:]) for entry in environ if entry.startswith(b"RANK=")]
                if rank and parent_of(pid) == self.process.pid:
                    found[rank[0]] = pid
        return [found[rank] for rank in sorted(found)]

    def all_gone(self, seconds: float = 20) -> bool:
        """Whether no process is left; loader workers take some seconds to notice."""
        end = time.monotonic() + seconds
        while self.alive() and time.monotonic() < end:
            time.sleep(0.1)
        return not self.alive()
