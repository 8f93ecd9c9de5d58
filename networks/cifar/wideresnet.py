"""Wide ResNet (Zagoruyko and Komodakis, BMVC 2016)."""

from .preresnet import CifarPreResNet


def wide_resnet(depth: int, width: int, **arguments) -> CifarPreResNet:
    """WRN-`depth`-`width`: a pre-activation ResNet whose stages are `width` times as wide.

    Its authors count the three shortcut convolutions but not the classifier: depth is 6 n + 4.
    arguments: those of `CifarPreResNet`.
    """
    return CifarPreResNet(depth - 2, width=width, **arguments)
