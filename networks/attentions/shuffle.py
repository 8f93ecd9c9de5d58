"""Shuffle attention, SA (Zhang and Yang, ICASSP 2021)."""

import torch
from torch import nn

from .arguments import setting, whole
from .group_norm import GroupNorm


class Scale(nn.Module):
    """A weight and a bias for each channel, which start as their authors start them."""

    def __init__(self, channels: int, device=None, dtype=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, 1, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.ones(channels, 1, 1, device=device, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x + self.bias


class ShuffleAttention(nn.Module):
    """Gate half of each group's channels by their means, half by their normed values; mix both.

    x: (N, C, H, W) -> same shape. groups: how many, which share their weights (Eq. 1 to 5); fewer
    where a half would have less than one channel.
    ShuffleAttention(C, groups) and ShuffleAttention(C, C, groups) are understood too. Raises
    ValueError for channels that make no such groups, and for what could mean something else.
    """

    def __init__(self, *channels: float, groups: float | str = 64, device=None, dtype=None):
        channels, groups = setting("ShuffleAttention", "groups", channels, groups)
        super().__init__()
        self.half = max(channels // (2 * whole("the groups", groups)), 1)
        if channels % (2 * self.half):
            raise ValueError(
                f"{groups:g} groups of {channels} channels have halves of {self.half}, "
                f"which {channels} is no multiple of twice: give other groups"
            )
        self.channel = Scale(self.half, device, dtype)
        self.spatial = Scale(self.half, device, dtype)
        self.norm = GroupNorm(self.half, self.half, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2], x.shape[3]
        groups = x.reshape(-1, 2 * self.half, height, width)
        one, other = groups[:, : self.half], groups[:, self.half :]
        one = one * torch.sigmoid(self.channel(one.mean((2, 3), keepdim=True)))
        other = other * torch.sigmoid(self.spatial(self.norm(other)))
        y = torch.cat([one, other], 1).view(x.shape[0], 2, -1, height, width)
        return y.transpose(1, 2).flatten(1, 2)  # each half of the channels, by turns
