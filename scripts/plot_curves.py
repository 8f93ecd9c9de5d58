"""The training and validation curves of several runs in one picture.

    python scripts/plot_curves.py RUN_FOLDER... [-o curves.png]

Left the loss, right the top-1 accuracy, over the epochs done; a colour per run, dashed for
training, solid for validation, dotted for the validation of the weights' average where a run has
one. The numbers are those of each folder's metrics.jsonl. The picture is 1100 pixels wide and 450
high.
"""

import json
import math
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser, exit_code
from utils.errors import UsageError

METRICS = "metrics.jsonl"
PANELS = {"loss": "loss", "acc1": "top-1 accuracy (%)"}
ALWAYS = ("train", "val")
LINES = {"train": "--", "val": "-", "val_ema": ":"}


def parse_args(argv: list[str] | None = None):
    parser = Parser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("folders", metavar="RUN_FOLDER", nargs="+", help=f"folders with {METRICS}")
    add("-o", "--output", metavar="FILE.png", help="the picture; curves.png where not given")
    return parser.parse_args(argv)


def read_metrics(folder: str) -> list[dict]:
    """The epochs of the run in `folder`, in order; raises UsageError where they can't be read."""
    path = os.path.join(folder, METRICS)
    try:
        with open(path) as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a text file"
        raise UsageError(f"can't read {path} ({why}); is {folder} a run folder?") from None
    wanted = {"epoch", *(f"{split}_{name}" for split in ALWAYS for name in PANELS)}
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:  # cut off by a full disk or a kill
            continue
        if not isinstance(row, dict) or any(not _is_number(row.get(name)) for name in wanted):
            raise UsageError(f"{path}, line {number}: no numbers {', '.join(sorted(wanted))}")
        rows.append(row)
    if not rows:
        raise UsageError(f"{path} holds no epoch: the run has not finished one")
    return rows


def _is_number(value) -> bool:
    return isinstance(value, int | float)


def labels(folders: list[str]) -> list[str]:
    """The folders' names, or their whole paths where two have the same name."""
    names = [os.path.basename(os.path.abspath(folder)) for folder in folders]
    return names if len(set(names)) == len(names) else folders


def draw(runs: dict[str, list[dict]]):
    """The figure; runs: label -> epochs. Its axes hold the lines of each run in turn."""
    from utils.report.pictures import new_figure

    figure = new_figure(11, 4.5)
    for axis, (name, title) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        for number, (label, rows) in enumerate(runs.items()):
            epochs = [row["epoch"] + 1 for row in rows]
            shown = [s for s in LINES if any(f"{s}_{name}" in row for row in rows)]
            for split in shown:
                axis.plot(
                    epochs,
                    [row.get(f"{split}_{name}", math.nan) for row in rows],
                    LINES[split],
                    color=f"C{number}",
                    marker="." if len(rows) < 10 else "",
                    label=f"{label}, {split}",
                )
        axis.set_xlabel("epochs done")
        axis.set_ylabel(title)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=8)
    return figure


def run(args) -> None:
    from utils.report.pictures import check_output, save_figure

    inputs = [os.path.join(folder, METRICS) for folder in args.folders]
    output = check_output(args.output, "curves.png", inputs)
    rows = map(read_metrics, args.folders)
    save_figure(draw(dict(zip(labels(args.folders), rows, strict=True))), output)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
