"""ResNet, ResNet-D and ResNeXt with attention slots; state-dict keys are torchvision's."""

from functools import partial

import torch
from torch import nn

from .attentions import Attention, create_attention
from .init import init_weights


def conv1x1(in_planes: int, out_planes: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_planes, out_planes, 1, stride=stride, bias=False)


def conv3x3(in_planes: int, out_planes: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_planes, out_planes, 3, stride, padding=1, groups=groups, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (He et al., CVPR 2016); the attention stands at the second."""

    expansion = 1

    def __init__(
        self,
        in_planes: int,
        planes: int,
        attention: Attention,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
    ):
        super().__init__()
        if groups != 1 or base_width != 64:
            raise ValueError("a BasicBlock has neither groups nor another width")
        self.conv1 = conv3x3(in_planes, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(planes, planes)
        self.attn_conv = attention(planes, slot="conv")
        self.bn2 = nn.BatchNorm2d(planes)
        self.attn_block = attention(planes, slot="block")
        self.downsample = downsample or nn.Identity()

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """Ends the branch; see `zero_init_residual`."""
        return self.bn2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.attn_block(self.bn2(self.attn_conv(self.conv2(y))))
        return self.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with the stride at the 3x3, where the attention stands too."""

    expansion = 4

    def __init__(
        self,
        in_planes: int,
        planes: int,
        attention: Attention,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
    ):
        super().__init__()
        width = planes * base_width // 64 * groups
        self.conv1 = conv1x1(in_planes, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride, groups)
        self.attn_conv = attention(width, slot="conv")
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, planes * self.expansion)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.attn_block = attention(planes * self.expansion, slot="block")
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample or nn.Identity()

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """Ends the branch; see `zero_init_residual`."""
        return self.bn3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.attn_conv(self.conv2(y))))
        y = self.attn_block(self.bn3(self.conv3(y)))
        return self.relu(y + self.downsample(x))


def deep_stem() -> nn.Sequential:
    """Three 3x3 convolutions in place of the 7x7 one (He et al., CVPR 2019, ResNet-C and -D)."""
    return nn.Sequential(
        conv3x3(3, 32, stride=2),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        conv3x3(32, 32),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        conv3x3(32, 64),
    )


class ResNet(nn.Module):
    """x: (N, 3, H, W) -> logits (N, num_classes).

    block: BasicBlock or Bottleneck. layers: blocks in each of the four stages.
    attention, attention_param: see `create_attention`. groups, base_width: ResNeXt's cardinality
    and width per group. variant_d: ResNet-D's deep stem and average-pooled shortcuts.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, int, int, int],
        attention: str = "none",
        attention_param: float | None = None,
        num_classes: int = 1000,
        groups: int = 1,
        base_width: int = 64,
        variant_d: bool = False,
    ):
        super().__init__()
        self.conv1 = deep_stem() if variant_d else nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)

        make_block = partial(
            block,
            attention=partial(create_attention, attention, param=attention_param),
            groups=groups,
            base_width=base_width,
        )
        make_shortcut = pooled_shortcut if variant_d else strided_shortcut
        in_planes = 64
        for stage, depth in enumerate(layers):
            planes, stride = 64 * 2**stage, 1 if stage == 0 else 2
            out_planes = planes * block.expansion
            shortcut = None
            if stride != 1 or in_planes != out_planes:
                shortcut = make_shortcut(in_planes, out_planes, stride)
            blocks = [make_block(in_planes, planes, stride=stride, downsample=shortcut)]
            blocks += [make_block(out_planes, planes) for _ in range(depth - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            in_planes = out_planes

        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(in_planes, num_classes)
        init_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def strided_shortcut(in_planes: int, out_planes: int, stride: int) -> nn.Sequential:
    return nn.Sequential(conv1x1(in_planes, out_planes, stride), nn.BatchNorm2d(out_planes))


def pooled_shortcut(in_planes: int, out_planes: int, stride: int) -> nn.Sequential:
    """ResNet-D's shortcut; without a stride there is nothing to pool, and no entry for it."""
    pool = [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)]
    return nn.Sequential(
        *(pool if stride > 1 else []), conv1x1(in_planes, out_planes), nn.BatchNorm2d(out_planes)
    )


RESNETS = {
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet34": partial(ResNet, BasicBlock, (3, 4, 6, 3)),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "resnet101": partial(ResNet, Bottleneck, (3, 4, 23, 3)),
    "resnet152": partial(ResNet, Bottleneck, (3, 8, 36, 3)),
    "resnet50d": partial(ResNet, Bottleneck, (3, 4, 6, 3), variant_d=True),
    "resnext50_32x4d": partial(ResNet, Bottleneck, (3, 4, 6, 3), groups=32, base_width=4),
    "resnext101_32x8d": partial(ResNet, Bottleneck, (3, 4, 23, 3), groups=32, base_width=8),
}
