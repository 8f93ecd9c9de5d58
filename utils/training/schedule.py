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


def scaling_hint(optim: Optim, batch_size: int) -> list[str]:
    """A line for the log where SGD's learning rate is four times off, or more, that of linear
    scaling: 0.1 for 256 images a step (Goyal et al. 2017). A lower one is told of large batches
    only: fine-tuning wants it."""
    scaled = 0.1 * batch_size / 256
    low = batch_size >= 1024 and optim.lr <= scaled / 4
    if optim.optimizer != "sgd" or not (low or optim.lr >= 4 * scaled):
        return []
    why = "" if low else ", and more may make the loss explode"
    return [
        f"hint        --lr {optim.lr:g} for {batch_size} images a step: linear scaling, from 0.1 "
        f"for 256, gives {scaled:.3g}{why}"
    ]
