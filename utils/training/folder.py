"""A run folder's checkpoints, and which of them a run goes on from."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..checkpoints import Checkpoint, CheckpointError
from ..errors import UsageError
from ..processes.dist import Dist

LATEST = "checkpoint.pth.tar"
PREVIOUS = "checkpoint_previous.pth.tar"
BEST = "model_best.pth.tar"
# of what args.json holds, what says nothing of what is learnt, or says it again
ASIDE = (
    *("attention_type", "ckpt", "class_names", "device", "dist_backend", "evaluate", "gpu", "list"),
    *("logger", "name", "num_classes", "parallel", "print_freq", "profile", "real_labels"),
    *("report", "resume", "save_every_minutes", "save_weights", "starts", "subset_outputs", "top"),
    *("tta", "val_images", "workers", "worst"),
)
FIRST = ("arch", "attention", "attention_param", "lr", "batch_size", "epochs")


class Found(NamedTuple):
    """What a run goes on from, None to start anew, and lines to show of the finding."""

    checkpoint: Checkpoint | None
    notes: list[str]


NOTHING = Found(None, [])


def find_checkpoint(resume: str | None, folder: str, dist: Dist) -> Found:
    """What `--resume` means for a run in `folder`: a file, "auto" for the folder's own, or None.

    "auto" passes over checkpoints that are not whole, and says so. Raises UsageError where a new
    run would overwrite another one's checkpoints, CheckpointError where nothing can be read. Only
    the first process reads: the run folder need not be on the other nodes.
    """

    def plain() -> tuple:
        checkpoint, notes = _find(resume, folder)
        return (checkpoint.path, checkpoint.file, notes) if checkpoint else (None, None, notes)

    path, file, notes = dist.from_main(plain)
    return Found(Checkpoint(path, file) if path else None, notes)


def _find(resume: str | None, folder: str) -> Found:
    paths = (os.path.join(folder, name) for name in (LATEST, PREVIOUS, BEST))
    kept = [path for path in paths if os.path.exists(path)]
    if resume == "auto":
        return _first_whole(kept, folder) if kept else NOTHING
    inside = resume and os.path.realpath(resume).startswith(os.path.realpath(folder) + os.sep)
    if kept and not inside:
        raise UsageError(
            f"{folder} already holds a run; go on with --resume auto, or give another --name"
        )
    return Found(Checkpoint(resume) if resume else None, [])


def settings_beside(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the args.json in the checkpoint's folder holds, an empty list of "starts" where it is
    of an earlier version; {} where there is none."""
    try:
        settings = json.loads(Path(checkpoint.path).with_name("args.json").read_text())
        return {**settings, "starts": list(settings.get("starts", []))}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def changed_options(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The options of both with other values: the old and the new one of each."""
    return {
        name: (old[name], value)
        for name, value in new.items()
        if name in old and old[name] != value and name not in ("resume", "ckpt", "name", "device")
    }


def telling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of an args.json that tell runs apart, what people look at first."""
    names = [*FIRST, *(name for name in settings if name not in FIRST + ASIDE)]
    return {name: settings[name] for name in names if name in settings}


def _first_whole(paths: list[str], folder: str) -> Found:
    reasons = []
    for path in paths:
        try:
            return Found(Checkpoint(path), [f"passed over  {reason}" for reason in reasons])
        except CheckpointError as error:
            reasons.append(error)
    raise CheckpointError(f"no checkpoint in {folder} is whole; {reasons[0]}")
