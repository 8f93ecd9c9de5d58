"""The walks of `fused.py` on the CPU, by the C kernels of `simam.c`.

Every tensor of a map's shape has x's strides. stats: numbers per image and channel, (8, N, C), or
(2, N, C) without those of y; sums: P0 to P3, (4, N, C); all float32.
"""

import torch

from .native import APPLY, MEASURE, MOMENTS, SLOPES, SUMS, walk


def measure(x: torch.Tensor, e_lambda: float) -> torch.Tensor:
    """Training's first walk: the stats of x and y."""
    stats = x.new_empty((8, *x.shape[:2]), dtype=torch.float32)
    walk(x, MEASURE | MOMENTS, stats=stats, e_lambda=e_lambda)
    return stats


def apply(x, residual, stats, behind) -> torch.Tensor:
    """Training's second walk: the result."""
    out = torch.empty_like(x)
    walk(x, APPLY, residual=residual, stats=stats, out=out, **behind._asdict())
    return out


def infer(x, residual, e_lambda, behind) -> tuple[torch.Tensor, torch.Tensor]:
    """The result and the stats of x, where those of y are not asked for: one walk."""
    out, stats = torch.empty_like(x), x.new_empty((2, *x.shape[:2]), dtype=torch.float32)
    fields = {"residual": residual, "stats": stats, "out": out, "e_lambda": e_lambda}
    walk(x, MEASURE | APPLY, **fields, **behind._asdict())
    return out, stats


def sum_gradients(grad, x, stats, behind) -> torch.Tensor:
    """The backward pass's first walk: the sums."""
    sums = stats.new_empty((4, *x.shape[:2]))
    walk(x, SUMS, grad=grad, stats=stats, sums=sums, **behind._asdict())
    return sums


def slopes(grad, x, stats, sums, k, behind) -> torch.Tensor:
    """The backward pass's second walk: dx. k: k0 and k1, (2, C)."""
    dx = torch.empty_like(x)
    fields = {"grad": grad, "stats": stats, "sums": sums, "k0": k[0], "k1": k[1], "out": dx}
    walk(x, SLOPES, **fields, **behind._asdict())
    return dx


def frozen_backward(grad, x, stats, behind) -> tuple[torch.Tensor, torch.Tensor]:
    """dx and the sums behind `infer`: one walk."""
    dx, sums = torch.empty_like(x), stats.new_empty((4, *x.shape[:2]))
    fields = {"grad": grad, "stats": stats, "sums": sums, "out": dx}
    walk(x, SUMS | SLOPES, **fields, **behind._asdict())
    return dx, sums
