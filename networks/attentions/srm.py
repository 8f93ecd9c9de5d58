"""Style-based Recalibration Module (Lee et al., ICCV 2019)."""

import torch
from torch import nn

from .arguments import only_channels


class SRM(nn.Module):
    """Scale each channel by a gate computed from its own mean and standard deviation.

    x: (N, C, H, W) -> same shape.
    """

    def __init__(self, *channels: float, device=None, dtype=None):
        channels = only_channels("SRM", channels)
        super().__init__()
        # zero as in the authors' code: training starts from a gate of 1/2 everywhere
        self.cfc = nn.Parameter(torch.zeros(channels, 2, device=device, dtype=dtype))
        self.bn = nn.BatchNorm1d(channels, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        var, mean = torch.var_mean(x, (2, 3), correction=0)
        # the epsilon keeps the gradient of a constant channel finite
        style = torch.stack([mean, (var + 1e-5).sqrt()], 2)
        return x * torch.sigmoid(self.bn((style * self.cfc).sum(2)))[:, :, None, None]
