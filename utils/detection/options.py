"""What a training of a detector is told. Imports nothing heavy, so that --help answers at once."""

from dataclasses import dataclass

from ..cli import comma_list, number
from ..options import COUNT, RATE, SIDE, option


@dataclass(frozen=True, kw_only=True)
class Detector:
    """Which of torchvision's detectors, and how large its images are.

    trainable_layers: None is torchvision's number: 3 where the norms are frozen, else all.
    """

    detector: str = option(
        "faster_rcnn",
        "torchvision's",
        choices=("faster_rcnn", "mask_rcnn", "retinanet", "fcos"),
    )
    trainable_layers: int | None = option(
        None,
        "the network's last stages that learn; 3 with --weights, all without, by default",
        type=int,
        choices=range(6),
    )
    min_size: int = option(800, "shorter side of the images", type=SIDE)
    max_size: int = option(1333, "longer side at most", type=SIDE)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a detector learns; the defaults are those of torchvision's references.

    lr: None is 0.02 for 16 images a step, and in proportion.
    """

    batch_size: int = option(8, "images per step, over all GPUs", "-b", type=COUNT)
    lr: float | None = option(None, "0.02 for 16 images, in proportion, by default", type=RATE)
    lr_steps: list[int] = option(
        "16,22", "epochs from which on it is a tenth", type=comma_list(number(int, 1))
    )
    warmup_steps: int = option(1000, "of the first epoch, at most", type=number(int, 0))
    epochs: int = option(26, "in total", type=COUNT)

    def lr_at(self, epoch: int, step: int, steps: int) -> float:
        """The learning rate of a step of an epoch that has so many."""
        lr = 0.02 / 16 * self.batch_size if self.lr is None else self.lr
        lr *= 0.1 ** sum(epoch >= each for each in self.lr_steps)
        warmup = min(self.warmup_steps, steps - 1)
        if epoch or step >= warmup:
            return lr
        return lr * (0.001 + 0.999 * step / warmup)
