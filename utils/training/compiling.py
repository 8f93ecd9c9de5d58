"""torch.compile ahead of the first step, so that its time is not taken for the training's."""

import time
from collections.abc import Iterable
from dataclasses import replace

import torch

from .engine import Learner, compute_gradients
from .metrics import Totals


def warm_up(
    learner: Learner, train_sizes: Iterable[int], val_sizes: Iterable[int], side: int
) -> float:
    """Compile for batches of these sizes, of `side` x `side` images; returns the seconds it took.

    The learner's network is compiled upon its first call. Weights, batch statistics and the random
    state are as before.
    """
    started = time.perf_counter()
    model, dist = learner.model, learner.dist
    trying = replace(learner)  # its scaler is another
    kept = [buffer.clone() for buffer in model.buffers()]
    on_gpu = [dist.device] if dist.device.type == "cuda" else []
    with torch.random.fork_rng(on_gpu):
        model.train()
        for size in sorted(train_sizes, reverse=True):
            batch = _blank(learner, size, side)
            compute_gradients(trying, *batch, Totals.zero(dist.device))
        model.zero_grad()
        evaluated = dist.for_evaluation(model).eval()
        for size in sorted(val_sizes, reverse=True):
            with torch.no_grad(), learner.precision.autocast():
                evaluated(_blank(learner, size, side)[0])
    for buffer, value in zip(model.buffers(), kept, strict=True):
        buffer.copy_(value)
    if dist.device.type == "cuda":
        torch.cuda.synchronize(dist.device)
    return time.perf_counter() - started


def _blank(learner: Learner, size: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch such as the loaders make, all zeros."""
    device, dtype = learner.dist.device, learner.precision.input_dtype
    images = torch.zeros(size, 3, side, side, dtype=dtype, device=device)
    targets = torch.zeros(size, dtype=torch.long, device=device)
    return images.contiguous(memory_format=torch.channels_last), targets
