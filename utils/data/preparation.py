"""How an image file becomes a network's input, outside of the training."""

from typing import NamedTuple


class Preparation(NamedTuple):
    """The shorter side is resized to `shorter_side` pixels, the middle, `centre_crop` pixels a
    side, is cut out, and of values from 0 to 1 `mean` is taken and the rest divided by `std`."""

    shorter_side: int
    centre_crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def at(self, size: int | None) -> "Preparation":
        """The same with inputs of `size` pixels a side; None changes nothing."""
        if size is None:
            return self
        uncut = self.shorter_side == self.centre_crop
        return self._replace(shorter_side=size if uncut else shorter_side(size), centre_crop=size)


def shorter_side(size: int) -> int:
    """Of an ImageNet image before its middle, `size` pixels a side, is cut out."""
    return size * 256 // 224


IMAGENET = Preparation(shorter_side(224), 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = Preparation(32, 32, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
