"""Which images make a batch: reproducible orders, split over the processes."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from ..errors import UsageError
from .seed import mix_seed

Key = tuple[int, int]  # (epoch, index): all that a sample depends on besides the seed


class TrainBatches(Sampler):
    """Batches of keys for this process: an order per epoch, drawn from (seed, epoch).

    batch_size: images per step over all processes; each takes every `world`-th of them. The last
    batch is smaller, the same number for every process; below two images each it is left out,
    since batch norm can't train on one. `start` says where the next iteration begins. Raises
    UsageError where there is no batch at all.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, rank: int = 0, world: int = 1):
        self.num_images, self.batch_size = num_images, batch_size
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch = self.first_step = 0
        last = num_images % batch_size // world * world
        self.used = num_images - num_images % batch_size + (last if last >= 2 * world else 0)
        if not self.used:
            raise UsageError(f"{num_images} training images are too few: each process needs two")

    def start(self, epoch: int, first_step: int = 0) -> None:
        self.epoch, self.first_step = epoch, first_step

    def images_until(self, step: int) -> int:
        """How many images all processes have seen when `step` steps of an epoch are done."""
        return min(step * self.batch_size, self.used)

    @property
    def sizes(self) -> set[int]:
        """How many images this process gets at once; the last batch may be smaller."""
        batches = min(self.batch_size, self.used), self.used % self.batch_size
        return {batch // self.world for batch in batches} - {0}

    def __len__(self) -> int:
        return -(-self.used // self.batch_size)

    def indices(self, device: torch.device | str = "cpu") -> Iterator[torch.Tensor]:
        """Which images are in each batch, on `device`, where they are brought all at once."""
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
        order = torch.randperm(self.num_images, generator=generator)[: self.used].to(device)
        for first in range(self.first_step * self.batch_size, self.used, self.batch_size):
            yield order[first : first + self.batch_size][self.rank :: self.world]

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in self.indices():
            yield [(self.epoch, index) for index in batch.tolist()]


class EvalBatches(Sampler):
    """Batches of keys that cover every image exactly once over all processes, without padding.

    common_steps: how many every process has; a process may have one more.
    """

    def __init__(self, num_images: int, batch_size: int, rank: int = 0, world: int = 1):
        self.own = range(rank, num_images, world)
        self.num_images, self.batch_size, self.world = num_images, batch_size, world
        self.common_steps = -(-(num_images // world) // batch_size)

    def images_until(self, step: int) -> int:
        """How many images all processes have seen when `step` steps are done."""
        return min(step * self.batch_size * self.world, self.num_images)

    @property
    def sizes(self) -> set[int]:
        """How many images this process gets at once; the last batch may be smaller."""
        own = len(self.own)
        return {min(self.batch_size, own), own % self.batch_size} - {0}

    def __len__(self) -> int:
        return -(-len(self.own) // self.batch_size)

    def indices(self, device: torch.device | str = "cpu") -> Iterator[torch.Tensor]:
        """Which images are in each batch, on `device`, where they are brought all at once."""
        own = torch.tensor(self.own).to(device)
        for first in range(0, len(own), self.batch_size):
            yield own[first : first + self.batch_size]

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in self.indices():
            yield [(0, index) for index in batch.tolist()]
