"""A run folder's checkpoints, and which of them a run goes on from."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..checkpoints import Checkpoint, CheckpointError
from ..errors import UsageError, one_line

LATEST = "checkpoint.pth.tar"
PREVIOUS = "checkpoint_previous.pth.tar"
BEST = "model_best.pth.tar"


class Found(NamedTuple):
    """What a run goes on from, None to start anew, and lines to show of the finding."""

    checkpoint: Checkpoint | None
    notes: list[str]

    def plain(self) -> tuple:
        """As plain values and tensors, which `of` takes: for the other processes."""
        checkpoint = self.checkpoint
        return (checkpoint.path, checkpoint.file, self.notes) if checkpoint else (None, 0, [])

    @classmethod
    def of(cls, path: str | None, file: Any, notes: list[str]) -> "Found":
        return cls(Checkpoint(path, file) if path else None, notes)


NOTHING = Found(None, [])


def kept_checkpoints(folder: str) -> list[str]:
    """The run folder's checkpoints, the one to go on from first."""
    paths = (os.path.join(folder, name) for name in (LATEST, PREVIOUS, BEST))
    return [path for path in paths if os.path.exists(path)]


def find_checkpoint(resume: str | None, folder: str) -> Found:
    """What `--resume` means for a run in `folder`: a file, "auto" for the folder's own, or None.

    "auto" passes over checkpoints that are not whole, and says so. Raises UsageError where a new
    run would overwrite another one's checkpoints, CheckpointError where nothing can be read.
    """
    kept = kept_checkpoints(folder)
    if resume == "auto":
        return _first_whole(kept, folder) if kept else NOTHING
    inside = resume and os.path.realpath(resume).startswith(os.path.realpath(folder) + os.sep)
    if kept and not inside:
        raise UsageError(
            f"{folder} already holds a run; go on with --resume auto, or give another --ckpt"
        )
    return Found(Checkpoint(resume) if resume else None, [])


def changed_options(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> list[str]:
    """A line on the options in which `settings` are not those of the checkpoint's run, if any."""
    try:
        old = dict(json.loads(Path(checkpoint.path).with_name("args.json").read_text()))
    except (OSError, ValueError, TypeError):
        return []
    changed = [
        f"--{name.replace('_', '-')} {value} (was {old[name]})"
        for name, value in settings.items()
        if name in old and old[name] != value and name not in ("resume", "ckpt", "device")
    ]
    return [one_line(f"changed     {', '.join(changed)}")] if changed else []


def _first_whole(paths: list[str], folder: str) -> Found:
    reasons = []
    for path in paths:
        try:
            return Found(Checkpoint(path), [f"passed over  {reason}" for reason in reasons])
        except CheckpointError as error:
            reasons.append(error)
    raise CheckpointError(f"no checkpoint in {folder} is whole; {reasons[0]}")
