"""The paper's tables, ours beside theirs.

    python scripts/reproduce.py table2                     # CIFAR: what has been run
    python scripts/reproduce.py table2 --download --run    # trains what is missing, then prints it
    python scripts/reproduce.py table2 --data-dir FOLDER --seeds 1 --iterations 2346
    python scripts/reproduce.py table3 [RUN_FOLDER...]     # ImageNet
    python scripts/reproduce.py table4 [WORK_DIR...]       # COCO, from mmdetection's logs

prints a Markdown table and writes it as ROOT/TABLE.csv, .json and .png, or where --out says. Runs
that are not finished count as not run, and so do those that were not trained as the paper's: they
are named. Interrupted, the same command with --run goes on: finished runs are not repeated. Of
table4, --run trains the rows with SimAM. scripts/plot_curves.py draws the curves of single runs.
"""

import argparse
import os
import sys
from collections.abc import Iterable

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from scripts.train_cifar import add_data_options
from utils.cli import Parser, comma_list, number
from utils.report.paper import TABLE2, TABLE3
from utils.report.tables import check_writable


def distinct(names: Iterable[str]) -> str:
    """A default of `comma_list`: each name once."""
    return ",".join(dict.fromkeys(names))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    tables = parser.add_subparsers(
        dest="table", metavar="TABLE", required=True, help="TABLE --help: its options"
    )

    def command(
        name: str, help: str, root: str, run: str = "start what is missing"
    ) -> argparse.ArgumentParser:
        table = tables.add_parser(
            name,
            help=help,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            allow_abbrev=False,
        )
        add = table.add_argument
        add("--run", action="store_true", help=run)
        add("--ckpt", metavar="ROOT", default=root, help="where the run folders are")
        add("--out", metavar="STEM", help="write STEM.csv, .json, .png (default: ROOT/TABLE)")
        return table

    table2 = command("table2", "CIFAR: top-1, mean over the seeds", "ckpts")
    add_data_options(table2)
    table2.set_defaults(dataset=None)  # both
    add = table2.add_argument
    archs = distinct(arch for _, arch, _ in TABLE2)
    attentions = distinct(attention for *_, attention in TABLE2)
    add("--archs", type=comma_list(str), default=archs, help="networks")
    add("--attentions", type=comma_list(str), default=attentions, help="attention modules")
    add("--seeds", type=comma_list(number(int, 0)), default="1,2,3,4,5", help="a run each")

    table3 = command("table3", "ImageNet: accuracies, size, and speed on this machine", "ckpts")
    add = table3.add_argument
    archs = distinct(arch for arch, _ in TABLE3)
    add("paths", metavar="RUN_FOLDER_OR_CHECKPOINT", nargs="*", help="besides those in ROOT")
    add("--archs", type=comma_list(str), default=archs, help="networks")
    add("--data", help="ImageNet: val/<class>/ to evaluate checkpoints, train/<class>/ for --run")
    add("--device", choices=("cpu", "cuda"), help="where the speed is measured; a GPU if any")

    run = "start what is missing of the rows with SimAM"
    table4 = command("table4", "COCO: average precision", "work_dirs", run)
    table4.add_argument("paths", metavar="WORK_DIR", nargs="*", help="besides those in ROOT")
    return parser.parse_args(argv)


def reproduce(args: argparse.Namespace) -> int | None:
    from scripts.paper.table2 import table2
    from scripts.paper.table3 import table3
    from scripts.paper.table4 import table4

    stem = args.out or os.path.join(args.ckpt, args.table)
    check_writable(stem)
    return {"table2": table2, "table3": table3, "table4": table4}[args.table](args, stem)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)

    from utils.processes.launch import guarded

    return guarded(lambda: reproduce(args))


if __name__ == "__main__":
    sys.exit(main())
