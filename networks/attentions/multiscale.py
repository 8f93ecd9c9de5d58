"""Efficient multi-scale attention, EMA (Ouyang et al., ICASSP 2023)."""

import torch
from torch import nn

from .arguments import setting, whole
from .group_norm import GroupNorm


class MultiScaleAttention(nn.Module):
    """Scale each position of a group of channels by a gate of two branches (Fig. 3 b).

    One branch is coordinate attention, the other a 3x3 convolution; each one's channels are summed
    with weights that the other's means give. The groups share their weights.

    x: (N, C, H, W) -> same shape. factor: how many groups, a divisor of C;
    MultiScaleAttention(C, factor) and MultiScaleAttention(C, C, factor) are understood too, and
    what could mean something else is a ValueError.
    """

    def __init__(self, *channels: float, factor: float | str = 8, device=None, dtype=None):
        channels, factor = setting("MultiScaleAttention", "factor", channels, factor)
        super().__init__()
        place = {"device": device, "dtype": dtype}
        width = channels // whole("the factor", factor)
        if width * factor != channels:
            raise ValueError(f"the factor must divide {channels} channels; {factor:g} does not")
        self.width = width
        self.strips = nn.Conv2d(width, width, 1, **place)
        self.local = nn.Conv2d(width, width, 3, padding=1, **place)
        self.norm = GroupNorm(width, width, **place)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height = x.shape[2]
        groups = x.reshape(-1, self.width, height, x.shape[3])  # (N * factor, C / factor, H, W)
        strips = [groups.mean(3, keepdim=True), groups.mean(2, keepdim=True).transpose(2, 3)]
        gates = torch.sigmoid(self.strips(torch.cat(strips, 2)))
        row, column = gates[:, :, :height], gates[:, :, height:].transpose(2, 3)
        wide = self.norm(groups * (row * column))
        local = self.local(groups)
        wide_share = wide.mean((2, 3), keepdim=True).softmax(1)
        local_share = local.mean((2, 3), keepdim=True).softmax(1)
        score = (wide_share * local + local_share * wide).sum(1, keepdim=True)
        return (groups * torch.sigmoid(score)).view_as(x)
