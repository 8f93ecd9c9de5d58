"""MobileNetV2 for 32x32 images: three strides less, and projections in the shortcuts."""

from functools import partial

import torch
from torch import nn

from ..attentions import Attention, create_attention
from ..init import init_weights
from ..mobilenetv2 import STAGES, conv_norm_act, inverted_branch
from ..resnet import strided_shortcut


class CifarInvertedResidual(nn.Module):
    """An inverted bottleneck; at stride 1 it has a shortcut, by a 1x1 convolution if need be."""

    def __init__(
        self, in_planes: int, out_planes: int, stride: int, expand: int, attention: Attention
    ):
        super().__init__()
        self.conv = inverted_branch(in_planes, out_planes, stride, expand, attention, widen=True)
        self.attn_block = attention(out_planes, slot="block")
        self.shortcut = None
        if stride == 1:
            self.shortcut = nn.Identity()
            if in_planes != out_planes:
                self.shortcut = strided_shortcut(in_planes, out_planes, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d | None:
        """Ends the branch, if it has a shortcut; see `zero_init_residual`."""
        return self.conv[-1] if self.shortcut else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.attn_block(self.conv(x))
        return y if self.shortcut is None else y + self.shortcut(x)


class CifarMobileNetV2(nn.Module):
    """x: (N, 3, 32, 32) -> logits (N, num_classes).

    The stages of MobileNetV2, but the first convolution and the second stage have no stride.
    attention, attention_param: see `create_attention`.
    """

    def __init__(
        self,
        attention: str = "none",
        attention_param: float | None = None,
        num_classes: int = 10,
    ):
        super().__init__()
        make_attention = partial(create_attention, attention, param=attention_param)
        features = [conv_norm_act(3, 32, 3)]
        in_planes = 32
        for stage, (expand, planes, depth, first_stride) in enumerate(STAGES):
            for index in range(depth):
                stride = first_stride if index == 0 and stage != 1 else 1
                block = CifarInvertedResidual(in_planes, planes, stride, expand, make_attention)
                features.append(block)
                in_planes = planes
        features.append(conv_norm_act(in_planes, 1280, 1))
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1280, num_classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))
