"""Choose SimAM's lambda as the paper did for its Figure 4: on images held out of the training set.

    python scripts/search_lambda.py --download                   # CIFAR-10, by torchvision
    python scripts/search_lambda.py --data-dir FOLDER --iterations 6400 --seeds 1,2,3

trains the network on nine tenths of the training images (CIFAR: 45,000) with each lambda and seed,
evaluates on the others (5,000), always the same ones, and never looks at the test images. Prints
mean and standard deviation of the top-1 accuracy as a Markdown table and writes it as
ROOT/search_lambda.csv, .json and .png, or where --out says. The same command again goes on where
it was stopped. The recipe is that of scripts/train_cifar.py.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from scripts.train_cifar import (
    ITERATIONS,
    Run,
    dataset_name,
    load_images,
    network_parser,
    train_run,
)
from utils.cli import comma_list, number
from utils.errors import UsageError
from utils.report import tables
from utils.report.finished_runs import read_run

LAMBDAS = "1e-1,1e-2,1e-3,1e-4,1e-5,1e-6"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = network_parser(__doc__)
    add = parser.add_argument
    positive = number(float, 0, exclusive=True)
    add("--lambdas", type=comma_list(positive), default=LAMBDAS, help="such as 0.1,0.01")
    add("--seeds", type=comma_list(number(int, 0)), default="1,2,3,4,5", help="a run each")
    add("--out", metavar="STEM", help="write STEM.csv, .json, .png (default: ROOT/search_lambda)")
    return parser.parse_args(argv)


def draw(axes, rows: list[dict], title: str) -> None:
    """Mean and standard deviation over lambda, as in the paper's Figure 4."""
    (place,) = axes
    means, stds = ([row[name] or 0 for row in rows] for name in ("mean", "std"))
    place.errorbar([row["e_lambda"] for row in rows], means, stds, fmt="o-", capsize=3)
    place.set_xscale("log")
    place.set_xlabel("lambda")
    place.set_ylabel("top-1 % on held-out images")
    place.set_title(title, fontsize="medium")
    place.grid(alpha=0.3)


def reached(folder: str) -> float:
    """Top-1 after the last epoch of the finished run in `folder`; raises UsageError without it."""
    run = read_run(folder)
    if not run:
        raise UsageError(
            f"the run in {folder} is finished, but its args.json and metrics.jsonl are not those "
            "of all its epochs; move the folder away to train it again"
        )
    return run.epochs[-1]["val_acc1"]


def search(args: argparse.Namespace) -> None:
    from main_imagenet import build_model
    from utils.data.cifar import hold_out
    from utils.processes.dist import alone

    stem = args.out or os.path.join(args.ckpt, "search_lambda")
    dist = alone(args.gpu)
    build_model({"arch": args.arch})  # a wrong name is told before the data are read
    tables.check_writable(stem)
    name = dataset_name(args.dataset, args.data_dir) + "-held-out"
    images, _ = load_images(args.dataset, args.data_dir, args.root, args.download)
    train, val = hold_out(images)
    if not len(val):
        raise UsageError(f"{len(images)} training images: a tenth is to be held out, which is none")
    runs = {
        e_lambda: [
            Run(name, args.arch, "simam", e_lambda, seed, args.iterations) for seed in args.seeds
        ]
        for e_lambda in args.lambdas
    }
    for with_seed in zip(*runs.values(), strict=True):
        for run in with_seed:
            train_run(run, train, val, args.ckpt, dist, args.print_freq)
    rows = []
    for e_lambda, of_lambda in runs.items():
        acc1 = [reached(run.folder(args.ckpt)) for run in of_lambda]
        rows.append({"e_lambda": e_lambda, **tables.summarise(acc1), "acc1": acc1})
    title = f"{name}, {args.arch}, {args.iterations:,} iterations"
    if args.iterations < ITERATIONS:
        title += f" (shortened from {ITERATIONS:,})"
    about = {
        "figure": "4",
        "unit": "top-1 % on held-out training images after the last epoch",
        "what": title,
        "images": len(train),
        "held_out": len(val),
        "seeds": args.seeds,
    }
    columns = {
        "lambda": lambda row: f"{row['e_lambda']:g}",
        "top-1": lambda row: tables.spread(row["mean"], row["std"]),
        "runs": lambda row: row["runs"],
    }
    print(title)
    print(tables.table(rows, columns))
    tables.write(stem, rows, about)
    tables.picture(f"{stem}.png", 1, lambda axes: draw(axes, rows, title))


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)

    from utils.processes.launch import guarded

    return guarded(lambda: search(args))


if __name__ == "__main__":
    sys.exit(main())
