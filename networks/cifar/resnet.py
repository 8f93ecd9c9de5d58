"""ResNet for 32x32 images (He et al., CVPR 2016, section 4.2) with projection shortcuts."""

from functools import partial

import torch
from torch import nn

from ..attentions import create_attention
from ..init import init_weights
from ..resnet import BasicBlock, Bottleneck, conv3x3, make_stages


def block_and_depths(depth: int, basic: type, bottleneck: type) -> tuple[type, tuple[int, ...]]:
    """The block of a network of `depth` layers, bottlenecks from 164 on, and how many of them
    each of its three stages has."""
    block, layers = (bottleneck, 9) if depth >= 164 else (basic, 6)
    return block, ((depth - 2) // layers,) * 3


class CifarResNet(nn.Module):
    """x: (N, 3, 32, 32) -> logits (N, num_classes); three stages of 16, 32 and 64 planes.

    depth: 6 n + 2 layers of basic blocks, or 9 n + 2 of bottlenecks. attention, attention_param:
    see `create_attention`.
    """

    def __init__(
        self,
        depth: int,
        attention: str = "none",
        attention_param: float | None = None,
        num_classes: int = 10,
    ):
        super().__init__()
        block, depths = block_and_depths(depth, BasicBlock, Bottleneck)
        attend = partial(create_attention, attention, param=attention_param)
        self.conv1 = conv3x3(3, 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1, self.layer2, self.layer3 = make_stages(block, attend, 16, 16, depths)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.layer3[-1].out_planes, num_classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))
