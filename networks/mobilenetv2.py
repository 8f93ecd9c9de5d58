"""MobileNetV2 (Sandler et al., CVPR 2018) with attention slots; keys are torchvision's."""

from collections import OrderedDict
from functools import partial

import torch
from torch import nn

from .attentions import Attention, create_attention
from .init import init_weights

# expansion, output channels, blocks, stride of the first (the paper's Table 2)
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def conv_norm_act(
    in_planes: int,
    out_planes: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    attn_conv: nn.Module | None = None,
) -> nn.Sequential:
    """Convolution, batch norm, ReLU6 under torchvision's indices; the slot has a name instead."""
    padding = kernel_size // 2
    return nn.Sequential(
        OrderedDict(
            {
                "0": nn.Conv2d(
                    in_planes, out_planes, kernel_size, stride, padding, groups=groups, bias=False
                ),
                "attn_conv": attn_conv or nn.Identity(),
                "1": nn.BatchNorm2d(out_planes),
                "2": nn.ReLU6(inplace=True),
            }
        )
    )


def inverted_branch(
    in_planes: int, out_planes: int, stride: int, expand: int, attention: Attention, widen: bool
) -> nn.Sequential:
    """1x1 expansion (if `widen`), 3x3 depthwise with the attention, 1x1 projection."""
    hidden = in_planes * expand
    return nn.Sequential(
        *([conv_norm_act(in_planes, hidden, 1)] if widen else []),
        conv_norm_act(hidden, hidden, 3, stride, hidden, attention(hidden, slot="conv")),
        nn.Conv2d(hidden, out_planes, 1, bias=False),
        nn.BatchNorm2d(out_planes),
    )


class InvertedResidual(nn.Module):
    """An inverted bottleneck, with a shortcut where the shape stays."""

    def __init__(
        self, in_planes: int, out_planes: int, stride: int, expand: int, attention: Attention
    ):
        super().__init__()
        self.conv = inverted_branch(in_planes, out_planes, stride, expand, attention, expand != 1)
        self.attn_block = attention(out_planes, slot="block")
        self.residual = stride == 1 and in_planes == out_planes

    @property
    def last_norm(self) -> nn.BatchNorm2d | None:
        """Ends the branch, if it has a shortcut; see `zero_init_residual`."""
        return self.conv[-1] if self.residual else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.attn_block(self.conv(x))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """x: (N, 3, H, W) -> logits (N, num_classes).

    attention, attention_param: see `create_attention`. The classifier keeps torchvision's place
    for dropout, with probability 0 as in the published code.
    """

    def __init__(
        self,
        attention: str = "none",
        attention_param: float | None = None,
        num_classes: int = 1000,
    ):
        super().__init__()
        make_attention = partial(create_attention, attention, param=attention_param)
        features = [conv_norm_act(3, 32, 3, stride=2)]
        in_planes = 32
        for expand, planes, depth, first_stride in STAGES:
            for index in range(depth):
                stride = first_stride if index == 0 else 1
                features.append(InvertedResidual(in_planes, planes, stride, expand, make_attention))
                in_planes = planes
        features.append(conv_norm_act(in_planes, 1280, 1))
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(1280, num_classes))
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))
