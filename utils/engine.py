"""One epoch of training, and evaluation."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from .distributed import Dist
from .metrics import Totals

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
AfterStep = Callable[[int, Totals], None]


class Precision(NamedTuple):
    """Arithmetic of the forward pass on `device_type`: `dtype` under autocast, None for float32."""

    device_type: str
    dtype: torch.dtype | None = None

    @property
    def input_dtype(self) -> torch.dtype:
        return self.dtype or torch.float32

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device_type, self.dtype, enabled=self.dtype is not None)

    def scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.device_type, enabled=self.dtype is torch.float16)


def train_one_epoch(
    model: nn.Module,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    lr_at_step: Callable[[int], float],
    totals: Totals,
    dist: Dist,
    precision: Precision,
    scaler: torch.amp.GradScaler,
    first_step: int = 0,
    after_step: AfterStep = lambda done, totals: None,
) -> dict[str, float]:
    """Train on `batches`, which start at step `first_step` of the epoch; `totals` so far.

    after_step(done, totals) is called with the number of steps done in the epoch. Returns the
    epoch's means over all processes, see `Totals.means`.
    """
    model.train()
    for step, (images, targets) in enumerate(batches, first_step):
        for group in optimizer.param_groups:
            group["lr"] = lr_at_step(step)
        optimizer.zero_grad()
        with precision.autocast():
            logits = model(images)
            loss = F.cross_entropy(logits, targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        totals.add(loss.detach() * len(targets), logits.detach(), targets)
        after_step(step + 1, totals)
    return Totals(dist.sum(totals.sums)).means()


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Batches,
    dist: Dist,
    precision: Precision,
    after_step: AfterStep = lambda done, totals: None,
) -> dict[str, float]:
    """Mean loss and accuracies of `model` over all processes' `batches`, see `Totals.means`.

    Every image counts the same, whatever the batch size and the number of processes.
    """
    model.eval()
    totals = Totals.zero(dist.device)
    for step, (images, targets) in enumerate(batches):
        with precision.autocast():
            logits = model(images).float()
        losses = F.cross_entropy(logits, targets, reduction="none")
        totals.add(losses.double().sum(), logits, targets)
        after_step(step + 1, totals)
    return Totals(dist.sum(totals.sums)).means()
