"""Which checkpoint a run goes on from."""

import os
from typing import Any

from ..checkpoints.files import CheckpointError, read_file
from ..errors import UsageError

LATEST = "checkpoint.pth.tar"
PREVIOUS = "checkpoint_previous.pth.tar"
BEST = "model_best.pth.tar"


def run_name(dataset: str, arch: str, attention: str, param: float | None, seed: int | None) -> str:
    """What a run's folder is called: DATASET-ARCH[-ATTENTION-paramP][-seedS]"""
    name = f"{dataset}-{arch}"
    if attention != "none":
        name += f"-{attention}"
    if param is not None:
        name += f"-param{param:g}"
    return name if seed is None else f"{name}-seed{seed}"


def kept_checkpoints(folder: str) -> list[str]:
    """The run folder's checkpoints, the one to go on from first."""
    paths = (os.path.join(folder, name) for name in (LATEST, PREVIOUS, BEST))
    return [path for path in paths if os.path.exists(path)]


def find_resume(resume: str | None, folder: str) -> str | None:
    """The path that `--resume` means for a run in `folder`; None to start anew.

    Raises UsageError where a new run would overwrite another one's checkpoints.
    """
    kept = kept_checkpoints(folder)
    if not kept:
        return None if resume == "auto" else resume
    if resume == "auto":
        return kept[0]
    if resume is None or not os.path.realpath(resume).startswith(os.path.realpath(folder) + os.sep):
        raise UsageError(
            f"{folder} already holds a run; go on with --resume auto, or give another --ckpt"
        )
    return resume


def read_resume(resume: str | None, folder: str) -> tuple[str | None, Any, list[str]]:
    """The path that `find_resume` finds, its content (empty to start anew), and lines to show.

    "auto" passes over checkpoints that are not whole, and says so. Raises CheckpointError where
    nothing can be read.
    """
    path = find_resume(resume, folder)
    if path is None:
        return None, {}, []
    if resume != "auto":
        return path, read_file(path), []
    notes = []
    for path in kept_checkpoints(folder):
        try:
            return path, read_file(path), notes
        except CheckpointError as error:
            notes.append(f"passed over  {error}")
    raise CheckpointError(f"no checkpoint in {folder} is whole; {notes[0].split('  ', 1)[1]}")
