"""ResNet for 32x32 images (He et al., CVPR 2016, section 4.2) with projection shortcuts."""

from functools import partial

import torch
from torch import nn

from ..attentions import create_attention
from ..init import init_weights
from ..resnet import BasicBlock, Bottleneck, conv3x3, strided_shortcut


def stage_depth(depth: int) -> tuple[int, bool]:
    """Blocks in each of the three stages, and whether they are bottlenecks: from 164 layers on."""
    bottleneck = depth >= 164
    return (depth - 2) // (9 if bottleneck else 6), bottleneck


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
        blocks, bottleneck = stage_depth(depth)
        block = Bottleneck if bottleneck else BasicBlock
        make_attention = partial(create_attention, attention, param=attention_param)
        self.conv1 = conv3x3(3, 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        in_planes = 16
        for stage in range(3):
            planes, stride = 16 * 2**stage, 1 if stage == 0 else 2
            out_planes = planes * block.expansion
            shortcut = None
            if in_planes != out_planes:
                shortcut = strided_shortcut(in_planes, out_planes, stride)
            layers = [block(in_planes, planes, make_attention, stride, shortcut)]
            layers += [block(out_planes, planes, make_attention) for _ in range(blocks - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
            in_planes = out_planes
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(in_planes, num_classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))
