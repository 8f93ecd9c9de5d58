"""Coordinate attention (Hou et al., CVPR 2021)."""

import torch
from torch import nn

from .arguments import setting
from .se import reduced


class CoordinateAttention(nn.Module):
    """Scale each position by a gate of its row and one of its column (Eq. 4 to 9).

    x: (N, C, H, W) -> same shape. reduction: the bottleneck's divisor, which leaves it at least 8
    channels, as the authors' code does;
    CoordinateAttention(C, reduction) and CoordinateAttention(C, C, reduction) are understood too,
    and what could mean something else is a ValueError.
    """

    def __init__(self, *channels: float, reduction: float | str = 32, device=None, dtype=None):
        channels, reduction = setting("CoordinateAttention", "reduction", channels, reduction)
        super().__init__()
        place = {"device": device, "dtype": dtype}
        hidden = max(reduced(channels, reduction), 8)
        self.squeeze = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, **place),
            nn.BatchNorm2d(hidden, **place),
            nn.Hardswish(),
        )
        self.row = nn.Conv2d(hidden, channels, 1, **place)
        self.column = nn.Conv2d(hidden, channels, 1, **place)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height = x.shape[2]
        strips = [x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)]
        y = self.squeeze(torch.cat(strips, 2))  # (N, hidden, H + W, 1)
        row = torch.sigmoid(self.row(y[:, :, :height]))
        column = torch.sigmoid(self.column(y[:, :, height:].transpose(2, 3)))
        return x * (row * column)
