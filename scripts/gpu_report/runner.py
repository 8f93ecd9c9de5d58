"""Steps of the report: commands that run for so long at most, and what came of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from utils.report.tables import write_json

ROOT = Path(__file__).resolve().parents[2]
JSON = "JSON"  # in a step's command: the file that it writes its rows to
GRACE = 10  # seconds that a step has to save when its time is over


class Step(NamedTuple):
    """`python COMMAND...`, for at most so many seconds; inf: until the rest begins."""

    name: str
    seconds: float
    command: Sequence[str]


class Outcome(NamedTuple):
    """How a step ended. code: its exit code, which says little of one that was stopped."""

    name: str
    seconds: float
    code: int
    stopped: bool
    rows: dict[str, Any]
    said: str


class Running:
    """A step that has been started; its processes are a session of their own."""

    def __init__(self, step: Step, work: Path):
        self.step, self.started = step, time.monotonic()
        self.rows, self.said = (work / f"{step.name}.{end}" for end in ("json", "txt"))
        words = [str(self.rows) if word == JSON else str(word) for word in step.command]
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, *words],
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                start_new_session=True,
            )

    def finish(self, end: float) -> Outcome:
        """Wait for it until `end`, by the clock of time.monotonic, then stop it."""
        limit = min(self.started + self.step.seconds, end - GRACE)
        stopped = not self._ends_by(limit)
        if stopped:
            self._tell(signal.SIGINT)
            self._ends_by(time.monotonic() + GRACE)
        self._tell(signal.SIGKILL)  # whatever it left behind
        code, seconds = self.process.wait(), time.monotonic() - self.started
        rows = {}
        with suppress(OSError, ValueError):
            rows = json.loads(self.rows.read_text())
        said = self.said.read_text(errors="replace")
        return Outcome(self.step.name, round(seconds, 1), code, stopped, rows, said)

    def _ends_by(self, moment: float) -> bool:
        try:
            self.process.wait(max(moment - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            return False
        return True

    def _tell(self, signum: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signum)


def run_together(steps: Sequence[Step], work: Path, end: float) -> Iterator[Outcome]:
    """Run the steps at the same time, in `work`; none goes on beyond `end`."""
    if time.monotonic() < end - GRACE:
        running = [Running(step, work) for step in steps]
        for each in sorted(running, key=lambda each: each.step.seconds):
            yield each.finish(end)


class Findings:
    """What all steps found, printed and written to `folder` after each of them."""

    def __init__(self, folder: Path, about: dict[str, Any]):
        self.folder, self.content = folder, {"about": about, "steps": {}}
        self._say(", ".join(f"{key} {value}" for key, value in about.items()), "w")

    def take(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            how = "stopped" if outcome.stopped else f"exit code {outcome.code}"
            head = f"\n=== {outcome.name}: {outcome.seconds} s, {how}"
            self._say(f"{head}\n{outcome.said}", "a")
            last = {"said": outcome.said[-2000:]}
            self.content["steps"][outcome.name] = outcome._asdict() | last
            write_json(self.content, str(self.folder / "report.json"))

    def _say(self, text: str, mode: str) -> None:
        print(text, flush=True)
        with (self.folder / "report.txt").open(mode) as file:
            file.write(text + "\n")
