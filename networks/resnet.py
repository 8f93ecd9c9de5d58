"""ResNet, ResNet-D and ResNeXt with attention slots; state-dict keys are torchvision's."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from .attentions import Attention, create_attention, simam_norm_act
from .init import init_weights


def conv1x1(in_planes: int, out_planes: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_planes, out_planes, 1, stride=stride, bias=False)


def conv3x3(in_planes: int, out_planes: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_planes, out_planes, 3, stride, padding=1, groups=groups, bias=False)


def strided_shortcut(in_planes: int, out_planes: int, stride: int) -> nn.Module:
    """The input itself where its shape stays, else a 1x1 convolution and a norm."""
    if stride == 1 and in_planes == out_planes:
        return nn.Identity()
    return nn.Sequential(conv1x1(in_planes, out_planes, stride), nn.BatchNorm2d(out_planes))


def pooled_shortcut(in_planes: int, out_planes: int, stride: int) -> nn.Module:
    """ResNet-D's: an average takes the stride; without one it has no entry in the sequence."""
    if stride == 1:
        return strided_shortcut(in_planes, out_planes, stride)
    pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(pool, conv1x1(in_planes, out_planes), nn.BatchNorm2d(out_planes))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (He et al., CVPR 2016); the attention stands at the second.

    attention: fills a slot, see `create_attention`. x: (N, in_planes, H, W) ->
    (N, out_planes, H / stride, W / stride).
    """

    last_norm = "bn2"  # ends the branch; see `zero_init_residual`

    def __init__(self, in_planes: int, planes: int, attention: Attention, stride: int = 1):
        super().__init__()
        self.out_planes = planes
        # drawn first, entered last: both orders decide which weights a seed gives
        downsample = strided_shortcut(in_planes, planes, stride)
        self.conv1 = conv3x3(in_planes, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(planes, planes)
        self.attn_conv = attention(planes, slot="conv")
        self.bn2 = nn.BatchNorm2d(planes)
        self.attn_block = attention(planes, slot="block")
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(self.relu(self.bn1(self.conv1(x))))
        rest = self.downsample(x)
        if torch.jit.is_scripting():  # no function takes modules there
            return self.relu(self.attn_block(self.bn2(self.attn_conv(y))) + rest)
        else:
            return simam_norm_act(
                y, self.attn_conv, self.bn2, self.relu, rest, between=self.attn_block
            )


class Groups(NamedTuple):
    """Of a bottleneck's 3x3 convolution (ResNeXt): how many, and how wide at 64 planes."""

    count: int
    width: int


ONE_GROUP = Groups(1, 64)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with the stride at the 3x3, where the attention stands too.

    Arguments and shapes are those of `BasicBlock`; it ends with four times as many planes.
    """

    last_norm = "bn3"

    def __init__(
        self,
        in_planes: int,
        planes: int,
        attention: Attention,
        stride: int = 1,
        groups: Groups = ONE_GROUP,
        shortcut: Callable[[int, int, int], nn.Module] = strided_shortcut,
    ):
        super().__init__()
        width = planes * groups.width // 64 * groups.count
        self.out_planes = 4 * planes
        downsample = shortcut(in_planes, self.out_planes, stride)
        self.conv1 = conv1x1(in_planes, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride, groups.count)
        self.attn_conv = attention(width, slot="conv")
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, self.out_planes)
        self.bn3 = nn.BatchNorm2d(self.out_planes)
        self.attn_block = attention(self.out_planes, slot="block")
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(self.relu(self.bn1(self.conv1(x))))
        if torch.jit.is_scripting():  # no function takes modules there
            y = self.relu(self.bn2(self.attn_conv(y)))
        else:
            y = simam_norm_act(y, self.attn_conv, self.bn2, self.relu)
        y = self.attn_block(self.bn3(self.conv3(y)))
        return self.relu(y + self.downsample(x))


def make_stages(
    block: Callable[..., nn.Module],
    attention: Attention,
    in_planes: int,
    planes: int,
    depths: Sequence[int],
) -> list[nn.Sequential]:
    """A sequence of blocks for each of `depths`: `planes` in the first, and from one to the next
    twice as many at half the resolution.

    block: takes (in_planes, planes, attention, stride), and says its `out_planes`.
    """
    stages = []
    for stage, depth in enumerate(depths):
        first_stride = 1 if stage == 0 else 2
        blocks = []
        for stride in [first_stride] + [1] * (depth - 1):
            blocks.append(block(in_planes, planes * 2**stage, attention, stride))
            in_planes = blocks[-1].out_planes
        stages.append(nn.Sequential(*blocks))
    return stages


def plain_stem() -> nn.Conv2d:
    return nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)


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

    block: BasicBlock or Bottleneck, as it is or with arguments bound. depths: blocks in each of
    the four stages. attention, attention_param: see `create_attention`. stem: makes the first
    convolution.
    """

    def __init__(
        self,
        block: Callable[..., nn.Module],
        depths: tuple[int, int, int, int],
        attention: str = "none",
        attention_param: float | None = None,
        num_classes: int = 1000,
        stem: Callable[[], nn.Module] = plain_stem,
    ):
        super().__init__()
        self.conv1 = stem()
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        attend = partial(create_attention, attention, param=attention_param)
        self.layer1, self.layer2, self.layer3, self.layer4 = make_stages(
            block, attend, 64, 64, depths
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.inplanes = self.layer4[-1].out_planes  # by this name torchvision's detectors ask
        self.fc = nn.Linear(self.inplanes, num_classes)
        init_weights(self)

    def replace_stride_with_dilation(self, layer2: bool, layer3: bool, layer4: bool) -> None:
        """Keep the resolution in these stages and dilate their 3x3 convolutions from there on, in
        place: DeepLab's network is that of (False, True, True), as torchvision's argument makes it.

        Raises ValueError for blocks that torchvision does not dilate: of two 3x3 convolutions, or
        with a pool in the shortcut.
        """
        pools = any(isinstance(each, nn.AvgPool2d) for each in self.layer2.modules())
        if isinstance(self.layer1[0], BasicBlock) or pools:
            raise ValueError("blocks of two 3x3 convolutions, or with pools, are not dilated")
        dilation = 1
        for stage, dilated in ((self.layer2, layer2), (self.layer3, layer3), (self.layer4, layer4)):
            for index, block in enumerate(stage):
                for conv in (each for each in block.modules() if isinstance(each, nn.Conv2d)):
                    if dilated and index == 0:
                        conv.stride = (1, 1)
                    if conv.kernel_size == (3, 3):
                        conv.dilation = conv.padding = (dilation, dilation)
                if dilated and index == 0:
                    dilation *= 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


BottleneckD = partial(Bottleneck, shortcut=pooled_shortcut)
Bottleneck32x4 = partial(Bottleneck, groups=Groups(32, 4))
Bottleneck32x8 = partial(Bottleneck, groups=Groups(32, 8))

RESNETS = {
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet34": partial(ResNet, BasicBlock, (3, 4, 6, 3)),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "resnet101": partial(ResNet, Bottleneck, (3, 4, 23, 3)),
    "resnet152": partial(ResNet, Bottleneck, (3, 8, 36, 3)),
    "resnet50d": partial(ResNet, BottleneckD, (3, 4, 6, 3), stem=deep_stem),
    "resnext50_32x4d": partial(ResNet, Bottleneck32x4, (3, 4, 6, 3)),
    "resnext101_32x8d": partial(ResNet, Bottleneck32x8, (3, 4, 23, 3)),
}
