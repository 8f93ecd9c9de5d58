"""The training and validation curves of several runs in one picture.

    python scripts/plot_curves.py RUN_FOLDER... [-o curves.png]

Left the loss, right the top-1 accuracy, over the epochs done; a colour per run, dashed for
training, solid for validation, dotted for the validation of the weights' average where a run has
one, and a horizontal line at the top-1 that the paper has for such a run on ImageNet or CIFAR. The
numbers are those of each folder's metrics.jsonl. The picture is 1100 pixels wide and 450 high.
"""

import argparse
import math
import os
import sys
from collections.abc import Mapping

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("folders", metavar="RUN_FOLDER", nargs="+", help="folders with metrics.jsonl")
    add("-o", "--output", metavar="FILE.png", help="the picture; curves.png where not given")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

from utils.processes.ending import exit_code
from utils.report.paper import published_acc1
from utils.report.pictures import check_output, new_figure, save_figure
from utils.report.runs import PastRun, labels, read_run

PANELS = {"loss": "loss", "acc1": "top-1 accuracy (%)"}
LINES = {"train": "--", "val": "-", "val_ema": ":"}


def draw(runs: Mapping[str, PastRun]):
    """The figure; runs: by label. Its axes hold the lines of each run in turn."""
    figure = new_figure(11, 4.5)
    for axis, (name, title) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        for number, (label, run) in enumerate(runs.items()):
            for split, style in LINES.items():
                values = [epoch.get(f"{split}_{name}", math.nan) for epoch in run.epochs]
                if not all(map(math.isnan, values)):
                    axis.plot(
                        [epoch["epoch"] + 1 for epoch in run.epochs],
                        values,
                        style,
                        color=f"C{number}",
                        marker="." if len(run.epochs) < 10 else "",
                        label=f"{label}, {split}",
                    )
            paper = published_acc1(run.settings) if name == "acc1" else None
            if paper is not None:
                axis.axhline(paper, linestyle="-.", color=f"C{number}", label=f"{label}, paper")
        axis.set(xlabel="epochs done", ylabel=title)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=8)
    return figure


def plot(args: argparse.Namespace) -> None:
    output = check_output(args.output, "curves.png")
    runs = zip(labels(args.folders), map(read_run, args.folders), strict=True)
    save_figure(draw(dict(runs)), output)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: plot(args))


if __name__ == "__main__":
    sys.exit(main())
