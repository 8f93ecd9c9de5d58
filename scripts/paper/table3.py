"""Table 3: ImageNet, accuracies beside parameters, FLOPs, and speed on this machine."""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from operator import attrgetter, itemgetter
from statistics import mean, median
from typing import Any

import torch
from torch import nn

from networks import ATTENTIONS
from scripts.bench.common import describe, device_of, race
from scripts.paper.common import REPOSITORY, folders, run_in_turn
from utils.config import Network, default_of
from utils.data.imagenet import IMAGENET_CLASSES, IMAGENET_IMAGES
from utils.errors import UsageError
from utils.report import tables
from utils.report.paper import RELEASED, TABLE3, Figures
from utils.report.runs import read_finished
from utils.training.complexity import count_flops, count_parameters

LATENCY_ROUNDS = 15
IMAGE_SIZE = 224
PAPERS_LAMBDA = 0.1
NO_FIGURES = Figures(*[None] * 5)  # of a module that the paper has not

Key = tuple[str, str]  # of TABLE3
Found = dict[Key, list[Mapping[str, float]]]  # the best epochs of a row's runs


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
    "paper's": lambda row: tables.printed(row.theirs.acc5),
    "parameters (paper's), M": lambda row: beside(row.ours.params_m, row.theirs.params_m, 2),
    "FLOPs (paper's), G": lambda row: beside(row.ours.gflops, row.theirs.gflops, 2),
    "FPS (paper's, GTX 1080 Ti)": lambda row: beside(row.ours.fps, row.theirs.fps, 0),
}


def beside(ours: float, theirs: float | None, digits: int) -> str:
    """Our figure, and the paper's where it has one."""
    return f"{ours:.{digits}f}" + ("" if theirs is None else f" ({theirs:.{digits}f})")


def papers(arch: str, attention: str) -> dict[str, Any]:
    """The settings of the paper's run of a row."""
    return {
        "num_classes": IMAGENET_CLASSES,
        "image_size": IMAGE_SIZE,
        "attention_param": PAPERS_LAMBDA if attention == "simam" else default_of(attention),
        "images": IMAGENET_IMAGES["train"],
        "synthetic": False,
        "epochs": 150 if arch == "mobilenet_v2" else 100,
    }


def collect(args: argparse.Namespace) -> Found:
    """The best epochs of runs like the paper's, with any attention, in ROOT and in the folders
    given; names the others."""
    found = {}
    for path in folders(args.ckpt, "imagenet-*", args.paths):
        run = read_finished(path)
        if not run:
            if path in args.paths:
                raise UsageError(f"{path} is no finished run; evaluate_all.py takes checkpoints")
            continue
        key = run.settings.get("arch"), run.settings.get("attention_type")
        if (key[0], "none") not in TABLE3 or key[1] not in ATTENTIONS:
            print(f"passed over {path}: its network is not in Table 3", file=sys.stderr, flush=True)
        elif run.has(papers(*key)):
            found.setdefault(key, []).append(max(run.epochs, key=itemgetter("val_acc1")))
    return found


def train_missing(args: argparse.Namespace) -> int:
    """Run scripts/train_imagenet.sh for the rows without a run; returns the first exit code that
    is not 0."""
    found = collect(args)
    missing = [key for key in TABLE3 if key[0] in args.archs and key not in found]
    recipe = str(REPOSITORY / "scripts" / "train_imagenet.sh")
    commands = (["bash", recipe, *key, "--resume", "auto", "--ckpt", args.ckpt] for key in missing)
    data = {"DATA": args.data} if args.data else {}
    return run_in_turn(commands, {"PYTHON": sys.executable, **os.environ, **data})


def images_per_second(models: Mapping[str, nn.Module], device: str) -> dict[str, float]:
    """One image after the other, by name: median over rounds, in which the models take turns."""
    image = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE, device=device)
    calls = {name: partial(model.to(device).eval(), image) for name, model in models.items()}
    with torch.inference_mode():
        times = race(calls, device, LATENCY_ROUNDS)
    return {name: 1 / median(each) for name, each in times.items()}


def rows_of(arch: str, found: Found, device: str) -> Iterator[Row]:
    """The rows of one network: one for each attention of the paper's, or of a run."""
    names = dict.fromkeys(name for each, name in [*TABLE3, *found] if each == arch)
    models = {name: Network(arch=arch, attention=name).build() for name in names}
    gflops = {name: count_flops(model) / 1e9 for name, model in models.items()}
    fps = images_per_second(models, device)
    for name in names:
        best, theirs = found.get((arch, name), []), TABLE3.get((arch, name), NO_FIGURES)
        exact = RELEASED.get(("imagenet", arch, name), theirs)
        top1 = tables.compare([epoch["val_acc1"] for epoch in best], exact.acc1)
        top5 = mean(epoch["val_acc5"] for epoch in best) if best else None
        params_m = count_parameters(models[name]) / 1e6
        ours = Figures(top1.mean, top5, params_m, gflops[name], fps[name])
        yield Row(arch=arch, attention=name, ours=ours, theirs=theirs, **vars(top1))


def compared(args: argparse.Namespace) -> tuple[dict, list[Row]]:
    """What the table is about, and its rows, ours beside the paper's."""
    device, found = device_of(args.device), collect(args)
    rows = [row for arch in args.archs for row in rows_of(arch, found, device)]
    machine = describe(device)
    print("speed, batch 1:", ", ".join(f"{name} {value}" for name, value in machine.items()))
    return {"table": "3", "unit": "top-1 % of the best epoch", "speed on": machine}, rows
