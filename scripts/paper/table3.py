"""Table 3: ImageNet, accuracies beside parameters, FLOPs, and speed on this machine."""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from operator import attrgetter, itemgetter
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn

from scripts.bench.common import race
from scripts.evaluate_all import ENDINGS, evaluate_checkpoint
from scripts.paper.common import REPOSITORY, folders, run_in_turn
from utils.checkpoints.trained import load_trained
from utils.config import Data, Network, default_of
from utils.data.listing import IMAGENET_CLASSES, IMAGENET_IMAGES, find_files, list_images
from utils.errors import UsageError
from utils.processes.dist import Dist, alone, describe
from utils.report import tables
from utils.report.finished_runs import read_finished
from utils.report.paper import TABLE3, Figures
from utils.training.complexity import count_flops, count_parameters

LATENCY_ROUNDS = 15
IMAGE_SIZE = 224
PAPERS_LAMBDA = 0.1

Key = tuple[str, str]  # of TABLE3


class Result(NamedTuple):
    """What a run or a checkpoint reached, in percent, and the row that it belongs to."""

    key: Key
    acc1: float
    acc5: float


@dataclass(frozen=True, kw_only=True)
class Row(tables.Comparison):
    """A network's top-1, and all figures of ours, means, and theirs."""

    arch: str
    attention: str
    ours: Figures
    theirs: Figures


COLUMNS = {
    "network": attrgetter("arch"),
    "attention": attrgetter("attention"),
    "top-1": tables.COMPARISON["ours"],
    **{name: tables.COMPARISON[name] for name in ("runs", "paper", "difference")},
    "top-5": lambda row: tables.spread(row.ours.acc5),
    "paper's": lambda row: tables.spread(row.theirs.acc5),
    "parameters (paper's), M": lambda row: f"{row.ours.params_m:.2f} ({row.theirs.params_m:.2f})",
    "FLOPs (paper's), G": lambda row: f"{row.ours.gflops:.2f} ({row.theirs.gflops:.2f})",
    "FPS (paper's, GTX 1080 Ti)": lambda row: f"{row.ours.fps:.0f} ({row.theirs.fps:.0f})",
}


def is_papers(path: str, key: Key, has: Mapping[str, Any], **more: Any) -> bool:
    """Whether a run or a checkpoint is as the paper's row `key`; if not, a line says why.

    has: what is said of it. more: what it must have besides the paper's network.
    """
    if key not in TABLE3:
        why = "its network is not in the paper's Table 3"
    else:
        param = PAPERS_LAMBDA if key[1] == "simam" else default_of(key[1])
        wanted = {"num_classes": IMAGENET_CLASSES, "image_size": IMAGE_SIZE}
        wanted |= {"attention_param": param, **more}
        differ = [name for name in wanted if has.get(name) != wanted[name]]
        if not differ:
            return True
        why = f"its {differ[0]} is {has.get(differ[0])}, not {wanted[differ[0]]}"
    print(f"passed over {path}: {why}", file=sys.stderr, flush=True)
    return False


def read_runs(args: argparse.Namespace) -> list[Result]:
    """The best epochs of the finished runs in ROOT and in the folders given."""
    results = []
    for path in folders(args.ckpt, "imagenet-*", args.paths):
        run = read_finished(path)
        if not run:
            continue
        key = run.settings.get("arch"), run.settings.get("attention_type")
        wanted = {"images": IMAGENET_IMAGES["train"], "synthetic": False}
        wanted["epochs"] = 150 if key[0] == "mobilenet_v2" else 100
        if is_papers(path, key, run.settings, **wanted):
            best = max(run.epochs, key=itemgetter("val_acc1"))
            results.append(Result(key, best["val_acc1"], best["val_acc5"]))
    return results


def evaluate_paths(args: argparse.Namespace, dist: Dist) -> list[Result]:
    """What the checkpoints among the paths reach on --data."""
    paths = [path for path in args.paths if not read_finished(path)]
    if not paths:
        return []
    if not args.data:
        raise UsageError(f"{paths[0]} is no finished run; a checkpoint needs --data DATA")
    images = list_images(args.data, "val")
    results = []
    for path in find_files(paths, ENDINGS, "checkpoint"):
        trained = load_trained(path)
        key = trained.network.arch, trained.network.attention
        has = asdict(trained.network) | {"images": len(images.paths)}
        has["image_size"] = trained.preparation.centre_crop
        if is_papers(path, key, has, images=IMAGENET_IMAGES["val"]):
            row = evaluate_checkpoint(trained, images, Data(root=args.data), dist)
            results.append(Result(key, row.acc1, row.acc5))
    return results


def train_missing(args: argparse.Namespace, results: list[Result]) -> int:
    """Run scripts/train_imagenet.sh for the rows without a result; returns the first exit code
    that is not 0."""
    reached = {result.key for result in results}
    missing = [key for key in TABLE3 if key[0] in args.archs and key not in reached]
    recipe = str(REPOSITORY / "scripts" / "train_imagenet.sh")
    commands = (["bash", recipe, *key, "--resume", "auto", "--ckpt", args.ckpt] for key in missing)
    data = {"DATA": args.data} if args.data else {}
    return run_in_turn(commands, {"PYTHON": sys.executable, **os.environ, **data})


def images_per_second(models: Mapping[str, nn.Module], device: torch.device) -> dict[str, float]:
    """One image after the other, by name: median over rounds, in which the models take turns."""
    image = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE, device=device)
    calls = {name: partial(model.to(device).eval(), image) for name, model in models.items()}
    with torch.inference_mode():
        times = race(calls, device.type, LATENCY_ROUNDS)
    return {name: 1 / median(each) for name, each in times.items()}


def rows_of(arch: str, results: list[Result], device: torch.device) -> Iterator[Row]:
    """The rows of one network, one for each attention."""
    papers = {attention: row for (name, attention), row in TABLE3.items() if name == arch}
    models = {name: Network(arch=arch, attention=name).build() for name in papers}
    gflops = {name: count_flops(model) / 1e9 for name, model in models.items()}
    fps = images_per_second(models, device)
    for name, theirs in papers.items():
        reached = [result for result in results if result.key == (arch, name)]
        top1 = tables.compare([result.acc1 for result in reached], theirs.acc1)
        top5 = tables.summarise([result.acc5 for result in reached])
        params_m = count_parameters(models[name]) / 1e6
        ours = Figures(top1.mean, top5.mean, params_m, gflops[name], fps[name])
        yield Row(arch=arch, attention=name, ours=ours, theirs=theirs, **vars(top1))


def table3(args: argparse.Namespace, path: str) -> int:
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this machine has no CUDA GPU; --device cpu measures here")
    dist = alone("-1" if args.device == "cpu" else None)
    evaluated, trained = evaluate_paths(args, dist), read_runs(args)
    if args.run:
        code = train_missing(args, evaluated + trained)
        if code:
            return code
        trained = read_runs(args)
    rows = [row for arch in args.archs for row in rows_of(arch, evaluated + trained, dist.device)]
    machine = f"{describe(dist)}, torch {torch.__version__}"
    print(f"speed, batch 1: {machine}")
    about = {"table": "3", "unit": "top-1 % of the best epoch", "speed on": machine}
    tables.conclude(rows, COLUMNS, about, path)
    return 0
