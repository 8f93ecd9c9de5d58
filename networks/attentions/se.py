"""Squeeze-and-Excitation (Hu et al., CVPR 2018)."""

import torch
from torch import nn

from .arguments import setting, whole


def reduced(channels: int, reduction: float) -> int:
    """Width of a bottleneck of `channels` / `reduction`, at least 1.

    Raises ValueError unless `reduction` is a whole number of at least 1.
    """
    return max(channels // whole("the reduction", reduction), 1)


class SE(nn.Module):
    """Scale each channel by a gate computed from the means of all channels.

    x: (N, C, H, W) -> same shape. reduction: the bottleneck's divisor;
    SE(C, reduction) and SE(C, C, reduction) are understood too, and what could mean something
    else is a ValueError.
    """

    def __init__(self, *channels: float, reduction: float | str = 16, device=None, dtype=None):
        channels, reduction = setting("SE", "reduction", channels, reduction)
        super().__init__()
        place = {"device": device, "dtype": dtype}
        hidden = reduced(channels, reduction)
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False, **place),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, bias=False, **place),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]
