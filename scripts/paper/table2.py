"""Table 2: CIFAR, top-1 after the last epoch, mean of several seeds."""

import argparse
import itertools
import sys
from dataclasses import dataclass, replace
from operator import attrgetter

from scripts.paper.options import ITERATIONS
from scripts.train_cifar import dataset_name, read_images, recipe, train
from utils.config import Config, Network
from utils.processes.dist import alone
from utils.report import tables
from utils.report.finished_runs import FinishedRun, read_finished
from utils.report.paper import TABLE2

Key = tuple[str, str, str]  # of TABLE2


@dataclass(frozen=True, kw_only=True)
class Row(tables.Comparison):
    """What the runs of a network reached."""

    dataset: str
    arch: str
    attention: str
    trained: list[FinishedRun]


COLUMNS = {name: attrgetter(name) for name in ("dataset", "arch", "attention")}


def wanted_runs(args: argparse.Namespace, dataset: str) -> dict[Key, list[Config]]:
    """Those of every row, one for each seed."""
    name = dataset_name(args, dataset)
    return {
        (dataset, arch, attention): [
            recipe(args, Network(arch=arch, attention=attention), seed, name) for seed in args.seeds
        ]
        for arch, attention in itertools.product(args.archs, args.attentions)
    }


def train_missing(args: argparse.Namespace, dataset: str, runs: list[list[Config]]) -> None:
    """Train what is not finished: all with the first seed, then all with the second, ..."""
    dist, splits = alone(args.gpu), read_images(args, dataset)
    for with_seed in zip(*runs, strict=True):
        for config in with_seed:
            train(config, splits, dist)


def finished_run(config: Config) -> FinishedRun | None:
    """What `config` asks for, where it is finished; one with another schedule is passed over."""
    run, wanted = read_finished(config.folder), config.optim.iterations
    if run and run.settings.get("iterations") != wanted:
        has = run.settings.get("iterations")
        note = f"passed over {run.folder}: its iterations are {has}, not {wanted}"
        print(note, file=sys.stderr)
        return None
    return run


def row_of(key: Key, configs: list[Config]) -> Row:
    runs = [run for config in configs if (run := finished_run(config))]
    acc1 = [run.epochs[-1]["val_acc1"] for run in runs]
    compared = tables.compare(acc1, TABLE2[key].mean, TABLE2[key].std)
    _, arch, attention = key
    name = configs[0].dataset
    return Row(dataset=name, arch=arch, attention=attention, trained=runs, **vars(compared))


def table2(args: argparse.Namespace, path: str) -> None:
    datasets = ["cifar10"] if args.data_dir else ["cifar10", "cifar100"]
    rows = []
    for dataset in [args.dataset] if args.dataset else datasets:
        runs = wanted_runs(args, dataset)
        if args.run:
            train_missing(args, dataset, list(runs.values()))
        rows += [row_of(key, configs) for key, configs in runs.items()]
    about = {"table": "2", "unit": "top-1 % after the last epoch", "iterations": args.iterations}
    about["shortened"] = args.iterations < ITERATIONS
    if about["shortened"]:
        about["label"] = (
            f"shortened: {args.iterations:,} of the paper's {ITERATIONS:,} iterations; "
            "no reproduction of the paper's figures"
        )
        print(about["label"])
        rows = [replace(row, difference=None, standard_errors=None) for row in rows]
    tables.conclude(rows, COLUMNS | tables.COMPARISON, about, path)
