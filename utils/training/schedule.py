"""The learning rate as a pure function of epoch and step."""

import math

from ..config import Optim


def lr_at(optim: Optim, epoch: int, step: int = 0, steps: int = 1) -> float:
    """Learning rate at `step` (from 0) of the `steps` of `epoch` (from 0).

    "step": lr * 0.1^(epoch // 30). "cosine": 0.5 lr (1 + cos(pi epoch / epochs)). In the first
    `warmup_epochs` epochs that value is scaled up linearly, step by step. "iterations", the
    paper's on CIFAR: lr, a tenth of it from half of all iterations on, a hundredth from three
    quarters on; iterations beyond the last, which complete an epoch, count too.
    """
    if optim.sched == "iterations":
        done = epoch * steps + step
        drops = (2 * done >= optim.iterations) + (4 * done >= 3 * optim.iterations)
        return optim.lr * 0.1**drops
    if optim.sched == "cosine":
        value = 0.5 * optim.lr * (1 + math.cos(math.pi * epoch / optim.epochs))
    else:
        value = optim.lr * 0.1 ** (epoch // 30)
    if epoch < optim.warmup_epochs:
        value *= (epoch + (step + 1) / steps) / optim.warmup_epochs
    return value
