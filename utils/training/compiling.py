"""torch.compile ahead of the first step, so that its time is not taken for the training's."""

import time
from collections.abc import Iterable

import torch
from torch import nn

from ..processes.dist import Dist
from .engine import Precision, Recipe, compute_gradients
from .metrics import Totals


def warm_up(
    model: nn.Module,
    train_sizes: Iterable[int],
    val_sizes: Iterable[int],
    side: int,
    dist: Dist,
    precision: Precision,
    recipe: Recipe,
) -> float:
    """Compile for batches of these sizes, of `side` x `side` images; returns the seconds it took.

    model: wrapped, its network compiled upon its first call. Weights, batch statistics and the
    random state are as before.
    """
    started = time.perf_counter()
    kept = [buffer.clone() for buffer in model.buffers()]
    on_gpu = [dist.device] if dist.device.type == "cuda" else []
    with torch.random.fork_rng(on_gpu):
        model.train()
        for size in sorted(train_sizes, reverse=True):
            batch = _blank(size, side, dist, precision)
            compute_gradients(
                model, *batch, Totals.zero(dist.device), precision, precision.scaler(), recipe
            )
        model.zero_grad()
        evaluated = dist.for_evaluation(model).eval()
        for size in sorted(val_sizes, reverse=True):
            with torch.no_grad(), precision.autocast():
                evaluated(_blank(size, side, dist, precision)[0])
    for buffer, value in zip(model.buffers(), kept, strict=True):
        buffer.copy_(value)
    if dist.device.type == "cuda":
        torch.cuda.synchronize(dist.device)
    return time.perf_counter() - started


def _blank(
    size: int, side: int, dist: Dist, precision: Precision
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch such as the loaders make, all zeros."""
    images = torch.zeros(size, 3, side, side, dtype=precision.input_dtype, device=dist.device)
    targets = torch.zeros(size, dtype=torch.long, device=dist.device)
    return images.contiguous(memory_format=torch.channels_last), targets
