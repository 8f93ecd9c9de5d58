"""Choose SimAM's lambda as the paper did for its Figure 4: on images held out of the training set.

    python scripts/search_lambda.py --download                   # CIFAR-10, by torchvision
    python scripts/search_lambda.py --data-dir FOLDER --iterations 6400 --seeds 1,2,3

trains the network on nine tenths of the training images (CIFAR: 45,000) with each lambda and seed,
evaluates on the others (5,000), always the same ones, and never looks at the test images. Prints
mean and standard deviation of the top-1 accuracy as a Markdown table and writes it as
ROOT/search_lambda.json and .png, or where --out says. The same command again goes on where it was
stopped. The recipe is that of scripts/train_cifar.py.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from scripts.paper.options import ITERATIONS, add_recipe
from utils.cli import Parser, comma_list, number
from utils.processes.signals import end_when_asked

LAMBDAS = "1e-1,1e-2,1e-3,1e-4,1e-5,1e-6"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_recipe(parser)
    add = parser.add_argument
    add("--arch", default="cifar_resnet20", help="network; a wrong name lists all")
    positive = number(float, 0, exclusive=True)
    add("--lambdas", type=comma_list(positive), default=LAMBDAS, help="such as 0.1,0.01")
    add("--seeds", type=comma_list(number(int, 0)), default="1,2,3,4,5", help="a run each")
    add("--out", metavar="STEM", help="write STEM.json, .png (default: ROOT/search_lambda)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    end_when_asked()
    parse_args()  # --help and mistakes are answered before torch is imported

from scripts.paper.common import last_acc1
from scripts.train_cifar import dataset_name, places, read_images, recipes, train_in_turn
from utils.config import Network
from utils.data.cifar import hold_out
from utils.errors import UsageError, needed
from utils.processes.ending import exit_code
from utils.report import tables
from utils.report.pictures import new_figure, save_figure


@dataclass(frozen=True, kw_only=True)
class Row(tables.Comparison):
    """What the runs with one lambda reached. acc1: of each."""

    e_lambda: float
    acc1: list[float]


COLUMNS = {
    "lambda": lambda row: f"{row.e_lambda:g}",
    "top-1": tables.COMPARISON["ours"],
    "runs": tables.COMPARISON["runs"],
}


def draw(rows: Sequence[Row], title: str, path: str) -> None:
    """Mean and standard deviation over lambda, as in the paper's Figure 4."""
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    ran = [row for row in rows if row.runs]
    means, stds = [row.mean for row in ran], [row.std or 0 for row in ran]
    axes.errorbar([row.e_lambda for row in ran], means, stds, fmt="o-", capsize=3)
    axes.set(xscale="log", xlabel="lambda", ylabel="top-1 % on held-out images")
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def search(args: argparse.Namespace) -> None:
    needed("matplotlib.figure", "matplotlib")  # a missing package is told before hours of runs
    dists = places(args)
    networks = [Network(arch=args.arch, attention="simam", attention_param=e) for e in args.lambdas]
    networks[0].build()  # a wrong name is told before the data are read
    stem = args.out or os.path.join(args.ckpt, "search_lambda")
    tables.check_results(f"{stem}.json", f"{stem}.png")

    images, _ = read_images(args, args.dataset)
    others, held_out = splits = hold_out(images)
    if not len(held_out):
        raise UsageError(f"{len(images)} training images: a tenth is to be held out, which is none")
    name = dataset_name(args, args.dataset) + "-held-out"
    runs = recipes(args, networks, name)
    train_in_turn(runs, splits, dists, args.concurrent)

    rows = []
    for e_lambda, configs in zip(args.lambdas, runs, strict=True):
        acc1 = last_acc1(configs)
        rows.append(Row(e_lambda=e_lambda, acc1=acc1, **vars(tables.compare(acc1))))
    title = f"{name}, {args.arch}, {args.iterations:,} iterations"
    if args.iterations < ITERATIONS:
        title += f" (shortened from {ITERATIONS:,})"
    about = {
        "figure": "4",
        "unit": "top-1 % on held-out training images after the last epoch",
        "what": title,
        "images": len(others),
        "held_out": len(held_out),
        "seeds": args.seeds,
    }
    print(title)
    tables.conclude(rows, COLUMNS, about, f"{stem}.json")
    draw(rows, title, f"{stem}.png")


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: search(args))


if __name__ == "__main__":
    sys.exit(main())
