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


def _count(value: Any, below: int = 2**31) -> bool:
    return type(value) is int and 0 <= value < below


def _word(value: Any) -> bool:
    return isinstance(value, str)


def _amount(value: Any) -> bool:
    return _count(value, 2**53) or (type(value) is float and 0 <= value < math.inf)


def _amounts(*names: str) -> Callable[[Any], bool]:
    return lambda value: _holds(value, *names) and all(map(_amount, value.values()))


def _holds(value: Any, *names: str) -> bool:
    return isinstance(value, Mapping) and value.keys() >= {*names}


def _optimizer(value: Any) -> bool:
    if not (_holds(value, "state", "param_groups") and isinstance(value["param_groups"], list)):
        return False
    groups = all(
        _holds(group, "params")
        and isinstance(group["params"], list)
        and all(map(_count, group["params"]))
        for group in value["param_groups"]
    )
    return groups and _holds(value["state"]) and all(map(_holds, value["state"].values()))


def _accuracy(value: Any) -> bool:
    """In percent; minus infinity before there is one."""
    return type(value) in (int, float) and (0 <= value <= 100 or value == -math.inf)


def _scaler(value: Any) -> bool:
    new = torch.amp.GradScaler("cpu").state_dict()
    types = _amounts(*new)(value) and all(type(value[name]) is type(new[name]) for name in new)
    return types or value == {}  # that of a training without one


def _random_state(value: Any, device: str = "cpu") -> bool:
    try:
        torch.Generator(device).set_state(value)
    except (TypeError, RuntimeError):
        return False
    return True


# what entries must be that a run goes on with, in a file that anybody may have made
FITS = {
    "seed": lambda value: _count(value, 2**63),
    "dataset": _word,
    "arch": _word,
    "attention": _word,
    "attention_param": lambda value: value is None or _amount(value),
    "iterations": lambda value: value is None or _count(value),
    "batch_size": _count,
    "images": _count,
    "decoder": _word,
    "checksum": lambda value: value is None or _word(value),
    "epoch": _count,
    "step": _count,
    "best_acc1": _accuracy,
    "seconds": _amount,
    "counters": _amounts(*Totals.NAMES),
    "optimizer": _optimizer,
    "scaler": _scaler,
    "rng": _random_state,
    "cuda_rng": lambda value: (
        value is None or not torch.cuda.is_available() or _random_state(value, "cuda")
    ),
    "ema_updates": _count,
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
    def of(cls, content: Mapping[str, Any]) -> "State":
        """That in the content of a checkpoint of ours, `checked`."""
        return cls(
            **{each.name: content[each.name] for each in fields(cls) if each.name in content}
        )


def checked(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint of ours holds, also of an earlier version.

    Raises CheckpointError for a file without the state of a training, and where an entry is not
    what `FITS` says.
    """
    content = dict(checkpoint.content)
    sums = content.get("sums")
    if isinstance(sums, list) and len(sums) == len(Totals.NAMES):
        content["counters"] = dict(zip(Totals.NAMES, sums, strict=True))
    anew = f"to start a new training from its weights: --weights {checkpoint.path}"
    if {each.name for each in fields(State)} - content.keys() - {"ema_updates"}:
        raise checkpoint.refusal(f"holds weights but no training state; {anew}")
    odd = [name for name in FITS if name in content and not FITS[name](content[name])]
    if odd:
        raise checkpoint.refusal(f"is damaged: its {odd[0]} is no such thing; {anew}")
    return content
