"""Networks for 32x32 images, with the same attention slots."""

from functools import partial

from .mobilenetv2 import CifarMobileNetV2
from .preresnet import CifarPreResNet
from .resnet import CifarResNet
from .wideresnet import wide_resnet

CIFAR = {
    **{f"cifar_resnet{depth}": partial(CifarResNet, depth) for depth in (20, 32, 56, 110, 164)},
    **{f"cifar_preresnet{d}": partial(CifarPreResNet, d) for d in (20, 32, 56, 110, 164)},
    "cifar_wideresnet28_10": partial(wide_resnet, 28, 10),
    "cifar_wideresnet40_10": partial(wide_resnet, 40, 10),
    "cifar_mobilenet_v2": CifarMobileNetV2,
}
