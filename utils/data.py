"""Images in class folders, as reproducible batches on the device."""

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset
from torchvision.transforms import v2

from .distributed import Dist
from .errors import UsageError
from .seed import mix_seed
from .signals import leave_to_parent

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Key = tuple[int, int]  # (epoch, index): all that a sample depends on besides the seed


class Listing(NamedTuple):
    """The images of one split. classes: sorted folder names; targets index them."""

    classes: list[str]
    paths: list[str]
    targets: list[int]


def list_images(root: str, split: str) -> Listing:
    """The images under `root`/`split`/<class>, in torchvision's ImageFolder order.

    Raises UsageError for a missing folder, no class folders, and a class without an image.
    """
    if not os.path.isdir(root):
        raise UsageError(f"data folder {root} does not exist")
    folder = os.path.join(root, split)
    if not os.path.isdir(folder):
        raise UsageError(
            f"{root} has no folder {split}/; it must hold train/<class>/ and val/<class>/"
        )
    try:
        classes, class_to_index = find_classes(folder)
    except FileNotFoundError:
        raise UsageError(f"{folder} has no class folders") from None
    samples = make_dataset(folder, class_to_index, IMG_EXTENSIONS, allow_empty=True)
    paths, targets = [path for path, _ in samples], [target for _, target in samples]
    for index in np.flatnonzero(np.bincount(targets, minlength=len(classes)) == 0)[:1]:
        empty = os.path.join(folder, classes[index])
        raise UsageError(f"class folder {empty} holds no image ({' '.join(IMG_EXTENSIONS)})")
    return Listing(classes, paths, targets)


def check_same_classes(train: Listing, val: Listing) -> None:
    """Raise UsageError unless both splits have the same class folders."""
    different = sorted(set(train.classes) ^ set(val.classes))
    if different:
        raise UsageError(
            f"train/ has {len(train.classes)} classes, val/ has {len(val.classes)}; "
            f"in one of them only: {', '.join(different[:5])}"
            + (f" and {len(different) - 5} more" if len(different) > 5 else "")
        )


def train_transform(size: int) -> Callable:
    """PIL image -> uint8 (3, size, size): random crop of 8 to 100 % of the area, random flip."""
    return v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.PILToTensor()])


def eval_transform(size: int) -> Callable:
    """PIL image -> uint8 (3, size, size): shorter side to 256/224 of the size, centre crop."""
    return v2.Compose([v2.Resize(size * 256 // 224), v2.CenterCrop(size), v2.PILToTensor()])


class BadImage(NamedTuple):
    """Stands for a sample that can't be decoded, on its way from a worker to `DeviceLoader`."""

    path: str
    reason: str


class ImageDataset(Dataset):
    """Samples by (epoch, index): uint8 image (3, H, W) and class index, or `BadImage`.

    Random transforms draw from (seed, epoch, index) alone, so a sample does not depend on the
    worker that makes it, nor on the samples before it.
    """

    def __init__(self, listing: Listing, transform: Callable, seed: int = 0):
        self.listing = listing
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.listing.paths)

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, int] | BadImage:
        epoch, index = key
        path = self.listing.paths[index]
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except Exception as error:  # a damaged file makes Pillow raise almost anything
            return BadImage(path, f"{type(error).__name__}: {error}")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mix_seed(self.seed, epoch, index))
            return self.transform(image), self.listing.targets[index]


class TrainBatches(Sampler):
    """Batches of keys for this process: an order per epoch, drawn from (seed, epoch).

    batch_size: images per step over all processes; each takes every `world`-th of them. The last
    batch is smaller, the same number for every process; below two images each it is left out,
    since batch norm can't train on one. `start` says where the next iteration begins.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, rank: int = 0, world: int = 1):
        self.num_images, self.batch_size = num_images, batch_size
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch = self.first_step = 0
        last = num_images % batch_size // world * world
        self.used = num_images - num_images % batch_size + (last if last >= 2 * world else 0)

    def start(self, epoch: int, first_step: int = 0) -> None:
        self.epoch, self.first_step = epoch, first_step

    def images_until(self, step: int) -> int:
        """How many images all processes have seen when `step` steps of an epoch are done."""
        return min(step * self.batch_size, self.used)

    def __len__(self) -> int:
        return -(-self.used // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
        order = torch.randperm(self.num_images, generator=generator).tolist()[: self.used]
        for first in range(self.first_step * self.batch_size, self.used, self.batch_size):
            batch = order[first : first + self.batch_size][self.rank :: self.world]
            yield [(self.epoch, index) for index in batch]


class EvalBatches(Sampler):
    """Batches of keys that cover every image exactly once over all processes, without padding.

    common_steps: how many every process has; a process may have one more.
    """

    def __init__(self, num_images: int, batch_size: int, rank: int = 0, world: int = 1):
        self.indices = range(rank, num_images, world)
        self.num_images, self.batch_size, self.world = num_images, batch_size, world
        self.common_steps = -(-(num_images // world) // batch_size)

    def images_until(self, step: int) -> int:
        """How many images all processes have seen when `step` steps are done."""
        return min(step * self.batch_size * self.world, self.num_images)

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        for first in range(0, len(self.indices), self.batch_size):
            yield [(0, index) for index in self.indices[first : first + self.batch_size]]


def collate(samples: list) -> list[torch.Tensor] | BadImage:
    bad = next((sample for sample in samples if isinstance(sample, BadImage)), None)
    return bad or default_collate(samples)


class DeviceLoader:
    """Normalised float32 images (N, 3, H, W) and targets (N,) on `device`, batch by batch.

    batches: `TrainBatches` or `EvalBatches`. Raises UsageError at an image that can't be decoded.
    """

    def __init__(self, dataset: Dataset, batches: Sampler, workers: int, device: torch.device):
        self.batches = batches
        self.device = device
        self.loader = DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            worker_init_fn=leave_to_parent,
            # workers get their base seed from it; the global one belongs to the training
            generator=torch.Generator(),
        )
        self.mean = 255 * torch.tensor(MEAN, device=device)[:, None, None]
        self.std = 255 * torch.tensor(STD, device=device)[:, None, None]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in self.loader:
            if isinstance(batch, BadImage):
                raise UsageError(f"can't decode image {batch.path} ({batch.reason})")
            images, targets = (tensor.to(self.device, non_blocking=True) for tensor in batch)
            yield images.float().sub_(self.mean).div_(self.std), targets


def train_loader(
    listing: Listing, size: int, batch_size: int, seed: int, workers: int, dist: Dist
) -> DeviceLoader:
    """Training batches of `batch_size` images over all processes, `workers` on this one."""
    dataset = ImageDataset(listing, train_transform(size), seed)
    batches = TrainBatches(len(dataset), batch_size, seed, dist.rank, dist.world)
    return DeviceLoader(dataset, batches, workers, dist.device)


def eval_loader(
    listing: Listing, size: int, batch_size: int, workers: int, dist: Dist
) -> DeviceLoader:
    """This process's share of the validation images, `batch_size` at once over all processes."""
    dataset = ImageDataset(listing, eval_transform(size))
    batches = EvalBatches(len(dataset), max(batch_size // dist.world, 1), dist.rank, dist.world)
    return DeviceLoader(dataset, batches, workers, dist.device)
