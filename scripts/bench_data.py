"""How fast images become batches: the published pipeline against this one.

    python scripts/bench_data.py DATA [--resized COPY] [-j WORKERS] [--json FILE]

DATA holds train/<class>/ or val/<class>/. Prints Markdown: images per second of the workers'
processor time, and of all workers by the clock, for the training and evaluation transforms, in
rounds that take turns; how far the decoders' pixels lie apart; and how much of a training step is
spent waiting for images. COPY, which prepare_imagenet.py --shorter-side made,
holds the same images for further rows.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import PIL
import simplejpeg
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image, features
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import transforms

from networks import create_model
from utils.cli import Parser, exit_code, number
from utils.data.images import EvalTransform, TrainTransform, open_image
from utils.data.listing import Listing, list_images
from utils.data.loader import (
    BATCHES_AHEAD,
    MEAN,
    STD,
    Collate,
    ImageDataset,
    start_worker,
    train_loader,
)
from utils.errors import UsageError, reason
from utils.processes.dist import Dist, choose_device, describe

SIZE = 224
WARM_UP = BATCHES_AHEAD + 1  # batches until a worker has all the memory that it will use
OURS = {"train": TrainTransform, "val": EvalTransform}
TO_FLOATS = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
PUBLISHED = {
    "train": [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), *TO_FLOATS],
    "val": [transforms.Resize(256), transforms.CenterCrop(SIZE), *TO_FLOATS],
}


class Published(Dataset):
    """The published code's samples: Pillow, then normalised floats, all in the worker."""

    def __init__(self, listing: Listing, transform: Callable):
        self.listing, self.transform = listing, transform

    def __len__(self) -> int:
        return len(self.listing.paths)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        with open(self.listing.paths[key[1]], "rb") as file:
            image = Image.open(file).convert("RGB")
        return self.transform(image), int(self.listing.targets[key[1]])


class TimedCollate:
    """A batch, and by when the worker that made it had used how much processor time."""

    def __init__(self, collate: Callable):
        self.collate = collate

    def __call__(self, samples: list) -> tuple:
        batch = self.collate(samples)
        return batch, os.getpid(), time.process_time()


class Pipeline:
    """A row of the table: a dataset, and how its samples become a batch."""

    def __init__(self, name: str, listing: Listing, transform: str, backend: str | None):
        self.name, self.transform = name, transform
        if backend is None:
            self.dataset = Published(listing, transforms.Compose(PUBLISHED[transform]))
            self.collate, self.start = default_collate, None
        else:
            self.dataset = ImageDataset(listing, OURS[transform](SIZE), backend=backend)
            self.collate, self.start = Collate(), start_worker
        self.core_rates: list[float] = []
        self.rates: list[float] = []

    def measure(self, epoch: int, batch_size: int, workers: int, steps: int) -> None:
        """One round: `steps` batches from each worker, after those that start it."""
        indices = np.arange((WARM_UP + steps) * workers * batch_size) % len(self.dataset)
        batches = [[(epoch, int(i)) for i in batch] for batch in indices.reshape(-1, batch_size)]
        loader = DataLoader(
            self.dataset,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=TimedCollate(self.collate),
            worker_init_fn=self.start,
        )
        stamps: dict[int, list[float]] = {}
        for step, (_, worker, processor_time) in enumerate(loader, 1):
            stamps.setdefault(worker, []).append(processor_time)
            if step == WARM_UP * workers:
                started = time.perf_counter()
        seconds = time.perf_counter() - started
        images = steps * workers * batch_size
        self.rates.append(images / seconds)
        used = sum(each[-1] - each[WARM_UP - 1] for each in stamps.values())
        self.core_rates.append(images / used)

    def row(self) -> dict:
        def spread(rates: list[float]) -> dict:
            names = ("median", "min", "max")
            values = statistics.median(rates), min(rates), max(rates)
            return {name: round(value, 1) for name, value in zip(names, values, strict=True)}

        return {
            "pipeline": self.name,
            "transform": self.transform,
            "images_per_s_and_core": spread(self.core_rates),
            "images_per_s_all_workers": spread(self.rates),
        }


def pixel_difference(listing: Listing, transform: str) -> dict[str, float]:
    """Between turbo and pil, in 1/255: mean over all images, the worst image's mean, and the 99th
    percentile over pixels."""
    turbo, pillow = (
        ImageDataset(listing, OURS[transform](SIZE), backend=name) for name in ("turbo", "pil")
    )
    keys = [(0, index) for index in range(len(turbo))]
    counts, means = np.zeros(256, np.int64), []
    for key in keys:
        difference = (turbo[key][0].int() - pillow[key][0].int()).abs().numpy()
        counts += np.bincount(difference.ravel(), minlength=256)
        means.append(float(difference.mean()))
    percentile = int(np.searchsorted(counts.cumsum(), 0.99 * counts.sum()))
    return {
        "mean": round(statistics.mean(means), 4),
        "worst_image_mean": round(max(means), 4),
        "99th_percentile": percentile,
    }


def waiting_share(listing: Listing, arch: str, batch_size: int, workers: int, steps: int) -> dict:
    """How much of the time of `steps` training steps passes before a batch is there."""
    device = choose_device(None)
    dist = Dist(0, 1, device)
    repeated = listing._replace(
        paths=[listing.paths[i % len(listing.paths)] for i in range(batch_size * (steps + 2))],
        targets=np.resize(listing.targets, batch_size * (steps + 2)),
    )
    loader = train_loader(repeated, SIZE, batch_size, 0, workers, dist, backend="turbo")
    model = create_model(arch, num_classes=len(listing.classes)).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    waited, batches = 0.0, iter(loader)
    for step in range(steps + 2):
        if step == 2:  # the first steps start the workers and choose kernels
            waited, started = 0.0, time.perf_counter()
        before = time.perf_counter()
        images, targets = next(batches)
        waited += time.perf_counter() - before
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    share = waited / (time.perf_counter() - started)
    return {
        "network": arch,
        "device": describe(dist),
        "batch_size": batch_size,
        "workers": workers,
        "share": round(share, 4),
    }


def machine() -> dict:
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    modules = {"pillow": PIL, "simplejpeg": simplejpeg, "torch": torch, "torchvision": torchvision}
    versions = {name: module.__version__ for name, module in modules.items()}
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        **versions,
        "libjpeg_turbo_of_pillow": features.version("libjpeg_turbo"),
    }


def listed(root: str, most: int) -> Listing:
    """At most `most` images of train/, or of val/ where that is all there is, spread evenly."""
    listing = list_images(root, "train" if os.path.isdir(os.path.join(root, "train")) else "val")
    chosen = np.linspace(0, len(listing.paths) - 1, min(most, len(listing.paths)), dtype=int)
    paths = [listing.paths[index] for index in chosen]
    return listing._replace(paths=paths, targets=listing.targets[chosen])


def describe_images(listing: Listing) -> dict:
    """What they are on average; raises UsageError for one that can't be decoded."""
    sizes = []
    for path in listing.paths:
        try:
            image = open_image(path, "pil")
        except Exception as error:  # a damaged file makes Pillow raise almost anything
            raise UsageError(f"can't decode image {path} ({reason(error)})") from None
        sizes.append((image.width, image.height))
    return {
        "images": len(sizes),
        "mean_bytes": round(statistics.mean(os.path.getsize(path) for path in listing.paths)),
        "mean_width": round(statistics.mean(width for width, _ in sizes)),
        "mean_height": round(statistics.mean(height for _, height in sizes)),
    }


def check_arch(arch: str) -> None:
    """Raise UsageError for a network that there isn't."""
    try:
        create_model(arch)
    except ValueError as error:
        raise UsageError(str(error)) from None


def measure(args: argparse.Namespace) -> dict:
    check_arch(args.arch)  # the network comes last, after minutes
    listing = listed(args.data, args.images)
    sets = {"": listing}
    if args.resized:
        sets[", resized copy"] = listed(args.resized, args.images)
    data = {name.strip(", ") or "images": describe_images(images) for name, images in sets.items()}
    backends = {"published": None, "ours, pil": "pil", "ours, turbo": "turbo"}
    pipelines = [
        Pipeline(name + where, images, transform, backend)
        for transform in OURS
        for where, images in sets.items()
        for name, backend in backends.items()
    ]
    for round_number in range(args.rounds):
        for pipeline in pipelines:
            pipeline.measure(round_number, args.batch_size, args.workers, args.steps)
    return {
        "machine": machine(),
        "data": data,
        "workers": args.workers,
        "batch_size": args.batch_size,
        "rounds": args.rounds,
        "rows": [pipeline.row() for pipeline in pipelines],
        "pixel_difference_in_255ths": {name: pixel_difference(listing, name) for name in OURS},
        "waiting": waiting_share(
            listing, args.arch, args.train_batch, args.workers, args.train_steps
        ),
    }


def markdown(result: dict) -> str:
    """The measured numbers as tables."""
    count = result["workers"]
    workers = f"{count} worker{'s' * (count > 1)}"
    lines = [
        f"| transform | pipeline | images/s/core (min - max) | x published | images/s, {workers} |",
        "|---|---|---|---|---|",
    ]
    published = {}
    for row in result["rows"]:
        core, together = row["images_per_s_and_core"], row["images_per_s_all_workers"]
        base = published.setdefault(row["transform"], core["median"])
        lines.append(
            f"| {row['transform']} | {row['pipeline']} | {core['median']:.0f} "
            f"({core['min']:.0f} - {core['max']:.0f}) | {core['median'] / base:.2f} "
            f"| {together['median']:.0f} |"
        )
    lines += ["", "| turbo against pil, 1/255 | mean | worst image | 99th percentile |"]
    lines += ["|---|---|---|---|"]
    for name, values in result["pixel_difference_in_255ths"].items():
        lines.append(f"| {name} | {' | '.join(f'{value:g}' for value in values.values())} |")
    waiting = result["waiting"]
    lines += [
        "",
        f"{waiting['network']}, batch {waiting['batch_size']}, {workers} on "
        f"{waiting['device']}: {100 * waiting['share']:.1f} % of a step is waiting for images.",
    ]
    return "\n".join(lines)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add, count = parser.add_argument, number(int, 1)
    add("data", metavar="DATA", help="folder with train/<class>/ or val/<class>/")
    add("--resized", metavar="COPY", help="the same images, written by prepare_imagenet.py")
    add("--images", type=count, default=500, help="how many images to use, at most")
    add(
        "-j",
        "--workers",
        type=count,
        default=os.cpu_count(),
        help="processes that load images",
    )
    add("--batch-size", type=count, default=256, help="images per batch")
    add("--rounds", type=count, default=5, help="rounds over all pipelines")
    add("--steps", type=count, default=2, help="batches of each worker in a round")
    add("-a", "--arch", default="resnet18", help="network of the training steps")
    add("--train-batch", type=count, default=32, help="images per training step")
    add("--train-steps", type=count, default=8, help="training steps")
    add("--json", type=Path, metavar="FILE", help="write the numbers here too")
    args = parser.parse_args(argv)
    if args.json and not args.json.resolve().parent.is_dir():
        parser.error(f"--json {args.json}: its folder does not exist; create it first")
    return args


def bench(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    result = measure(args)
    print(markdown(result))
    if args.json:
        try:
            args.json.write_text(json.dumps(result, indent=2) + "\n")
        except OSError as error:
            raise UsageError(f"can't write {args.json}: {error.strerror}") from None


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: bench(args))


if __name__ == "__main__":
    sys.exit(main())
