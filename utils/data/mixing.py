"""Mixup and CutMix: images and targets of a batch, blended with each other."""

from collections.abc import Iterator

import torch
from torchvision.transforms import v2

from ..config import Config
from .loader import Loader
from .seed import mix_seed


class MixingLoader:
    """The batches of `loader`, mixed: images as before, targets as shares (N, num_classes).

    config.data's mixup and cutmix: alpha of the Beta distribution that the shares are drawn from
    (Zhang et al., ICLR 2018; Yun et al., ICCV 2019), 0 for none; with both, each batch takes one
    at random. What is drawn depends on (seed, epoch, step) alone, and is the same in every process.
    """

    def __init__(self, loader: Loader, config: Config, seed: int):
        self.loader, self.seed = loader, seed
        self.batches, self.normalise = loader.batches, loader.normalise
        kinds = ((v2.MixUp, config.data.mixup), (v2.CutMix, config.data.cutmix))
        num_classes = config.network.num_classes
        self.mix = v2.RandomChoice(
            [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha]
        )

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        epoch, first_step = self.batches.epoch, self.batches.first_step
        for step, (images, targets) in enumerate(self.loader, first_step):
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(mix_seed(self.seed, epoch, step))
                images, targets = self.mix(images, targets)
            # on a GPU, `roll` makes them contiguous
            yield images.contiguous(memory_format=torch.channels_last), targets
