"""What a checkpoint of a run holds besides the weights, for the training to go on from any step."""

import math
from collections.abc import Callable, Mapping
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


def _counts(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _number(value: Any) -> bool:
    return type(value) in (int, float) and not math.isnan(value)


def _mapping(*names: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Mapping) and value.keys() >= {*names}


def _random_state(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype is torch.uint8 and value.dim() == 1


# what each entry of a `State` must be, in a file that anybody may have made
FITS = {
    "epoch": _counts,
    "step": _counts,
    "best_acc1": _number,
    "seconds": _number,
    "counters": lambda value: _mapping(*Totals.NAMES)(value) and all(map(_number, value.values())),
    "optimizer": _mapping("state", "param_groups"),
    "scaler": _mapping(),
    "rng": _random_state,
    "cuda_rng": lambda value: value is None or _random_state(value),
    "ema_updates": _counts,
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
        odd = [name for name, value in known.items() if not FITS[name](value)]
        if odd:
            raise checkpoint.refusal(
                f"is damaged: its {odd[0]} is no such thing; to start a new training from its "
                f"weights: --weights {checkpoint.path}"
            )
        if {each.name for each in fields(cls)} - known.keys() - {"ema_updates"}:
            raise checkpoint.refusal(
                "holds weights but no training state; "
                f"to start a new training from them: --weights {checkpoint.path}"
            )
        return cls(**known)
