"""Runs, read from the args.json and metrics.jsonl in their folders."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..disk import read_entries
from ..errors import UsageError

WANTED = ("epoch", "train_loss", "val_loss", "train_acc1", "val_acc1")


@dataclass(frozen=True)
class PastRun:
    """settings: what its args.json holds, {} without one. epochs: those that were
    evaluated, one at least, an entry each as in its metrics.jsonl."""

    folder: str
    settings: Mapping[str, Any]
    epochs: list[Mapping[str, float]]

    def has(self, wanted: Mapping[str, Any]) -> bool:
        """Whether it has these settings; where not, a line on standard error says so."""
        for name, value in wanted.items():
            own = self.settings.get(name)
            if own != value:
                note = f"passed over {self.folder}: its {name} is {own}, not {value}"
                print(note, file=sys.stderr, flush=True)
                return False
        return True


def read_run(folder: str) -> PastRun:
    """The run in `folder`; raises UsageError where no epoch of one can be read there."""
    path = os.path.join(folder, "metrics.jsonl")
    try:
        epochs = read_entries(path)
    except OSError as error:
        raise UsageError(
            f"can't read {path} ({error.strerror}); is {folder} a run folder?"
        ) from None
    if not epochs:
        raise UsageError(f"{path} holds no epoch: the run has not finished one")
    if not all(isinstance(epoch.get(name), int | float) for epoch in epochs for name in WANTED):
        raise UsageError(f"{path} is of no run: not every line has numbers {', '.join(WANTED)}")
    try:
        settings = json.loads(Path(folder, "args.json").read_text())
    except (OSError, ValueError):
        settings = {}
    return PastRun(folder, settings if isinstance(settings, dict) else {}, epochs)


def read_finished(folder: str) -> PastRun | None:
    """The run in `folder`; None where there is none, or it did not train all of its epochs."""
    try:
        run = read_run(folder)
    except UsageError:
        return None
    return run if run.settings.get("epochs") == run.epochs[-1]["epoch"] + 1 else None


def labels(folders: Sequence[str]) -> Sequence[str]:
    """The folders' names, or their whole paths where two have the same name."""
    names = [os.path.basename(os.path.abspath(folder)) for folder in folders]
    return names if len(set(names)) == len(names) else folders
