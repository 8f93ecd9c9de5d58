"""What a checkpoint of a run holds besides the weights, for the training to go on from any step."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from ..checkpoints import Checkpoint
from ..config import Config
from ..data.preparation import Preparation
from .metrics import Totals

VERSION = 2  # 1 had the counters as a list "sums"


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What a run's checkpoints say of its images.

    classes: names of the class folders. images, val_images: how many. decoder: see `open_image`.
    checksum: what other images would change, where it is known.
    """

    classes: list[str]
    images: int
    val_images: int
    preparation: Preparation
    decoder: str = "none"
    checksum: str | None = None


def facts_of(config: Config, data: DataFacts) -> dict[str, Any]:
    """What a run's checkpoints say of it besides its state, as plain values."""
    facts = asdict(config.network) | vars(data) | {"preparation": data.preparation._asdict()}
    return facts | {
        "dataset": config.dataset,
        "seed": config.machine.seed,
        "iterations": config.optim.iterations,
    }


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a training stands: epochs done, steps of the current one, the best top-1 (percent),
    seconds and counters of the epoch so far, and the state of everything that has one."""

    epoch: int
    step: int
    best_acc1: float
    seconds: float
    counters: Mapping[str, float]
    optimizer: Mapping[str, Any]
    scaler: Mapping[str, Any]
    rng: torch.Tensor
    cuda_rng: torch.Tensor | None
    ema_updates: int = 0

    def content(self) -> dict[str, Any]:
        """What `of` reads."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {"version": VERSION, **values}

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "State":
        """That of a checkpoint of ours, also of an earlier version; raises CheckpointError for
        another file."""
        content = dict(checkpoint.content)
        if len(content.get("sums", ())) == len(Totals.NAMES):
            content["counters"] = dict(zip(Totals.NAMES, content["sums"], strict=True))
        known = {each.name: content[each.name] for each in fields(cls) if each.name in content}
        if {each.name for each in fields(cls)} - known.keys() - {"ema_updates"}:
            raise checkpoint.refusal(
                "holds weights but no training state; "
                f"to start a new training from them: --weights {checkpoint.path}"
            )
        return cls(**known)
