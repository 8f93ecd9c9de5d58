"""What each of two processes does for test_dist.py; the first writes what came out to a file."""

import json
import signal
import sys
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
from runs import STEPS, SignalAtForward, command
from torch import nn

from networks.cifar.resnet import CifarResNet
from utils.config import Config, Data, Machine, Network, Optim
from utils.data.listing import list_images
from utils.data.loader import eval_loader, train_loader
from utils.data.preparation import IMAGENET
from utils.errors import UsageError
from utils.options import parse_args
from utils.processes import dist as processes
from utils.processes.dist import Dist
from utils.processes.signals import Stopped
from utils.training.engine import Learner, Precision, evaluate, train_steps
from utils.training.metrics import Totals
from utils.training.optim import make_optimizer

SIZES = (1, 2, 5, 8)  # of validation sets: fewer than processes, divided evenly or not
PRECISION = Precision("cpu")


def network(norm: bool) -> nn.Module:
    """A small network, always the same."""
    torch.manual_seed(0)
    norm_layer = nn.BatchNorm2d(8) if norm else nn.Identity()
    layers = (nn.Conv2d(3, 8, 3, 2), norm_layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(8, 3))


def evaluations(dist: Dist, data: str) -> list[dict[str, float]]:
    """Metrics of validation sets of SIZES images."""
    listing = list_images(data, "val")
    images, targets = list(listing.images)[::-1], listing.targets[::-1]
    model = network(norm=True)
    model[1].running_mean.fill_(dist.rank)  # only the first process's may count
    wrapped = dist.wrap(model)
    results = []
    for size in SIZES:
        part = listing._replace(images=images[:size], targets=targets[:size])
        loader = eval_loader(part, Data(batch_size=6, workers=0), IMAGENET.at(32), dist)
        results.append(evaluate(dist.for_evaluation(wrapped), loader, dist, PRECISION))
    return results


def training(dist: Dist, data: str) -> dict[str, list]:
    """Weights after an epoch in steps of twelve images over all processes."""
    model, optim = network(norm=False), Optim()
    wrapped, optimizer = dist.wrap(model), make_optimizer(model, optim)
    small = Data(image_size=32, batch_size=12, workers=0)
    config = Config(network=Network(arch="none of ours"), data=small)
    loader = train_loader(list_images(data, "train"), config, dist, seed=7)
    learner = Learner(wrapped, optimizer, optim, PRECISION, dist)
    for _ in train_steps(learner, loader, Totals.zero(dist.device), lambda _step: 0.1):
        pass
    return {key: value.tolist() for key, value in model.state_dict().items()}


def keeps_its_statistics(dist: Dist) -> bool:
    """Whether this process's batch statistics, after two steps, are those of its own images."""
    images = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(dist.rank))
    model, alone = network(norm=True), network(norm=True)
    wrapped = dist.wrap(model)
    for some in images:
        wrapped(some), alone(some)
    return torch.allclose(model[1].running_mean, alone[1].running_mean)


def refusal(dist: Dist) -> str:
    """What a process says whose data is not the first one's."""
    try:
        dist.check_same({"images": 10 + dist.rank})
    except UsageError as error:
        return str(error)
    return ""


def results(dist: Dist, data: str) -> dict:
    refusals = [refusal(dist)] * dist.world
    if dist.world > 1:
        torch.distributed.all_gather_object(refusals, refusals[0])
    return {
        "evaluations": evaluations(dist, data),
        "training": training(dist, data),
        "lost statistics": dist.largest(not keeps_its_statistics(dist)),
        "largest": dist.largest(dist.rank, 5 - dist.rank),
        "from main": dist.from_main(lambda: f"made by {dist.rank}"),
        "refusals": refusals,
    }


def main(folder: Path, checkpoint: str) -> None:
    """In `folder`: train and evaluate with the command's own functions, write the results."""
    dist = processes.start(Machine(gpu="-1"))
    import main_imagenet  # here: test_dist.py is collected without its packages too

    def config(data: str, root: str, *more) -> Config:
        words = command(folder / data, folder / root, "--epochs", 2, *more)
        return Config.of(parse_args(words))

    found = results(dist, folder / "digits")
    main_imagenet.train(config("digits", "whole"), dist)
    asked = SignalAtForward(CifarResNet, 1 + STEPS + 2 + 2, signal.SIGTERM)
    with suppress(Stopped), asked if dist.rank == 1 else nullcontext():
        main_imagenet.train(config("digits", "parts"), dist)
    main_imagenet.train(config("digits", "parts", "--resume", "auto"), dist)
    for few in ("one", "three", "digits"):
        main_imagenet.evaluate(config(few, "", "-e", "--resume", checkpoint), dist)
    processes.finish()
    found["threads"] = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    if dist.is_main:
        (folder / "results").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
