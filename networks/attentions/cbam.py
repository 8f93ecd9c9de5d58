"""Convolutional Block Attention Module (Woo et al., ECCV 2018)."""

import torch
from torch import nn

from .arguments import setting
from .se import reduced


class ChannelGate(nn.Module):
    """Scale each channel by a gate computed from the means and maxima of all channels (Eq. 2)."""

    def __init__(self, channels: int, reduction: float = 16, device=None, dtype=None):
        super().__init__()
        place = {"device": device, "dtype": dtype}
        hidden = reduced(channels, reduction)
        self.mlp = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels, hidden, **place),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, **place),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, peak = x.mean((2, 3)), x.amax((2, 3))
        return x * torch.sigmoid(self.mlp(mean) + self.mlp(peak))[:, :, None, None]


class SpatialGate(nn.Module):
    """Scale each position by a gate computed from the maxima and means around it (Eq. 3).

    The batch norm and its slow momentum are not in the paper but in its code, and in the released
    weights.
    """

    def __init__(self, device=None, dtype=None):
        super().__init__()
        place = {"device": device, "dtype": dtype}
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False, **place)
        self.bn = nn.BatchNorm2d(1, momentum=0.01, **place)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.bn(self.conv(pooled)))


class CBAM(nn.Module):
    """A channel gate, then a spatial gate (Eq. 1).

    x: (N, C, H, W) -> same shape. reduction: the channel gate's bottleneck divisor;
    CBAM(C, reduction) and CBAM(C, C, reduction) are understood too, and what could mean something
    else is a ValueError.
    """

    def __init__(self, *channels: float, reduction: float | str = 16, device=None, dtype=None):
        # some copies take the spatial gate's size there
        if channels[1:] and channels[-1] in (3, 7):
            raise ValueError(f"{channels[-1]} may be a kernel size: write reduction={channels[-1]}")
        channels, reduction = setting("CBAM", "reduction", channels, reduction)
        super().__init__()
        self.channel_gate = ChannelGate(channels, reduction, device, dtype)
        self.spatial_gate = SpatialGate(device, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.spatial_gate(self.channel_gate(x))
