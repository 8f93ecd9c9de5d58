"""How an image file becomes a network's input, outside of the training."""

from collections.abc import Mapping
from typing import Any, NamedTuple


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


def preparation_of(content: Any, arch: str) -> Preparation:
    """What a file of ours, whose network is an `arch`, says of its images: `content` is what
    `read_file` returned. CIFAR's for a CIFAR network that says nothing, else ImageNet's."""
    said = content.get("preparation") if isinstance(content, Mapping) else None
    kinds = {"shorter_side": int, "centre_crop": int, "mean": tuple, "std": tuple}
    if not isinstance(said, Mapping) or said.keys() != kinds.keys():
        said = {}
    if said and all(isinstance(said[name], kind) for name, kind in kinds.items()):
        return Preparation(**said)
    return CIFAR if arch.startswith("cifar_") else IMAGENET
