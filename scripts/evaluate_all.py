"""Evaluate many checkpoints on DATA's validation images, in one table beside the paper's figures.

    python scripts/evaluate_all.py DATA CHECKPOINT_OR_FOLDER... [--csv FILE] [--json FILE]

Each file's network is recognised: our own files name it, others show it by their keys and shapes.
SimAM has no weights, so bare ones of a network with SimAM look like those of one without; the
table says what was assumed, --attention-type and --attention-param say it better. A file that
can't be evaluated is reported and passed over; the exit code is then 2.
"""

import csv
import json
import os
import sys
from operator import itemgetter

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser, add_shared, exit_code
from utils.errors import UsageError
from utils.report.tables import table

ENDINGS = (".pth", ".pt", ".pth.tar", ".safetensors")
COLUMNS = (
    "file",
    "arch",
    "attention",
    "attention_param",
    "num_classes",
    "image_size",
    "images",
    "loss",
    "acc1",
    "acc5",
    "paper_acc1",
    "paper_acc5",
    "assumed",
)


def parse_args(argv: list[str] | None = None):
    parser = Parser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("data", metavar="DATA", help="folder with val/<class>/")
    add("paths", metavar="CHECKPOINT_OR_FOLDER", nargs="+", help="folders are searched through")
    add_shared(parser, "--attention-type", "--attention-param")
    add_shared(parser, "--batch-size", "--workers", "--image-size", "--gpu")
    add("--csv", metavar="FILE", help="write the table here too, after each checkpoint")
    add("--json", metavar="FILE", help="the same as JSON")
    return parser.parse_args(argv)


def evaluate_file(path: str, args, val, dist, log) -> dict:
    """The row of one checkpoint; raises UsageError where it can't be evaluated."""
    from utils.checkpoints.loading import load_network

    from utils.data.loader import eval_loader
    from utils.report.paper import TABLE3
    from utils.training.engine import Precision
    from utils.training.run import evaluate_with_progress

    words = args.attention_type, args.attention_param, args.image_size
    loaded = load_network(path, *words)
    network = loaded.network
    if network["num_classes"] < len(val.classes):
        raise UsageError(
            f"checkpoint {path} knows {network['num_classes']} classes, "
            f"{args.data} has {len(val.classes)} class folders"
        )
    loader = eval_loader(val, loaded.preparation, args.batch_size, args.workers, dist)
    metrics = evaluate_with_progress(
        dist.wrap(loaded.model), loader, dist, Precision(dist.device.type), log, path, print_freq=10
    )
    in_paper = TABLE3.get((network["arch"], network["attention"]))
    if network["num_classes"] != 1000:
        in_paper = None
    return {
        "file": path,
        **network,
        "image_size": loaded.preparation.centre_crop,
        **{name: metrics[name] for name in ("images", "loss", "acc1", "acc5")},
        "paper_acc1": in_paper and in_paper.acc1,
        "paper_acc5": in_paper and in_paper.acc5,
        "assumed": "; ".join(loaded.assumed.values()),
    }


def write_tables(rows: list[dict], args) -> None:
    """Write what --csv and --json ask for; raises UsageError where a file can't be written."""
    try:
        if args.csv:
            with open(args.csv, "w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
        if args.json:
            with open(args.json, "w") as file:
                json.dump(rows, file, indent=2)
    except OSError as error:
        raise UsageError(f"can't write {error.filename}: {error.strerror}") from None


def setting(row: dict) -> str:
    """The attention and its parameter."""
    param = "" if row["attention_param"] is None else f" {row['attention_param']:g}"
    return row["attention"] + param


def paper(row: dict) -> str:
    """The paper's accuracies, where it has them."""
    return "" if row["paper_acc1"] is None else f"{row['paper_acc1']} / {row['paper_acc5']}"


SHOWN = {
    "checkpoint": itemgetter("file"),
    "network": itemgetter("arch"),
    "attention": setting,
    "top-1": lambda row: f"{row['acc1']:.3f}",
    "top-5": lambda row: f"{row['acc5']:.3f}",
    "paper": paper,
    "assumed": itemgetter("assumed"),
}


def evaluate_all(args) -> int:
    from utils.checkpoints.loading import check_attention

    from utils.data.listing import find_files, list_images
    from utils.processes import dist as distributed
    from utils.training.log import RunLog

    dist, log = distributed.start(args.gpu), RunLog()
    files = find_files(args.paths, ENDINGS, "checkpoint")
    val = list_images(args.data, "val")
    check_attention(args.attention_type)
    rows = []
    write_tables(rows, args)  # before hours of work, not after
    for path in files:
        try:
            rows.append(evaluate_file(path, args, val, dist, log))
        except UsageError as error:
            print(f"error: {error}", file=sys.stderr)
        write_tables(rows, args)
    print(table(rows, SHOWN))
    return 0 if len(rows) == len(files) else 2


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: evaluate_all(args))


if __name__ == "__main__":
    sys.exit(main())
