"""The learning rate as a pure function of the epoch, or of the iteration."""

import math
from collections.abc import Callable


def lr_at(
    epoch: int,
    epochs: int,
    lr: float,
    cosine: bool = False,
    warmup_epochs: int = 0,
    fraction: float = 1.0,
) -> float:
    """Learning rate in `epoch` (from 0) of `epochs`.

    step: lr * 0.1^(epoch // 30). cosine: 0.5 lr (1 + cos(pi epoch / epochs)). In the first
    `warmup_epochs` epochs that value is scaled up linearly, step by step: `fraction`, in (0, 1],
    is the share of the epoch that ends with the coming step.
    """
    if cosine:
        value = 0.5 * lr * (1 + math.cos(math.pi * epoch / epochs))
    else:
        value = lr * 0.1 ** (epoch // 30)
    if epoch < warmup_epochs:
        value *= (epoch + fraction) / warmup_epochs
    return value


def step_schedule(
    epochs: int, lr: float, cosine: bool, warmup_epochs: int, steps: int
) -> Callable[[int, int], float]:
    """`lr_at` as a function of (epoch, step), for epochs of `steps` steps."""

    def lr_at_step(epoch: int, step: int) -> float:
        return lr_at(epoch, epochs, lr, cosine, warmup_epochs, (step + 1) / steps)

    return lr_at_step


def iteration_schedule(iterations: int, lr: float, steps: int) -> Callable[[int, int], float]:
    """The paper's CIFAR schedule as a function of (epoch, step), for epochs of `steps` steps.

    `lr`, a tenth of it from half of the `iterations` on, a hundredth from three quarters on: of
    64,000, from 32,000 and 48,000. Iterations beyond the last, which complete an epoch, count too.
    """

    def lr_at_step(epoch: int, step: int) -> float:
        done = epoch * steps + step
        return lr * 0.1 ** ((2 * done >= iterations) + (4 * done >= 3 * iterations))

    return lr_at_step
