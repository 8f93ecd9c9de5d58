"""Runs that trained all of their epochs, read from their folders."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..disk import read_entries


@dataclass(frozen=True)
class FinishedRun:
    """settings: what its args.json holds. epochs: an entry each, as in its metrics.jsonl."""

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


def read_finished(folder: str) -> FinishedRun | None:
    """The run in `folder`; None where there is none, or it is not finished."""
    try:
        settings = json.loads(Path(folder, "args.json").read_text())
        epochs = read_entries(Path(folder, "metrics.jsonl"))
    except (OSError, ValueError):
        return None
    if not isinstance(settings, dict) or settings.get("epochs") != len(epochs):
        return None
    if not all(epoch.keys() >= {"val_acc1", "val_acc5"} for epoch in epochs):
        return None
    return FinishedRun(folder, settings, epochs)
