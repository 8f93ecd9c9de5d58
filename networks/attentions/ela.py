"""Efficient local attention (Xu and Wan, 2024)."""

import math

import torch
from torch import nn

from .arguments import odd, setting
from .group_norm import GroupNorm


class ELA(nn.Module):
    """Scale each position by a gate of its row and one of its column, each made of means nearby.

    x: (N, C, H, W) -> same shape, C a multiple of 8. kernel_size: how many rows or columns a gate
    sees, an odd number; 7 is the paper's ELA-L, 5 its ELA-S.
    ELA(C, size) and ELA(C, C, size) are understood too. Raises ValueError for other channels, for
    another kernel size, and for what could mean something else.
    """

    def __init__(self, *channels: float, kernel_size: float | str = 7, device=None, dtype=None):
        channels, kernel_size = setting("ELA", "kernel_size", channels, kernel_size)
        super().__init__()
        if channels % 8:
            raise ValueError(f"ELA takes a multiple of 8 channels, not {channels}")
        place = {"device": device, "dtype": dtype}
        size = odd("ELA's kernel_size", kernel_size)
        self.conv = nn.Conv1d(
            channels, channels, size, padding=size // 2, groups=channels // 8, bias=False, **place
        )
        # the paper's 16 groups, or as many as the channels have in common with them
        self.norm = GroupNorm(math.gcd(channels, 16), channels, **place)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        row = torch.sigmoid(self.norm(self.conv(x.mean(3))))  # (N, C, H)
        column = torch.sigmoid(self.norm(self.conv(x.mean(2))))
        return x * (row[:, :, :, None] * column[:, :, None])
