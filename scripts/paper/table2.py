"""Table 2: CIFAR, top-1 after the last epoch, mean of several seeds."""

import argparse
import itertools
import operator
import sys

from scripts.train_cifar import ITERATIONS, Run, dataset_name, load_images, train_run
from utils.report import tables
from utils.report.paper import TABLE2
from utils.report.finished_runs import Finished, read_run

Key = tuple[str, str, str]  # of TABLE2


def wanted_runs(args: argparse.Namespace) -> dict[Key, list[Run]]:
    """The runs of every row, one for each seed."""
    from networks import default_param

    tables.known("--archs", args.archs, TABLE2, 1)
    tables.known("--attentions", args.attentions, TABLE2, 2)
    datasets = [args.dataset] if args.dataset else ["cifar10", "cifar100"]
    if args.data_dir:
        datasets = [args.dataset or "cifar10"]
    runs = {}
    for dataset, arch, attention in itertools.product(datasets, args.archs, args.attentions):
        name = dataset_name(dataset, args.data_dir)
        what = name, arch, attention, default_param(attention)
        runs[dataset, arch, attention] = [Run(*what, seed, args.iterations) for seed in args.seeds]
    return runs


def finished(run: Run, root: str) -> Finished | None:
    """The finished training of `run` in `root`; one with another schedule is passed over."""
    found = read_run(run.folder(root))
    if found and found.settings.get("iterations") != run.iterations:
        has = found.settings.get("iterations")
        note = f"passed over {found.folder}: its iterations are {has}, not {run.iterations}"
        print(note, file=sys.stderr)
        return None
    return found


def train_missing(args: argparse.Namespace, runs: dict[Key, list[Run]]) -> None:
    """Train what is not finished: all with the first seed, then all with the second, ..."""
    from utils.processes.dist import alone

    dist = alone(args.gpu)
    for dataset in dict.fromkeys(dataset for dataset, *_ in runs):
        rows = [row for key, row in runs.items() if key[0] == dataset]
        in_order = [run for with_seed in zip(*rows, strict=True) for run in with_seed]
        missing = [run for run in in_order if not finished(run, args.ckpt)]
        if missing:
            images = load_images(dataset, args.data_dir, args.root, args.download)
            for run in missing:
                train_run(run, *images, args.ckpt, dist, args.print_freq)


def table2(args: argparse.Namespace, stem: str) -> None:
    from scripts.bench.common import describe

    runs = wanted_runs(args)
    if args.run:
        train_missing(args, runs)
    rows = []
    for key, row in runs.items():
        done = [found for run in row if (found := finished(run, args.ckpt))]
        rows.append(
            {
                "dataset": row[0].dataset,
                "arch": row[0].arch,
                "attention": row[0].attention,
                "attention_param": row[0].attention_param,
                "iterations": args.iterations,
                **tables.compare([run.epochs[-1]["val_acc1"] for run in done], *TABLE2[key]),
                "trained": [
                    {**run.settings, "seconds": round(run.seconds(), 1), "curves": run.curves()}
                    for run in done
                ],
            }
        )
    about = {
        "table": "2",
        "unit": "top-1 % after the last epoch",
        "collected on": describe("cpu"),
        "shortened": args.iterations < ITERATIONS,
    }
    title = f"{args.iterations:,} iterations"
    if about["shortened"]:
        title = f"shortened: {args.iterations:,} of the paper's {ITERATIONS:,} iterations"
        about["label"] = f"{title}; no reproduction of the paper's figures"
        print(about["label"])
        for row in rows:
            row |= {"difference": None, "standard_errors": None}
    datasets = dict.fromkeys(row["dataset"] for row in rows)
    panels = {
        f"{name}, {title}": ([r for r in rows if r["dataset"] == name], "arch", "attention")
        for name in datasets
    }
    columns = {name: operator.itemgetter(name) for name in ("dataset", "arch", "attention")}
    tables.conclude(stem, rows, columns | tables.COMPARISON, about, panels)
