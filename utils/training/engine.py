"""Steps of training, and evaluation."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.swa_utils import AveragedModel

from ..config import Optim
from ..processes.dist import Dist
from ..recording import Records
from .metrics import Totals

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
AfterStep = Callable[[int, Totals], None]
# what --amp means
DTYPES = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}


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


@dataclass
class Learner:
    """All that a step touches.

    model: wrapped for its processes, see `Dist.wrap`. average: a moving average of its weights,
    brought up to date after each step. norm_every: steps between looks at the gradient's norm,
    None for none. frozen: parts of the network that stay in evaluation. record: replay the steps
    on a GPU, see `Records`; for SGD.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    optim: Optim
    precision: Precision
    dist: Dist
    average: AveragedModel | None = None
    norm_every: int | None = None
    frozen: Sequence[nn.Module] = ()
    record: bool = False

    def __post_init__(self):
        self.scaler, self.records = self.precision.scaler(), Records(self.record)
        if self.record:
            for group in self.optimizer.param_groups:
                lr = group["lr"]  # a number would be recorded as it is now
                group["lr"] = torch.as_tensor(lr, dtype=torch.float32, device=self.dist.device)

    def set_lr(self, lr: float) -> None:
        """The learning rate of the steps from now on; a group's own is `lr_scale` times that."""
        for group in self.optimizer.param_groups:
            own = lr * group.get("lr_scale", 1)
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(own)
            else:
                group["lr"] = own

    def step(self, images: torch.Tensor, targets: torch.Tensor, totals: Totals, look: bool) -> None:
        """Update the weights once, and take the batch into `totals`; look: the norm, too."""
        optimizer, scaler, clip_grad = self.optimizer, self.scaler, self.optim.clip_grad
        optimizer.zero_grad()
        compute_gradients(self, images, targets, totals)
        if look or clip_grad:
            scaler.unscale_(optimizer)
            parameters = [each for each in self.model.parameters() if each.grad is not None]
            norm = get_total_norm([each.grad for each in parameters])
            totals.add_norm(norm)
            if clip_grad:
                clip_grads_with_norm_(parameters, clip_grad, norm)
        scaler.step(optimizer)
        if scaler.is_enabled():
            totals.add_skipped(_found_infinity(scaler, optimizer) / self.dist.world)
        scaler.update()


def train_steps(
    learner: Learner,
    batches: Batches,
    totals: Totals,
    lr_at_step: Callable[[int], float],
    first_step: int = 0,
) -> Iterator[int]:
    """Train on `batches`, which start at step `first_step` of the epoch; `totals` so far.

    Targets are classes (N,), or shares of them (N, classes). After each step it yields how many
    are done in the epoch.
    """
    learner.model.train()
    for module in learner.frozen:
        module.eval()
    for step, (images, targets) in enumerate(batches, first_step):
        learner.set_lr(lr_at_step(step))
        look = bool(learner.norm_every) and (step + 1) % learner.norm_every == 0
        learner.records.call(learner.step, images, targets, totals, look)
        if learner.average is not None:
            learner.average.update_parameters(_unwrapped(learner.model))
        yield step + 1


def compute_gradients(
    learner: Learner, images: torch.Tensor, targets: torch.Tensor, totals: Totals
) -> None:
    """Add the gradient of the batch's mean loss to the weights' own, and the batch to `totals`.

    With `accumulate` the batch is split evenly, never below the two images that batch norm needs.
    """
    model, smoothing = learner.model, learner.optim.label_smoothing
    parts = min(learner.optim.accumulate, max(len(images) // 2, 1))
    shares = zip(images.tensor_split(parts), targets.tensor_split(parts), strict=True)
    for number, (some, their_targets) in enumerate(shares, 1):
        with _silent(model) if number < parts else nullcontext():
            with learner.precision.autocast():
                logits = model(some)
                loss = F.cross_entropy(logits, their_targets, label_smoothing=smoothing)
            learner.scaler.scale(loss * (len(some) / len(images))).backward()
        classes = their_targets if their_targets.dim() == 1 else their_targets.argmax(1)
        totals.add(loss.detach() * len(some), logits.detach(), classes)


def _silent(model: nn.Module) -> AbstractContextManager:
    """Where processes don't exchange gradients yet."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def _unwrapped(model: nn.Module) -> nn.Module:
    wrappers = DistributedDataParallel, nn.DataParallel
    return model.module if isinstance(model, wrappers) else model


def _found_infinity(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    """1 on the device if the step was skipped, else 0; `get_scale` would wait for the device."""
    found = scaler._found_inf_per_device(optimizer)
    return torch.stack(list(found.values())).sum().clamp(max=1)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Batches,
    dist: Dist,
    precision: Precision,
    after_step: AfterStep = lambda done, totals: None,
) -> dict[str, float]:
    """Mean loss and accuracies of `model` over all processes' `batches`, see `Totals.means`.

    Every image counts the same, whatever the batch size and the number of processes. The loss is
    NaN where any output is not finite.
    """
    model.eval()
    totals = Totals.zero(dist.device)
    for step, (images, targets) in enumerate(batches):
        with precision.autocast():
            logits = model(images).float()
        losses = F.cross_entropy(logits, targets, reduction="none")
        losses = losses.where(logits.isfinite().all(1), torch.nan)
        totals.add(losses.double().sum(), logits, targets)
        after_step(step + 1, totals)
    return Totals(dist.sum(totals.sums)).means()
