"""MobileNetV2 for 32x32 images, as published: fewer strides, and more 1x1 convolutions."""

from ..mobilenetv2 import MobileNetV2


class CifarMobileNetV2(MobileNetV2):
    """x: (N, 3, 32, 32) -> logits (N, num_classes).

    The stages of MobileNetV2, but the first convolution and the second stage have no stride, and
    blocks project wherever they can. attention, attention_param: see `create_attention`.
    """

    def __init__(
        self,
        attention: str = "none",
        attention_param: float | None = None,
        num_classes: int = 10,
    ):
        strides = (1, 1, 1, 2, 2, 1, 2, 1)
        super().__init__(attention, attention_param, num_classes, strides, project=True)
        self.classifier = self.classifier[-1]  # which has no place for dropout here
