"""SimAM on the CPU: C kernels where the system has a compiler, else plain PyTorch.

The kernels walk over a few channels at a time, which stay in cache between the look that measures
and the one that writes. Plain PyTorch takes a block of the map at a time: over a whole feature map
each of the formula's dozen operations reads and writes main memory. Over a block of 2 MB they run
in cache and in place, on all cores, and the closed form replaces autograd's backward. `simam.py`
holds the mathematics, and names the variables used here.
"""

import math
from collections.abc import Iterator

import torch

from . import native

# Elements. Measured from 2^16 to 2^20 on two cores with 1 MB of second-level cache each: smaller
# blocks lose more to the start of their dozen operations than they gain, larger ones leave cache.
BLOCK = 2**19


def as_rows(x: torch.Tensor) -> torch.Tensor:
    """View x as (rows, positions, lanes), whose statistics run over dimension 1.

    x: contiguous -> (N * C, M, 1), or channels-last -> (N, M, C).
    """
    batch, channels, *spatial = x.shape
    if x.is_contiguous():
        return x.view(batch * channels, math.prod(spatial), 1)
    return x.movedim(1, -1).view(batch, math.prod(spatial), channels)


def blocks(*rows: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Walk the tensors along dimension 0 together, about BLOCK elements of the first at a time."""
    if rows[0].numel() <= 2 * BLOCK:
        return iter((rows,))  # views would cost a small map more than leaving the cache does
    step = max(BLOCK // math.prod(rows[0].shape[1:]), 1)
    return zip(*(each.split(step) for each in rows), strict=True)


def _has_kernels(x: torch.Tensor) -> bool:
    return x.dtype in native.TYPES and native.library() is not None


def forward(x: torch.Tensor, e_lambda: float) -> tuple[torch.Tensor, torch.Tensor]:
    """y and the statistics (2, N, C) that `backward` takes: the mean, and a."""
    y = torch.empty_like(x)
    wide = torch.promote_types(x.dtype, torch.float32)
    stats = x.new_empty((2, *x.shape[:2]), dtype=wide)
    if not x.numel():
        return y, stats
    if _has_kernels(x):
        native.walk(x, native.MEASURE | native.APPLY, out=y, stats=stats, e_lambda=e_lambda)
        return y, stats
    rows, out = as_rows(x), as_rows(y)
    means, scales = stats.view(2, len(rows), 1, rows.shape[2])
    m = rows.shape[1]
    n = max(m - 1, 1)
    for x_b, y_b, mean, a in blocks(rows, out, means, scales):
        x_b = x_b.to(wide)
        torch.mean(x_b, 1, keepdim=True, out=mean)
        # in float32 the block of y is the scratch memory too: a block touched is a block in cache
        s = torch.sub(x_b, mean, out=y_b if y_b.dtype == wide else None)
        s.mul_(s)
        torch.sum(s, 1, keepdim=True, out=a).mul_(4 / n).add_(4 * e_lambda).reciprocal_()
        s.mul_(a).add_(0.5).sigmoid_()
        torch.mul(x_b, s, out=y_b)
    return y, stats


def backward(grad: torch.Tensor, x: torch.Tensor, stats: torch.Tensor) -> torch.Tensor:
    """dx for the gradient of y, in x's layout.

    With z = d sqrt(a) the closed form needs no division:
    dx = g s + 2 sqrt(a) (h z - sum(h z) / M - z 4 sum(h z^2) / n).
    """
    dx = torch.empty_like(x)
    wide = stats.dtype
    if not x.numel():
        return dx
    if _has_kernels(x):
        native.walk(x, native.SUMS | native.SLOPES, out=dx, grad=grad, stats=stats)
        return dx
    rows, grads, out = as_rows(x), as_rows(grad), as_rows(dx)
    means, scales = stats.view(2, len(rows), 1, rows.shape[2])
    roots = scales.sqrt()
    half = roots.new_full((), 0.5)
    m = rows.shape[1]
    n = max(m - 1, 1)
    for x_b, g_b, dx_b, mean, root in blocks(rows, grads, out, means, roots):
        x_b, g_b = x_b.to(wide), g_b.to(wide)
        z = torch.sub(x_b, mean).mul_(root)
        s = torch.addcmul(half, z, z, out=dx_b if dx_b.dtype == wide else None).sigmoid_()
        hz = torch.mul(g_b, x_b)
        torch.ops.aten.sigmoid_backward.grad_input(hz, s, grad_input=hz).mul_(z)
        mean_hz = hz.mean(1, keepdim=True)
        slope = torch.mul(hz, z).sum(1, keepdim=True).mul_(4 / n)
        hz.sub_(z.mul_(slope).add_(mean_hz)).mul_(2 * root)
        torch.addcmul(hz, s, g_b, out=dx_b)
    return dx
