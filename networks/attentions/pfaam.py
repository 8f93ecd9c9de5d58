"""Parameter-free average attention, PfAAM (Koerber, 2022)."""

import torch
from torch import nn

from .arguments import only_channels


class PfAAM(nn.Module):
    """Scale each neuron by a gate: its channel's mean times the mean of its position.

    x: (N, C, H, W) -> same shape. It has no parameters and no buffers; channels, device, dtype:
    ignored.
    """

    def __init__(self, *channels: float, device=None, dtype=None):
        if channels:
            only_channels("PfAAM", channels)
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True) * x.mean(1, keepdim=True))
