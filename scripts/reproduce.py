"""The paper's tables, ours beside theirs.

    python scripts/reproduce.py table2                     # CIFAR: what has been run
    python scripts/reproduce.py table2 --download --run    # trains what is missing, then prints it
    python scripts/reproduce.py table2 --data-dir FOLDER --seeds 1 --iterations 2346
    python scripts/reproduce.py table3 [RUN_FOLDER...]     # ImageNet
    python scripts/reproduce.py table4 [WORK_DIR...]       # COCO, from mmdetection's logs

prints a Markdown table and writes it as ROOT/TABLE.json, or where --out says. Runs that are not
finished count as not run, and so do those that were not trained as the paper's: they are named.
Interrupted, the same command with --run goes on: finished runs are not repeated.
scripts/plot_curves.py draws the curves of single runs.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Iterable

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from scripts.paper.options import add_recipe
from utils.cli import Parser, comma_list, number
from utils.report.paper import TABLE2, TABLE3


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    tables = parser.add_subparsers(
        dest="table", metavar="TABLE", required=True, help="TABLE --help: its options"
    )

    about = "CIFAR: top-1, mean over the seeds"
    table2 = tables.add_parser("table2", doc=about, help=about)
    add_recipe(table2)
    table2.set_defaults(dataset=None)  # both
    add_names(table2, "--archs", (arch for _, arch, _ in TABLE2), "networks")
    papers = ",".join(dict.fromkeys(name for *_, name in TABLE2))
    names = comma_list(str)
    table2.add_argument("--attentions", type=names, default=papers, help="others are taken too")
    seeds = comma_list(number(int, 0))
    table2.add_argument("--seeds", type=seeds, default="1,2,3,4,5", help="a run each")

    about = "ImageNet: accuracies, size, and speed on this machine"
    table3 = tables.add_parser("table3", doc=about, help=about)
    add = table3.add_argument
    add("paths", metavar="RUN_FOLDER", nargs="*", help="besides those in ROOT")
    add_names(table3, "--archs", (arch for arch, _ in TABLE3), "networks")
    add("--data", help="ImageNet's folder, for --run; the environment's DATA where not given")
    add("--device", choices=("cpu", "cuda"), help="where the speed is measured; a GPU if any")
    add("--ckpt", metavar="ROOT", default="ckpts", help="where the run folders are")

    about = "COCO: average precision"
    table4 = tables.add_parser("table4", doc=about, help=about)
    add = table4.add_argument
    add("paths", metavar="WORK_DIR", nargs="*", help="besides those in ROOT")
    add("--ckpt", metavar="ROOT", default="work_dirs", help="where the work folders are")

    for table in (table2, table3, table4):
        table.add_argument("--run", action="store_true", help="start what is missing")
        table.add_argument("--out", metavar="STEM", help="write STEM.json, not ROOT/TABLE.json")
    return parser.parse_args(argv)


def add_names(parser: Parser, option: str, papers: Iterable[str], help: str) -> None:
    """Give `parser` an option for names between commas, by default all of the paper's."""
    known = list(dict.fromkeys(papers))
    names = comma_list(str, known)
    parser.add_argument(option, type=names, default=",".join(known), help=help)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

from utils.processes.ending import exit_code
from utils.report.tables import check_results, conclude


def reproduce(args: argparse.Namespace) -> int | None:
    """Train what is missing, where that is asked for, and print what there is then."""
    path = f"{args.out or os.path.join(args.ckpt, args.table)}.json"
    check_results(path)
    # it alone: mmdetection's environment, where table4 trains, has no torchvision for the others
    paper = importlib.import_module(f"scripts.paper.{args.table}")
    if args.run:
        code = paper.train_missing(args)
        if code:
            return code
    about, rows = paper.compared(args)
    conclude(rows, paper.COLUMNS, about, path)
    return None


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: reproduce(args))


if __name__ == "__main__":
    sys.exit(main())
