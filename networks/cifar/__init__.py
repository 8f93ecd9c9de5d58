"""Networks for 32x32 images, with the same attention slots."""

from functools import partial

from .mobilenetv2 import CifarMobileNetV2
from .preresnet import CifarPreResNet
from .resnet import CifarResNet

DEPTHS = (20, 32, 56, 110, 164)

CIFAR = {
    **{f"cifar_resnet{depth}": partial(CifarResNet, depth) for depth in DEPTHS},
    **{f"cifar_preresnet{depth}": partial(CifarPreResNet, depth) for depth in DEPTHS},
    # Wide ResNet's authors (BMVC 2016) count three shortcuts, but not the classifier
    "cifar_wideresnet28_10": partial(CifarPreResNet, 28 - 2, width=10),
    "cifar_wideresnet40_10": partial(CifarPreResNet, 40 - 2, width=10),
    "cifar_mobilenet_v2": CifarMobileNetV2,
}
