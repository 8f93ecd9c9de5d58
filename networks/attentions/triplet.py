"""Triplet attention (Misra et al., WACV 2021)."""

import torch
from torch import nn

from .arguments import only_channels
from .cbam import SpatialGate


class TripletAttention(nn.Module):
    """The mean of three maps, each scaled by CBAM's spatial gate over two of C, H and W.

    x: (N, C, H, W) -> same shape. channels: ignored, the gates have the same few weights for any.
    """

    def __init__(self, *channels: float, device=None, dtype=None):
        if channels:
            only_channels("TripletAttention", channels)
        super().__init__()
        self.over_channels = SpatialGate(device, dtype)
        self.over_height = SpatialGate(device, dtype)
        self.over_width = SpatialGate(device, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # what a gate pools stands where it expects the channels
        by_height = self.over_height(x.transpose(1, 2)).transpose(1, 2)
        by_width = self.over_width(x.transpose(1, 3)).transpose(1, 3)
        return (self.over_channels(x) + by_height + by_width) / 3
