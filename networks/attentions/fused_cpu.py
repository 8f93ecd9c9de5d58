"""The walks of `fused.py` on the CPU, by the C kernels of `simam.c`.

Every tensor of a map's shape has x's strides. stats: numbers per image and channel, (8, N, C), or
(2, N, C) without those of y; sums: P0 to P3, (4, N, C); all float32. range: where `act` cuts z off.
"""

import torch

from . import native
from .native import APPLY, MEASURE, MOMENTS, SLOPES, SUMS


def _walk(x: torch.Tensor, steps: int, norm, range: tuple[float, float], **fields) -> None:
    low, high = range
    job = native.job(x, low=low, high=high, **norm._asdict(), **fields)
    native.library().simam_walk(job, steps)


def measure(x: torch.Tensor, e_lambda: float) -> torch.Tensor:
    """Training's first walk: the stats of x and y."""
    stats = x.new_empty((8, *x.shape[:2]), dtype=torch.float32)
    job = native.job(x, stats=stats, e_lambda=e_lambda)
    native.library().simam_walk(job, MEASURE | MOMENTS)
    return stats


def batch_moments(x: torch.Tensor, stats: torch.Tensor) -> torch.Tensor:
    """Per channel, y's mean and its squared distances from it: (2, C), float64."""
    found = x.new_empty((2, x.shape[1]), dtype=torch.float64)
    mean, squares = (row.data_ptr() for row in found)
    native.library().simam_batch_moments(native.job(x, stats=stats), mean, squares)
    return found


def apply(x, residual, stats, norm, range) -> torch.Tensor:
    """Training's second walk: the result."""
    out = torch.empty_like(x)
    _walk(x, APPLY, norm, range, residual=residual, stats=stats, out=out)
    return out


def infer(x, residual, e_lambda, norm, range) -> tuple[torch.Tensor, torch.Tensor]:
    """The result and the stats of x, where those of y are not asked for: one walk."""
    out, stats = torch.empty_like(x), x.new_empty((2, *x.shape[:2]), dtype=torch.float32)
    fields = {"residual": residual, "stats": stats, "out": out, "e_lambda": e_lambda}
    _walk(x, MEASURE | APPLY, norm, range, **fields)
    return out, stats


def sum_gradients(grad, x, stats, norm, range) -> torch.Tensor:
    """The backward pass's first walk: the sums."""
    sums = stats.new_empty((4, *x.shape[:2]))
    _walk(x, SUMS, norm, range, grad=grad, stats=stats, sums=sums)
    return sums


def batch_gradients(x: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    """The gradients of beta and gamma: (2, C), float64."""
    found = x.new_empty((2, x.shape[1]), dtype=torch.float64)
    beta, gamma = (row.data_ptr() for row in found)
    native.library().simam_batch_gradients(native.job(x, sums=sums), beta, gamma)
    return found


def slopes(grad, x, stats, sums, k, norm, range) -> torch.Tensor:
    """The backward pass's second walk: dx. k: k0 and k1, (2, C)."""
    dx = torch.empty_like(x)
    fields = {"grad": grad, "stats": stats, "sums": sums, "k0": k[0], "k1": k[1], "out": dx}
    _walk(x, SLOPES, norm, range, **fields)
    return dx


def frozen_backward(grad, x, stats, norm, range) -> tuple[torch.Tensor, torch.Tensor]:
    """dx and the sums behind `infer`: one walk."""
    dx, sums = torch.empty_like(x), stats.new_empty((4, *x.shape[:2]))
    _walk(x, SUMS | SLOPES, norm, range, grad=grad, stats=stats, sums=sums, out=dx)
    return dx, sums
