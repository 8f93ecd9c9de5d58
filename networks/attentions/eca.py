"""Efficient Channel Attention (Wang et al., CVPR 2020)."""

import math

import torch
from torch import nn

from .arguments import odd, setting


def adaptive_kernel_size(channels: int) -> int:
    """The odd kernel size for `channels` channels: log2(C)/2 + 1/2, an even one raised (Eq. 12)."""
    size = int((math.log2(channels) + 1) / 2)
    return size if size % 2 else size + 1


class ECA(nn.Module):
    """Scale each channel by a gate computed from the means of its neighbouring channels.

    x: (N, C, H, W) -> same shape. kernel_size: how many neighbours, an odd number; None takes
    `adaptive_kernel_size`. ECA(C, size) and ECA(C, C, size) are understood too. Raises ValueError
    for another kernel size, and for what could mean something else.
    """

    def __init__(
        self, *channels: float, kernel_size: float | str | None = None, device=None, dtype=None
    ):
        channels, kernel_size = setting("ECA", "kernel_size", channels, kernel_size)
        super().__init__()
        size = adaptive_kernel_size(channels) if kernel_size is None else kernel_size
        size = odd("ECA's kernel_size", size)
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.conv(x.mean((2, 3))[:, None]))
        return x * gate[:, 0, :, None, None]
