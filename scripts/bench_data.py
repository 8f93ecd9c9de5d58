"""How fast images become batches: the published pipeline against this one.

    python scripts/bench_data.py DATA [OTHER ...] [-j WORKERS] [--json FILE]

DATA holds train/ or val/ as main_imagenet.py takes it. Prints Markdown: images per second of the
workers' processor time, for the training and evaluation transforms, in rounds that take turns, and
how far the decoders' pixels lie apart. Each OTHER holds the same images for further rows: smaller,
or in archives, as prepare_imagenet.py makes them.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.cli import Parser, number


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add, count = parser.add_argument, number(int, 1)
    add("data", metavar="DATA", help="folder with train/ or val/")
    add("others", metavar="OTHER", nargs="*", help="folders with the same images in other forms")
    add("--images", type=count, default=500, help="how many images to use, at most")
    workers = {"type": count, "default": os.cpu_count()}
    add("-j", "--workers", **workers, help="processes that load images")
    add("--batch-size", type=count, default=256, help="images per batch")
    add("--rounds", type=number(int, 2), default=5, help="measured turns of each pipeline")
    add("--steps", type=count, default=2, help="batches of each worker in a round")
    add("--json", metavar="FILE", help="write every number here too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import transforms

from scripts.bench.common import Report, describe, rounded, summary, take_turns
from utils.data.batches import Key
from utils.data.images import EvalTransform, TrainTransform, choose_backend, open_image
from utils.data.listing import Listing, list_images, place_of
from utils.data.loader import BATCHES_AHEAD, Collate, ImageDataset, start_worker
from utils.data.preparation import IMAGENET
from utils.errors import UsageError, reason
from utils.processes.ending import exit_code

SIZE = 224
WARM_UP = BATCHES_AHEAD + 1  # batches until a worker has all the memory that it will use
OURS = {"train": TrainTransform(SIZE), "val": EvalTransform(IMAGENET)}
TO_FLOATS = transforms.ToTensor(), transforms.Normalize(IMAGENET.mean, IMAGENET.std)
PUBLISHED = {
    "train": [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), *TO_FLOATS],
    "val": [transforms.Resize(256), transforms.CenterCrop(SIZE), *TO_FLOATS],
}


class PublishedImages(Dataset):
    """The published code's samples: Pillow, then normalised floats, all in the worker."""

    def __init__(self, listing: Listing, transform: str):
        self.listing, self.transform = listing, transforms.Compose(PUBLISHED[transform])

    def __len__(self) -> int:
        return len(self.listing.images)

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, int]:
        _, index = key
        with Image.open(io.BytesIO(self.listing.images[index].read())) as file:
            return self.transform(file.convert("RGB")), self.listing.targets[index]


@dataclass
class Pipeline:
    """Samples, and how they become batches in workers that begin with `start`."""

    dataset: Dataset
    collate: Callable = default_collate
    start: Callable[[int], None] | None = None

    def timed(self, samples: list) -> tuple:
        """A batch, and by when the worker that made it had used how much processor time."""
        return self.collate(samples), time.process_time()

    def seconds(self, batch_size: int, workers: int, steps: int) -> float:
        """Processor time an image, in `steps` batches of each worker after those to start with."""
        count = (WARM_UP + steps) * workers * batch_size
        keys = [divmod(number, len(self.dataset)) for number in range(count)]
        loader = DataLoader(
            self.dataset,
            batch_sampler=[keys[at : at + batch_size] for at in range(0, count, batch_size)],
            num_workers=workers,
            collate_fn=self.timed,
            worker_init_fn=self.start,
        )
        # the workers' batches come in turn
        used = np.reshape([so_far for _, so_far in loader], (-1, workers))
        return (used[-1] - used[WARM_UP - 1]).sum() / (steps * workers * batch_size)


def pipelines_for(listing: Listing, transform: str) -> dict[str, Pipeline]:
    found = {"published": Pipeline(PublishedImages(listing, transform))}
    for backend in ("pil", "turbo"):
        dataset = ImageDataset(listing, OURS[transform], backend=backend)
        found[f"ours, {backend}"] = Pipeline(dataset, Collate(), start_worker)
    return found


def pixel_difference(listing: Listing, transform: str) -> dict:
    """Between turbo and pil, in 1/255: mean over all images, the worst image's mean, and the 99th
    percentile over pixels."""
    turbo, pillow = (
        ImageDataset(listing, OURS[transform], backend=backend) for backend in ("turbo", "pil")
    )
    keys = [(0, index) for index in range(len(turbo))]
    gaps = torch.stack([(turbo[key][0].int() - pillow[key][0]).abs().byte() for key in keys])
    means = gaps.flatten(1).float().mean(1)
    return {
        "turbo against pil, 1/255": transform,
        "mean": rounded(means.mean().item()),
        "worst image": rounded(means.max().item()),
        "99th percentile": int(np.percentile(gaps.numpy(), 99)),
    }


def some_images(root: str, most: int) -> Listing:
    """At most `most` images of train/, or of val/ where that is all there is, spread evenly."""
    listing = list_images(root, "train" if place_of(root, "train") else "val")
    count = len(listing.images)
    chosen = np.linspace(0, count - 1, min(most, count), dtype=int)
    images = [listing.images[index] for index in chosen]
    return listing._replace(images=images, targets=listing.targets[chosen])


def describe_images(listing: Listing) -> dict[str, int]:
    """What they are on average; raises UsageError for one that can't be decoded."""
    sizes = []
    for place in listing.images:
        try:
            image = open_image(place, "pil")
        except Exception as error:  # a damaged file makes Pillow raise almost anything
            raise UsageError(f"can't decode image {place} ({reason(error)})") from None
        sizes.append((len(place.read()), image.width, image.height))
    means = (round(each) for each in np.mean(sizes, 0))
    return {"images": len(sizes)} | dict(zip(("bytes", "width", "height"), means, strict=True))


def bench(args: argparse.Namespace) -> None:
    choose_backend("turbo", "turbo")  # raises UsageError where it is not installed
    sets = {"": some_images(args.data, args.images)}
    for other in args.others:
        sets[f", {os.path.basename(os.path.normpath(other))}"] = some_images(other, args.images)
    options = {name: vars(args)[name] for name in ("workers", "batch_size", "rounds")}
    packages = "torchvision", "pillow", "simplejpeg"
    report = Report(describe("cpu", *packages) | options, args.json)
    about = [{"set": f"DATA{where}"} | describe_images(each) for where, each in sets.items()]
    report.add("data", about)
    turns = {}
    for transform, (where, images) in product(OURS, sets.items()):
        for name, pipeline in pipelines_for(images, transform).items():
            size = args.batch_size, args.workers, args.steps
            turns[transform, name + where] = partial(pipeline.seconds, *size)
    times = take_turns(turns, args.rounds)
    rows = [
        {"transform": transform, "pipeline": name, "images/s/core": rounded(1 / median(own))}
        | summary(own, times[transform, "published"])
        for (transform, name), own in times.items()
    ]
    report.add("rows", rows)
    report.add("pixels", [pixel_difference(sets[""], each) for each in OURS])


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: bench(args))


if __name__ == "__main__":
    sys.exit(main())
