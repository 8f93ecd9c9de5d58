"""Group norm for maps of any size."""

import torch
from torch import nn


class GroupNorm(nn.GroupNorm):
    """PyTorch's, which also takes a group of a single value, and norms it to 0.

    PyTorch refuses it, in evaluation too, by a test that torch.jit.trace warns of.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
