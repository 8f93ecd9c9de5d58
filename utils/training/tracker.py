"""A run's numbers for a tracker of experiments: Weights & Biases, MLflow or Trackio."""

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .board import shown

# the tools' own settings, where the user has made none: nothing leaves this machine
SETTINGS = {
    "WANDB_MODE": "offline",
    "WANDB_PROJECT": "simam",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_EXPERIMENT_NAME": "simam",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TRACKIO_PROJECT": "simam",
}


class Tracker:
    """A run of `tool`: "wandb", "mlflow" or "trackio".

    folder: the run folder, which keeps the tracker's name of the run. settings: numbers and
    texts. goes_on: whether the run that was tracked there before goes on, or another begins.
    failed: told of the error that ends the tracking, at most once. Raises UsageError where the
    tool is not there, or does not begin.
    """

    def __init__(
        self,
        tool: str,
        folder: str,
        settings: dict[str, bool | int | float | str],
        goes_on: bool,
        failed: Callable[[Exception], None],
    ):
        self.failed, kept = failed, Path(folder, f"{tool}_run.txt")
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        before = kept.read_text() if goes_on and kept.exists() else None
        begin = {"wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}[tool]
        try:
            run, self.log, self.finish = begin(Path(folder), settings, before)
        except ImportError as error:
            install = f"python -m pip install {tool}"
            raise UsageError(f"--logger {tool}: {error}; {install}") from None
        except Exception as error:  # each tool has its own
            raise UsageError(f"--logger {tool}: {error}") from None
        kept.write_text(run)

    def scalars(self, values: Mapping[str, float | None], seen: int) -> None:
        """Numbers by tag; None for nothing."""
        present = {tag: value for tag, value in values.items() if value is not None}
        self._try(self.log, present, step=seen)

    def close(self) -> None:
        self._try(self.finish)

    def _try(self, say: Callable | None, *arguments, **named) -> None:
        if say:
            try:
                say(*arguments, **named)
            except Exception as error:  # whatever it is, the training is worth more
                self.log = self.finish = None
                self.failed(error)


# the tracker's name of a run, what takes its numbers, and what ends it
Begun = tuple[str, Callable, Callable]


def _wandb(folder: Path, settings: dict[str, Any], before: str | None) -> Begun:
    import wandb

    run = wandb.init(
        id=before or secrets.token_hex(4),
        resume="allow",
        name=shown(folder.name),
        dir=folder,
        config=settings,
        settings=wandb.Settings(console="off"),  # log.txt has it, and it would undo progress bars
    )
    return run.id, run.log, run.finish


def _mlflow(folder: Path, settings: dict[str, Any], before: str | None) -> Begun:
    import mlflow

    run = mlflow.start_run(before, run_name=None if before else shown(folder.name))
    if not before:  # what was said once can't be said otherwise
        mlflow.log_params(settings)
    return run.info.run_id, mlflow.log_metrics, mlflow.end_run


def _trackio(folder: Path, settings: dict[str, Any], before: str | None) -> Begun:
    import trackio

    name = before or f"{shown(folder.name)}-{secrets.token_hex(4)}"
    run = trackio.init(os.environ["TRACKIO_PROJECT"], name, resume="allow", config=settings)
    return name, run.log, run.finish
