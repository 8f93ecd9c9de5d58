"""Images in class folders, as batches on the device."""

import gc
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from ..config import Config, Data
from ..errors import UsageError, reason
from ..processes.dist import Dist
from ..processes.memory import keep_freed_memory
from ..processes.signals import kill_workers_at_exit, leave_to_parent
from .batches import EvalBatches, Key, TrainBatches
from .images import EvalTransform, TrainTransform, Transform, choose_backend, open_image
from .listing import Listing
from .normalise import Normalise
from .preparation import Preparation
from .seed import seeded

# how many each worker is asked for before they are needed: every loader with `Collate` must ask for
# no more, and this is PyTorch's default
BATCHES_AHEAD = 2

Batch = tuple[torch.Tensor, torch.Tensor]


class Loader(Protocol):
    """What gives a training or an evaluation its images: an epoch's batches, on the device.

    Iterating gives normalised images (N, 3, H, W), channels last, and targets: classes (N,), or
    shares of them (N, classes). batches: which images are in each; normalise: how to undo that.
    """

    batches: TrainBatches | EvalBatches
    normalise: Normalise

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


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
        return len(self.listing.images)

    def __getitem__(self, key: Key) -> Sample | BadImage:
        epoch, index = key
        passed_over = []
        for candidate in range(index, index + (len(self) if self.skip_bad else 1)):
            candidate %= len(self)
            place = self.listing.images[candidate]
            rng = seeded(self.seed, epoch, candidate)
            try:
                image = self.transform(open_image(place, self.backend), rng)
            except Exception as error:  # a damaged file makes Pillow raise almost anything
                passed_over.append(BadImage(str(place), reason(error)))
            else:
                return image, int(self.listing.targets[candidate]), passed_over
        return passed_over[0]


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


class DeviceLoader:
    """A `Loader` of a dataset's images, which `workers` processes make.

    report: called with one line for every image that was passed over, the first time; see
    `ImageDataset`. Raises UsageError at an image that can't be decoded. The workers start at once:
    make it before the training begins.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batches: TrainBatches | EvalBatches,
        workers: int,
        normalise: Normalise,
        report: Callable[[str], None] = print,
    ):
        self.batches, self.normalise, self.report = batches, normalise, report
        self.device = device = normalise.device
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
            kill_workers_at_exit()
            # A worker that is forked while another thread holds a lock, say of the C library, can
            # wait for that lock without end. The training has many threads, and this loader its
            # own, which pins memory; that one has settled when the first image is here.
            next(self._collated())

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        copies = self._copied_ahead() if self.copying else self._decoded()
        for images, targets in copies:
            yield self.normalise(images), targets

    def _decoded(self) -> Iterator[Batch]:
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

    def _copied_ahead(self) -> Iterator[Batch]:
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
    """A `Loader` of random images and targets that are made once, on the device."""

    def __init__(
        self,
        batches: TrainBatches | EvalBatches,
        size: int,
        classes: int,
        normalise: Normalise,
    ):
        self.batches, self.normalise, device = batches, normalise, normalise.device
        shape = batches.batch_size, size, size, 3
        images = torch.randint(256, shape, dtype=torch.uint8, device=device)
        self.images = images.permute(0, 3, 1, 2)
        self.targets = torch.randint(classes, shape[:1], device=device)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for keys in self.batches:
            yield self.normalise(self.images[: len(keys)]), self.targets[: len(keys)]


def train_loader(
    listing: Listing,
    config: Config,
    dist: Dist,
    seed: int,
    dtype: torch.dtype = torch.float32,
    report: Callable[[str], None] = print,
) -> DeviceLoader | SyntheticLoader:
    """Training batches over all processes, in `dtype`. report: told of images passed over."""
    data = config.data
    batch_size = dist.batch_size(data.batch_size) * config.optim.accumulate
    batches = TrainBatches(len(listing.images), batch_size, seed, dist.rank, dist.world)
    normalise = Normalise(dist.device, dtype=dtype)
    if data.synthetic:
        return SyntheticLoader(batches, data.image_size, len(listing.classes), normalise)
    transform = TrainTransform(data.image_size, data.auto_augment, data.crop_scale, data.hflip)
    decoder = choose_backend(data.image_backend, "turbo")
    dataset = ImageDataset(listing, transform, seed, decoder, data.skip_bad_images)
    return DeviceLoader(dataset, batches, dist.workers(data.workers), normalise, report)


def eval_loader(
    listing: Listing,
    data: Data,
    preparation: Preparation,
    dist: Dist,
    dtype: torch.dtype = torch.float32,
) -> DeviceLoader | SyntheticLoader:
    """This process's share of the validation images, prepared so, in `dtype`."""
    share = max(dist.batch_size(data.batch_size) // dist.world, 1)
    batches = EvalBatches(len(listing.images), share, dist.rank, dist.world)
    normalise = Normalise(dist.device, preparation, dtype)
    if data.synthetic:
        return SyntheticLoader(batches, preparation.centre_crop, len(listing.classes), normalise)
    decoder = choose_backend(data.image_backend, "pil")
    dataset = ImageDataset(listing, EvalTransform(preparation), backend=decoder)
    return DeviceLoader(dataset, batches, dist.workers(data.workers), normalise)
