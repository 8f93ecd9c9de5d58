"""`fused.py`'s walks on the CPU, by the C kernels of `simam.c`.

Every tensor of a map's shape has x's strides; stats is (8, N, C), sums (4, N, C), table (6, C).
"""

import torch

from . import native
from .native import APPLY, MEASURE, MOMENTS, SLOPES, SUMS


def _walk(x: torch.Tensor, steps: int, act: tuple[float, float], **settings) -> None:
    native.library().simam_walk(native.job(x, low=act[0], high=act[1], **settings), steps)


def measure(x, e_lambda) -> torch.Tensor:
    """Training's first walk: the statistics of x and y."""
    stats = x.new_empty((8, *x.shape[:2]), dtype=torch.float32)
    _walk(x, MEASURE | MOMENTS, (0, 0), stats=stats, e_lambda=e_lambda)
    return stats


def batch_moments(x, stats) -> torch.Tensor:
    """Per channel, y's mean and its squared distances from it: (2, C) in float64."""
    found = x.new_empty((2, x.shape[1]), dtype=torch.float64)
    mean, squares = (row.data_ptr() for row in found)
    native.library().simam_batch_moments(native.job(x, stats=stats), mean, squares)
    return found


def apply(x, residual, act, stats, table) -> torch.Tensor:
    """Training's second walk."""
    out = torch.empty_like(x)
    _walk(x, APPLY, act, residual=residual, stats=stats, table=table, out=out)
    return out


def infer(x, residual, act, e_lambda, table) -> tuple[torch.Tensor, torch.Tensor]:
    """The result and x's statistics (2, N, C), where y's need not be known: one walk."""
    out, stats = torch.empty_like(x), x.new_empty((2, *x.shape[:2]), dtype=torch.float32)
    settings = {"residual": residual, "stats": stats, "table": table, "out": out}
    _walk(x, MEASURE | APPLY, act, e_lambda=e_lambda, **settings)
    return out, stats


def sum_gradients(grad, x, act, stats, table) -> torch.Tensor:
    """The backward pass's first walk: P0 to P3."""
    sums = stats.new_empty((4, *x.shape[:2]))
    _walk(x, SUMS, act, grad=grad, stats=stats, sums=sums, table=table)
    return sums


def batch_gradients(x, sums) -> torch.Tensor:
    """The gradients of beta and gamma: (2, C) in float64."""
    found = x.new_empty((2, x.shape[1]), dtype=torch.float64)
    beta, gamma = (row.data_ptr() for row in found)
    native.library().simam_batch_gradients(native.job(x, sums=sums), beta, gamma)
    return found


def slopes(grad, x, act, stats, sums, table) -> torch.Tensor:
    """The backward pass's second walk: dx."""
    dx = torch.empty_like(x)
    settings = {"grad": grad, "stats": stats, "sums": sums, "table": table, "out": dx}
    _walk(x, SLOPES, act, batch=True, **settings)
    return dx


def frozen_backward(grad, x, act, stats, table) -> tuple[torch.Tensor, torch.Tensor]:
    """dx and P0 to P3 behind `infer`: one walk."""
    dx, sums = torch.empty_like(x), stats.new_empty((4, *x.shape[:2]))
    settings = {"grad": grad, "stats": stats, "sums": sums, "table": table, "out": dx}
    _walk(x, SUMS | SLOPES, act, **settings)
    return dx, sums
