"""MobileNetV2 (Sandler et al., CVPR 2018) with attention slots; keys are torchvision's."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from .attentions import Attention, create_attention, simam_norm_act
from .init import init_weights
from .resnet import conv1x1, conv3x3, strided_shortcut

# expansion, output channels, blocks (the paper's Table 2)
STAGES = (
    (1, 16, 1),
    (6, 24, 2),
    (6, 32, 3),
    (6, 64, 4),
    (6, 96, 3),
    (6, 160, 3),
    (6, 320, 1),
)
# of the first convolution, and of the first block of each stage
STRIDES = (2, 1, 2, 2, 2, 1, 2, 1)


class ConvNormAct(nn.Sequential):
    """Convolution, batch norm, ReLU6 under torchvision's indices; the slot has a name instead."""

    def __init__(self, conv: nn.Conv2d, attn_conv: nn.Module | None = None):
        layers = {
            "0": conv,
            "attn_conv": attn_conv or nn.Identity(),
            "1": nn.BatchNorm2d(conv.out_channels),
            "2": nn.ReLU6(inplace=True),
        }
        super().__init__(OrderedDict(layers))
        self.out_channels = conv.out_channels  # by this name torchvision's detectors ask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():  # no function takes modules there
            for module in self:
                x = module(x)
            return x
        else:
            conv, attention, norm, act = self
            return simam_norm_act(conv(x), attention, norm, act)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise with the attention, 1x1 projection; a shortcut at stride 1.

    attention: fills a slot, see `create_attention`. project: puts a 1x1 convolution also where
    MobileNetV2 leaves it out: an expansion by 1, and a shortcut between unequal channels, which
    else does not exist. x: (N, in_planes, H, W) -> (N, out_planes, H / stride, W / stride).
    """

    last_norm = None  # ends a branch with a shortcut; see `zero_init_residual`

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        stride: int,
        expand: int,
        attention: Attention,
        project: bool = False,
    ):
        super().__init__()
        hidden = in_planes * expand
        widen = [ConvNormAct(conv1x1(in_planes, hidden))] if project or expand != 1 else []
        depthwise = conv3x3(hidden, hidden, stride, groups=hidden)
        self.conv = nn.Sequential(
            *widen,
            ConvNormAct(depthwise, attention(hidden, slot="conv")),
            conv1x1(hidden, out_planes),
            nn.BatchNorm2d(out_planes),
        )
        self.attn_block = attention(out_planes, slot="block")
        # by these names torchvision's detectors ask; the second marks where a stage begins
        self.out_channels, self._is_cn = out_planes, stride > 1
        self.shortcut = None
        if stride == 1 and (project or in_planes == out_planes):
            self.shortcut = strided_shortcut(in_planes, out_planes, stride)
            self.last_norm = f"conv.{len(self.conv) - 1}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.attn_block(self.conv(x))
        return y if self.shortcut is None else y + self.shortcut(x)


class MobileNetV2(nn.Module):
    """x: (N, 3, H, W) -> logits (N, num_classes).

    attention, attention_param: see `create_attention`. strides: like `STRIDES`. project: see
    `InvertedResidual`. The classifier keeps torchvision's place for dropout, with probability 0
    as in the published code.
    """

    def __init__(
        self,
        attention: str = "none",
        attention_param: float | None = None,
        num_classes: int = 1000,
        strides: Sequence[int] = STRIDES,
        project: bool = False,
    ):
        super().__init__()
        attend = partial(create_attention, attention, param=attention_param)
        first_stride, *stage_strides = strides
        features = [ConvNormAct(conv3x3(3, 32, first_stride))]
        in_planes = 32
        for (expand, planes, depth), stride in zip(STAGES, stage_strides, strict=True):
            for step in [stride] + [1] * (depth - 1):
                features.append(InvertedResidual(in_planes, planes, step, expand, attend, project))
                in_planes = planes
        features.append(ConvNormAct(conv1x1(in_planes, 1280)))
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(1280, num_classes))
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))
