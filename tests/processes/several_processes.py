"""What each process does for test_distributed.py; the first writes what came out to a file."""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from utils.data.listing import list_images
from utils.data.loader import eval_loader, train_loader
from utils.data.preparation import IMAGENET
from utils.errors import UsageError
from utils.processes import dist as distributed
from utils.training.engine import Precision, evaluate, train_one_epoch
from utils.training.metrics import Totals

SIZES = (1, 2, 5, 7, 15)  # of validation sets: fewer than processes, divided by none, by all
PRECISION = Precision("cpu")


def network(norm: bool) -> nn.Module:
    """A small network; with batch norm, its statistics come from the process's rank."""
    torch.manual_seed(0)
    norm_layer = nn.BatchNorm2d(8) if norm else nn.Identity()
    layers = (nn.Conv2d(3, 8, 3, 2), norm_layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(8, 3))


def evaluations(dist: distributed.Dist, data: str) -> list[dict[str, float]]:
    """Metrics of validation sets of SIZES images."""
    listing = list_images(data, "val")
    paths, targets = list(listing.paths)[::-1], listing.targets[::-1]
    model = network(norm=True)
    model[1].running_mean.fill_(dist.rank)  # only the first process's may count
    wrapped = dist.wrap(model)
    results = []
    for size in SIZES:
        part = listing._replace(paths=paths[:size], targets=targets[:size])
        loader = eval_loader(part, IMAGENET.at(32), 4, 0, dist)
        results.append(evaluate(dist.for_evaluation(wrapped), loader, dist, PRECISION))
    return results


def training(dist: distributed.Dist, data: str) -> dict[str, list]:
    """Weights after an epoch in steps of twelve images over all processes."""
    model = network(norm=False)
    wrapped = dist.wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    loader = train_loader(list_images(data, "train"), 32, 12, 7, 0, dist)
    loader.batches.start(0)
    totals = Totals.zero(dist.device)
    scaler = PRECISION.scaler()
    train_one_epoch(wrapped, loader, optimizer, lambda step: 0.1, totals, dist, PRECISION, scaler)
    return {key: value.tolist() for key, value in model.state_dict().items()}


def refusal(dist: distributed.Dist) -> str:
    """What a process says whose data is not the first one's."""
    try:
        dist.check_same({"images": 10 + dist.rank})
    except UsageError as error:
        return str(error)
    return ""


def main(data: str, out: str) -> None:
    dist = distributed.start("-1")
    refusals = [refusal(dist)] * dist.world
    if dist.world > 1:
        torch.distributed.all_gather_object(refusals, refusals[0])
    result = {
        "world": dist.world,
        "evaluations": evaluations(dist, data),
        "training": training(dist, data),
        "largest": dist.largest(dist.rank, 5 - dist.rank),
        "from main": dist.from_main(lambda: f"made by {dist.rank}"),
        "refusals": refusals,
    }
    if dist.is_main:
        Path(out).write_text(json.dumps(result))
    distributed.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
