"""Images in class folders, as reproducible batches on the device."""

import gc
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from ..errors import UsageError, reason
from ..processes.dist import Dist
from ..processes.memory import keep_freed_memory
from ..processes.signals import leave_to_parent
from .images import EvalTransform, TrainTransform, Transform, open_image
from .listing import Listing
from .preparation import IMAGENET, Preparation
from .seed import mix_seed, seeded

MEAN, STD = IMAGENET.mean, IMAGENET.std

# how many each worker is asked for before they are needed: every loader with `Collate` must ask for
# no more, and this is PyTorch's default
BATCHES_AHEAD = 2

Key = tuple[int, int]  # (epoch, index): all that a sample depends on besides the seed


class BadImage(NamedTuple):
    """Stands for a sample that can't be decoded, on its way from a worker to `DeviceLoader`."""

    path: str
    reason: str


Sample = tuple[torch.Tensor, int, list[BadImage]]


class ImageDataset(Dataset):
    """Samples by (epoch, index): uint8 image (3, H, W), class index, `BadImage`s passed over.

    Random transforms draw from (seed, epoch, index) alone, so a sample does not depend on the
    worker that makes it, nor on the samples before it. backend: see utils/data/images.py. skip_bad:
    what can't be decoded is replaced by the next image; else it is a `BadImage` itself.
    """

    def __init__(
        self,
        listing: Listing,
        transform: Transform,
        seed: int = 0,
        backend: str = "pil",
        skip_bad: bool = False,
    ):
        self.listing, self.transform, self.seed = listing, transform, seed
        self.backend, self.skip_bad = backend, skip_bad

    def __len__(self) -> int:
        return len(self.listing.paths)

    def __getitem__(self, key: Key) -> Sample | BadImage:
        epoch, index = key
        passed_over = []
        for candidate in range(index, index + (len(self) if self.skip_bad else 1)):
            candidate %= len(self)
            path = self.listing.paths[candidate]
            rng = seeded(self.seed, epoch, candidate)
            try:
                image = self.transform(open_image(path, self.backend), rng)
            except Exception as error:  # a damaged file makes Pillow raise almost anything
                passed_over.append(BadImage(path, reason(error)))
            else:
                return image, int(self.listing.targets[candidate]), passed_over
        return passed_over[0]


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

    @property
    def sizes(self) -> set[int]:
        """How many images this process gets at once; the last batch may be smaller."""
        batches = min(self.batch_size, self.used), self.used % self.batch_size
        return {batch // self.world for batch in batches} - {0}

    def __len__(self) -> int:
        return -(-self.used // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
        order = torch.randperm(self.num_images, generator=generator)[: self.used]
        for first in range(self.first_step * self.batch_size, self.used, self.batch_size):
            batch = order[first : first + self.batch_size][self.rank :: self.world]
            yield [(self.epoch, index) for index in batch.tolist()]


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

    @property
    def sizes(self) -> set[int]:
        """How many images this process gets at once; the last batch may be smaller."""
        own = len(self.indices)
        return {min(self.batch_size, own), own % self.batch_size} - {0}

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        for first in range(0, len(self.indices), self.batch_size):
            yield [(0, index) for index in self.indices[first : first + self.batch_size]]


class Collate:
    """Samples -> uint8 images (N, 3, H, W) in channels-last memory, targets (N,), all `BadImage`s.

    A `BadImage` in place of a sample is returned alone. A worker puts its images where those of
    an earlier batch were: fresh shared pages took longer than the copy into them. So whoever asks
    the loader for a batch must be done with the one before; workers fill at most
    `BATCHES_AHEAD` more meanwhile.
    """

    def __init__(self):
        self.memory = deque([torch.empty(0)] * (BATCHES_AHEAD + 1))

    def __call__(self, samples: list[Sample | BadImage]) -> tuple | BadImage:
        for sample in samples:
            if isinstance(sample, BadImage):
                return sample
        images, targets, passed_over = zip(*samples, strict=True)
        rows = [image.permute(1, 2, 0) for image in images]
        batch = torch.stack(rows, out=self._shared(len(rows), rows[0])).permute(0, 3, 1, 2)
        targets = torch.tensor(targets)
        if get_worker_info():
            targets.share_memory_()  # else on the way out, where no error is reported
        return batch, targets, [bad for several in passed_over for bad in several]

    def _shared(self, number: int, image: torch.Tensor) -> torch.Tensor | None:
        """Memory for `number` images like this one that the parent can read, None in the parent."""
        if get_worker_info() is None:
            return None
        self.memory.rotate()
        if self.memory[0].shape[1:] != image.shape or len(self.memory[0]) < number:
            self.memory[0] = image.new_empty(number, *image.shape).share_memory_()
        return self.memory[0][:number]


def start_worker(worker: int) -> None:
    """Leave signals to the parent, and out of garbage collection what was made before the fork:
    looking at it takes time, and memory, since each look copies a page of the parent's. What a
    batch needs was freed by the one before."""
    leave_to_parent(worker)
    gc.freeze()
    keep_freed_memory()


class AfterFirst(Sampler):
    """`batches` in every round but the first, which is one image: enough to start a loader with."""

    def __init__(self, batches: Sampler):
        self.batches, self.started = batches, False

    def __iter__(self) -> Iterator[list[Key]]:
        if self.started:
            yield from self.batches
        else:
            self.started = True
            yield [(0, 0)]


class Normalise:
    """uint8 images -> `dtype` on `device`: less the mean (ImageNet's), by the deviation."""

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        mean: tuple[float, ...] = MEAN,
        std: tuple[float, ...] = STD,
    ):
        self.dtype = dtype
        self.mean = 255 * torch.tensor(mean, device=device)[:, None, None]
        self.std = 255 * torch.tensor(std, device=device)[:, None, None]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean).div_(self.std).to(self.dtype)

    def undo(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images -> uint8, as they were."""
        return (images * self.std + self.mean).round().clamp(0, 255).to(torch.uint8)


class DeviceLoader:
    """Normalised images (N, 3, H, W), channels last, and targets (N,) on `device`.

    batches: `TrainBatches` or `EvalBatches`. dtype: of the images; what the network computes in.
    report: called with one line for every image that was passed over, the first time; see
    `ImageDataset`. mean, std: see `Normalise`. Raises UsageError at an image that can't be decoded.
    The workers start at once: make it before the training begins.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batches: Sampler,
        workers: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        report: Callable[[str], None] | None = None,
        mean: tuple[float, ...] = MEAN,
        std: tuple[float, ...] = STD,
    ):
        self.batches, self.device, self.report = batches, device, report
        self.normalise = Normalise(device, dtype, mean, std)
        self.passed_over: set[str] = set()
        # one for all epochs: the allocator keeps the memory of every stream that was ever used
        self.copying = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.loader = DataLoader(
            dataset,
            batch_sampler=AfterFirst(batches) if workers else batches,
            num_workers=workers,
            prefetch_factor=BATCHES_AHEAD if workers else None,
            collate_fn=Collate(),
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            worker_init_fn=start_worker,
            # workers get their base seed from it; the global one belongs to the training
            generator=torch.Generator(),
        )
        if workers:
            # A worker that is forked while another thread holds a lock, say of the C library, can
            # wait for that lock without end. The training has many threads, and this loader its
            # own, which pins memory; that one has settled when the first image is here.
            next(self._collated())

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        copies = self._copied_ahead() if self.copying else self._decoded()
        for images, targets in copies:
            yield self.normalise(images), targets

    def _decoded(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in self._collated():
            if isinstance(batch, BadImage):
                raise UsageError(
                    f"can't decode image {batch.path} ({batch.reason}); scripts/check_images.py "
                    f"lists all such files{self._advice()}"
                )
            images, targets, passed_over = batch
            for path, why in passed_over:
                if path not in self.passed_over:
                    self.passed_over.add(path)
                    self.report(f"skipped image {path} ({why}); {len(self.passed_over)} so far")
            yield images, targets

    def _collated(self) -> Iterator[tuple | BadImage]:
        try:
            yield from self.loader
        except (ConnectionError, EOFError) as error:
            # a worker that was killed while it handed over a batch, before PyTorch knows of it
            raise RuntimeError(f"DataLoader worker hung up ({reason(error)})") from error

    def _advice(self) -> str:
        training = isinstance(self.batches, TrainBatches)
        if training and not self.loader.dataset.skip_bad:
            return ", --skip-bad-images leaves them out of the training"
        return "; get them again, or take them out of the folder"

    def _copied_ahead(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches on the GPU; while one is in use, a stream of its own copies the next."""
        waiting = None
        for batch in self._decoded():
            with torch.cuda.stream(self.copying):
                copy = tuple(tensor.to(self.device, non_blocking=True) for tensor in batch)
            if waiting:
                yield self._handed_over(*waiting)
            waiting = copy, self.copying.record_event()
        if waiting:
            yield self._handed_over(*waiting)

    def _handed_over(self, copy: tuple, copied: torch.cuda.Event) -> tuple:
        """`copy` for the current stream, which its memory must outlive."""
        current = torch.cuda.current_stream(self.device)
        current.wait_event(copied)
        for tensor in copy:
            tensor.record_stream(current)
        return copy


class SyntheticLoader:
    """Like `DeviceLoader`, with random images and targets that are made once, on the device."""

    def __init__(
        self, batches: Sampler, size: int, classes: int, device: torch.device, dtype: torch.dtype
    ):
        self.batches = batches
        self.normalise = Normalise(device, dtype)
        shape = batches.batch_size, size, size, 3
        images = torch.randint(256, shape, dtype=torch.uint8, device=device)
        self.images = images.permute(0, 3, 1, 2)
        self.targets = torch.randint(classes, shape[:1], device=device)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for keys in self.batches:
            yield self.normalise(self.images[: len(keys)]), self.targets[: len(keys)]


def train_loader(
    listing: Listing,
    size: int,
    batch_size: int,
    seed: int,
    workers: int,
    dist: Dist,
    dtype: torch.dtype = torch.float32,
    backend: str = "pil",
    report: Callable[[str], None] | None = None,
    policy: str | None = None,
) -> DeviceLoader | SyntheticLoader:
    """Training batches of `batch_size` images over all processes, `workers` on this one.

    report: see `DeviceLoader`; None stops at an image that can't be decoded. policy: see
    `TrainTransform`.
    """
    batches = TrainBatches(len(listing.paths), batch_size, seed, dist.rank, dist.world)
    if listing.synthetic:
        return SyntheticLoader(batches, size, len(listing.classes), dist.device, dtype)
    transform = TrainTransform(size, policy)
    dataset = ImageDataset(listing, transform, seed, backend, report is not None)
    return DeviceLoader(dataset, batches, workers, dist.device, dtype, report)


def eval_loader(
    listing: Listing,
    preparation: Preparation,
    batch_size: int,
    workers: int,
    dist: Dist,
    dtype: torch.dtype = torch.float32,
    backend: str = "pil",
) -> DeviceLoader | SyntheticLoader:
    """This process's share of the validation images, `batch_size` at once over all processes."""
    size, shorter = preparation.centre_crop, preparation.shorter_side
    share = max(batch_size // dist.world, 1)
    batches = EvalBatches(len(listing.paths), share, dist.rank, dist.world)
    if listing.synthetic:
        return SyntheticLoader(batches, size, len(listing.classes), dist.device, dtype)
    dataset = ImageDataset(listing, EvalTransform(size, shorter), backend=backend)
    statistics = {"mean": preparation.mean, "std": preparation.std}
    return DeviceLoader(dataset, batches, workers, dist.device, dtype, **statistics)
