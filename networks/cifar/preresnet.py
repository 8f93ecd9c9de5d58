"""Pre-activation ResNet for 32x32 images (He et al., ECCV 2016)."""

from functools import partial

import torch
from torch import nn

from ..attentions import Attention, create_attention, simam_norm_act
from ..init import init_weights
from ..resnet import conv1x1, conv3x3, make_stages
from .resnet import block_and_depths


class PreBasicBlock(nn.Module):
    """Two 3x3 convolutions, each behind its norm and ReLU; every attention ends the branch.

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, in_planes: int, planes: int, attention: Attention, stride: int = 1):
        super().__init__()
        self.out_planes = planes
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = conv3x3(in_planes, planes, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = conv3x3(planes, planes)
        self.attn_conv = attention(planes, slot="conv")
        self.attn_block = attention(planes, slot="block")
        self.shortcut = conv1x1(in_planes, planes, stride) if in_planes != planes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        active = self.relu(self.bn1(x))
        y = self.relu(self.bn2(self.conv1(active)))
        y = self.attn_block(self.attn_conv(self.conv2(y)))
        return y + (x if self.shortcut is None else self.shortcut(active))


class PreBottleneck(nn.Module):
    """1x1, 3x3 with the stride and `conv` attention, 1x1; each behind its norm and ReLU."""

    def __init__(self, in_planes: int, planes: int, attention: Attention, stride: int = 1):
        super().__init__()
        self.out_planes = out_planes = 4 * planes
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = conv1x1(in_planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = conv3x3(planes, planes, stride)
        self.attn_conv = attention(planes, slot="conv")
        self.bn3 = nn.BatchNorm2d(planes)
        self.conv3 = conv1x1(planes, out_planes)
        self.attn_block = attention(out_planes, slot="block")
        self.shortcut = conv1x1(in_planes, out_planes, stride) if in_planes != out_planes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        active = self.relu(self.bn1(x))
        y = self.conv2(self.relu(self.bn2(self.conv1(active))))
        if torch.jit.is_scripting():  # no function takes modules there
            y = self.relu(self.bn3(self.attn_conv(y)))
        else:
            y = simam_norm_act(y, self.attn_conv, self.bn3, self.relu)
        y = self.attn_block(self.conv3(y))
        return y + (x if self.shortcut is None else self.shortcut(active))


class CifarPreResNet(nn.Module):
    """x: (N, 3, 32, 32) -> logits (N, num_classes); three stages of 16, 32 and 64 planes.

    depth: 6 n + 2 layers of basic blocks, or 9 n + 2 of bottlenecks. width: multiplies the planes
    of the stages. attention, attention_param: see `create_attention`.
    """

    def __init__(
        self,
        depth: int,
        attention: str = "none",
        attention_param: float | None = None,
        num_classes: int = 10,
        width: int = 1,
    ):
        super().__init__()
        block, depths = block_and_depths(depth, PreBasicBlock, PreBottleneck)
        attend = partial(create_attention, attention, param=attention_param)
        self.conv1 = conv3x3(3, 16)
        self.layer1, self.layer2, self.layer3 = make_stages(block, attend, 16, 16 * width, depths)
        out_planes = self.layer3[-1].out_planes
        self.bn = nn.BatchNorm2d(out_planes)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(out_planes, num_classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.fc(self.avgpool(self.relu(self.bn(x))).flatten(1))
