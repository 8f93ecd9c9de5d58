"""SimAM, the attention module without parameters (Yang et al., ICML 2021)."""

import math

import torch
from torch import nn


def simam(x: torch.Tensor, e_lambda: float = 1e-4) -> torch.Tensor:
    """Weigh every neuron of `x` by the inverse of its minimal energy (Eq. 5 and 6).

    With n = max(M - 1, 1) for the M positions of a channel, d = x - mean and v = sum(d^2) / n:
    the output is x * sigmoid(d^2 / (4 (v + e_lambda)) + 1/2). The paper divides by M, the code
    that trained its released weights by M - 1; this is the code's choice.

    x: (N, C, *spatial), one to three spatial dimensions, any float dtype -> same shape, dtype.
    The statistics are float32 at least: half-precision sums over a large map overflow, and the
    attention would silently become a constant.
    """
    dims = tuple(range(2, x.dim()))
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    d2 = (wide - wide.mean(dims, keepdim=True)).square()
    v = d2.sum(dims, keepdim=True) / max(math.prod(x.shape[2:]) - 1, 1)
    return (wide * torch.sigmoid(d2 / (4 * (v + e_lambda)) + 0.5)).to(x.dtype)


class SimAM(nn.Module):
    """`simam` as a module; it has no parameters and no buffers.

    channels: ignored, every attention module takes it first. e_lambda: the regulariser of the
    energy, 1e-4 for CIFAR and 0.1 for ImageNet and COCO in the paper; ValueError unless positive.
    device, dtype: ignored too, there is nothing to place.
    """

    def __init__(
        self, channels: int | None = None, e_lambda: float = 1e-4, device=None, dtype=None
    ):
        super().__init__()
        if not e_lambda > 0:
            raise ValueError(f"SimAM's e_lambda must be positive, not {e_lambda}")
        self.e_lambda = float(e_lambda)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return simam(x, self.e_lambda)

    def extra_repr(self) -> str:
        return f"e_lambda={self.e_lambda:g}"
