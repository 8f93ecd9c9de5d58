"""SimAM with slicing, SWS (https://github.com/chrislee-007/SWS, 2024)."""

import torch
from torch import nn

from .simam import SimAM


class SWS(nn.Module):
    """SimAM of each quarter of the map by itself, so that a small object is compared with what is
    around it.

    x: (N, C, H, W) -> same shape. channels, e_lambda: as those of `SimAM`.
    """

    def __init__(
        self, *channels: float | str | None, e_lambda: float | str = 1e-4, device=None, dtype=None
    ):
        super().__init__()
        self.simam = SimAM(*channels, e_lambda=e_lambda)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        top, left = x.shape[2] // 2, x.shape[3] // 2
        upper = [self.simam(x[:, :, :top, :left]), self.simam(x[:, :, :top, left:])]
        lower = [self.simam(x[:, :, top:, :left]), self.simam(x[:, :, top:, left:])]
        return torch.cat([torch.cat(upper, 3), torch.cat(lower, 3)], 2)
