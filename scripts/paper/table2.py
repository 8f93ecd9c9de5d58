"""Table 2: CIFAR, top-1 after the last epoch, mean of several seeds."""

import argparse
import itertools
from dataclasses import dataclass, replace
from operator import attrgetter

from scripts.paper.common import last_acc1
from scripts.paper.options import ITERATIONS
from scripts.train_cifar import dataset_name, places, read_images, recipes, train_in_turn
from utils.config import Config, Network
from utils.report import tables
from utils.report.paper import TABLE2, Accuracy

Key = tuple[str, str, str]  # of TABLE2


@dataclass(frozen=True, kw_only=True)
class Row(tables.Comparison):
    """What the runs of a network reached. acc1: of each."""

    dataset: str
    arch: str
    attention: str
    acc1: list[float]


COLUMNS = {name: attrgetter(name) for name in ("dataset", "arch", "attention")} | tables.COMPARISON


def datasets(args: argparse.Namespace) -> list[str]:
    if args.dataset:
        return [args.dataset]
    return ["cifar10"] if args.data_dir else ["cifar10", "cifar100"]


def wanted_runs(args: argparse.Namespace, dataset: str) -> dict[Key, list[Config]]:
    """Those of every row, one for each seed."""
    keys = list(itertools.product([dataset], args.archs, args.attentions))
    networks = [Network(arch=arch, attention=attention) for _, arch, attention in keys]
    return dict(zip(keys, recipes(args, networks, dataset_name(args, dataset)), strict=True))


def train_missing(args: argparse.Namespace) -> None:
    for name in datasets(args):
        runs, splits = list(wanted_runs(args, name).values()), read_images(args, name)
        train_in_turn(runs, splits, places(args), args.concurrent)


def row_of(key: Key, configs: list[Config]) -> Row:
    acc1 = last_acc1(configs)
    _, arch, attention = key
    paper = TABLE2.get(key, Accuracy(None, None))
    return Row(
        dataset=configs[0].dataset,
        arch=arch,
        attention=attention,
        acc1=acc1,
        **vars(tables.compare(acc1, paper.mean, paper.std)),
    )


def compared(args: argparse.Namespace) -> tuple[dict, list[Row]]:
    """What the table is about, and its rows, ours beside the paper's."""
    rows = [row_of(*item) for name in datasets(args) for item in wanted_runs(args, name).items()]
    about = {"table": "2", "unit": "top-1 % after the last epoch", "iterations": args.iterations}
    about["shortened"] = args.iterations < ITERATIONS
    if about["shortened"]:
        about["label"] = (
            f"shortened: {args.iterations:,} of the paper's {ITERATIONS:,} iterations; "
            "no reproduction of the paper's figures"
        )
        print(about["label"])
        rows = [replace(row, difference=None, standard_errors=None) for row in rows]
    return about, rows
