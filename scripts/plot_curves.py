"""The training and validation curves of several runs in one picture.

    python scripts/plot_curves.py RUN_FOLDER... [-o curves.png]

Left the loss, right the top-1 accuracy, over the epochs done; a colour per run, dashed for
training, solid for validation, dotted for the validation of the weights' average where a run has
one. The numbers are those of each folder's metrics.jsonl. The picture is 1100 pixels wide and 450
high.
"""

import argparse
import math
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser

METRICS = "metrics.jsonl"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("folders", metavar="RUN_FOLDER", nargs="+", help=f"folders with {METRICS}")
    add("-o", "--output", metavar="FILE.png", help="the picture; curves.png where not given")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

from utils.disk import read_entries
from utils.errors import UsageError
from utils.processes.ending import exit_code
from utils.report.pictures import check_output, new_figure, save_figure

PANELS = {"loss": "loss", "acc1": "top-1 accuracy (%)"}
LINES = {"train": "--", "val": "-", "val_ema": ":"}
WANTED = ("epoch", "train_loss", "val_loss", "train_acc1", "val_acc1")

Epochs = list[dict[str, float]]


def read_metrics(folder: str) -> Epochs:
    """The epochs of the run in `folder`, in order; raises UsageError where they can't be read."""
    path = os.path.join(folder, METRICS)
    try:
        epochs = read_entries(path)
    except OSError as error:
        raise UsageError(
            f"can't read {path} ({error.strerror}); is {folder} a run folder?"
        ) from None
    if not epochs:
        raise UsageError(f"{path} holds no epoch: the run has not finished one")
    if not all(isinstance(epoch.get(name), int | float) for epoch in epochs for name in WANTED):
        raise UsageError(f"{path} is of no run: not every line has numbers {', '.join(WANTED)}")
    return epochs


def labels(folders: list[str]) -> list[str]:
    """The folders' names, or their whole paths where two have the same name."""
    names = [os.path.basename(os.path.abspath(folder)) for folder in folders]
    return names if len(set(names)) == len(names) else folders


def draw(runs: dict[str, Epochs]):
    """The figure; runs: by label. Its axes hold the lines of each run in turn."""
    figure = new_figure(11, 4.5)
    for axis, (name, title) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        for number, (label, epochs) in enumerate(runs.items()):
            for split, style in LINES.items():
                values = [epoch.get(f"{split}_{name}", math.nan) for epoch in epochs]
                if not all(map(math.isnan, values)):
                    axis.plot(
                        [epoch["epoch"] + 1 for epoch in epochs],
                        values,
                        style,
                        color=f"C{number}",
                        marker="." if len(epochs) < 10 else "",
                        label=f"{label}, {split}",
                    )
        axis.set(xlabel="epochs done", ylabel=title)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=8)
    return figure


def plot(args: argparse.Namespace) -> None:
    output = check_output(args.output, "curves.png")
    runs = zip(labels(args.folders), map(read_metrics, args.folders), strict=True)
    save_figure(draw(dict(runs)), output)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: plot(args))


if __name__ == "__main__":
    sys.exit(main())
