"""A network of a few hundred weights, for tests whose point is not the network."""

import torch
from torch import nn

from networks import create_attention


class Tiny(nn.Module):
    """x: (N, 3, H, W) -> logits (N, num_classes): a convolution, a norm, a mean, a linear layer.

    To be registered in `networks.MODELS`. The files in tests/training/old_run are of this network.
    """

    def __init__(
        self,
        attention: str = "none",
        attention_param: float | None = None,
        num_classes: int = 1000,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.attn_conv = create_attention(attention, 16, attention_param, slot="conv")
        self.bn1 = nn.BatchNorm2d(16)
        self.attn_block = create_attention(attention, 16, attention_param, slot="block")
        self.fc = nn.Linear(16, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.attn_block(self.bn1(self.attn_conv(self.conv1(x))))
        return self.fc(x.relu().mean((2, 3)))
