"""Milliseconds of CIFAR's training step: eager, recorded, and recorded for five seeds in turn.

python -m scripts.gpu_report.cifar DEVICE JSON

ResNet-20 with SimAM, batches of 128, not compiled; a step's time for one seed, and how many times
as fast that is as the row before.
"""

import sys
import time
from collections.abc import Iterator
from itertools import chain, repeat

import torch

from scripts.bench.common import Report, describe, rounded
from scripts.bench.training import GPU
from utils.config import Config, Data, Machine, Network
from utils.data.batches import TrainBatches
from utils.data.cifar import SIZE, CifarLoader, Images
from utils.data.normalise import Normalise
from utils.data.preparation import CIFAR
from utils.processes.dist import Dist, alone
from utils.recording import on_a_stream
from utils.training.engine import train_steps
from utils.training.metrics import Totals
from utils.training.run import Run
from utils.training.state import DataFacts

ARCH = "cifar_resnet20"
BATCH, BATCHES = 128, 10  # of an epoch
# steps that are timed, and those that come first: allocation, recording
STEPS = {"cuda": (200, 10), "cpu": (1, 1)}


def training(images: Images, seed: int, record: bool, dist: Dist) -> Iterator[int]:
    """Steps without end."""
    config = Config(
        network=Network(arch=ARCH, attention="simam", num_classes=len(images.classes)),
        data=Data(image_size=SIZE, batch_size=BATCH),
        machine=Machine(seed=seed, record=record, print_freq=sys.maxsize),
    )
    facts = DataFacts(classes=images.classes, images=len(images), val_images=0, preparation=CIFAR)
    learner = Run(config, dist, facts).learner
    batches = TrainBatches(len(images), BATCH, seed)
    loader = CifarLoader(images, batches, Normalise(dist.device, CIFAR), record)
    endless = chain.from_iterable(repeat(loader))
    yield from train_steps(learner, endless, Totals.zero(dist.device), lambda _step: 0.1)


def milliseconds(seeds: int, record: bool, device: str) -> float:
    """Of a step, for one of so many seeds."""
    dist, classes = alone(GPU[device]), [str(number) for number in range(10)]
    pixels = torch.randint(256, (BATCH * BATCHES, 3, SIZE, SIZE), dtype=torch.uint8)
    images = Images(pixels, torch.arange(len(pixels)) % len(classes), classes)
    running = [
        on_a_stream(training(images, seed, record, dist), dist.device) for seed in range(seeds)
    ]

    def take(steps: int) -> float:
        """The seconds that so many steps of each took."""
        started = time.perf_counter()
        for each in steps * running:
            next(each)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    steps, before = STEPS[device]
    take(before)
    return 1e3 * take(steps) / (steps * seeds)


def main(device: str, path: str) -> int:
    report, former = Report(describe(device), path), None
    for seeds, record in ((1, False), (1, True), (5, True)):
        ms = milliseconds(seeds, record, device)
        row = {"network": ARCH, "recorded": record, "seeds": seeds, "ms": rounded(ms)}
        report.add("cifar", [row | {"speed": former and rounded(former / ms)}])
        former = ms
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
