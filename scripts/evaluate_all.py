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
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser, exit_code, number
from utils.errors import UsageError
from utils.tables import table

ENDINGS = (".pth", ".pt", ".pth.tar", ".safetensors")
COLUMNS = (
    "file",
    "arch",
    "attention",
    "attention_param",
    "num_classes",
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
    add("--attention-type", "--attention_type", help="the attention of all these networks")
    add("--attention-param", "--attention_param", type=float, help="its setting, as for training")
    add(
        "-b",
        "--batch-size",
        "--batch_size",
        type=number(int, 1),
        default=256,
        help="images at once",
    )
    add("-j", "--workers", type=number(int, 0), default=4, help="processes that load images")
    add("--image-size", "--image_size", type=number(int, 32), default=224, help="pixels a side")
    add("--gpu", help="GPU number; -1: the CPU; GPU 0, or else the CPU, where not given")
    add("--csv", metavar="FILE", help="write the table here too, after each checkpoint")
    add("--json", metavar="FILE", help="the same as JSON")
    return parser.parse_args(argv)


def find_checkpoints(paths: list[str]) -> list[str]:
    """The files among `paths`, and those below its folders that end like checkpoints.

    Raises UsageError for a folder without any.
    """
    files = []
    for path in paths:
        if not os.path.isdir(path):
            files.append(path)
            continue
        inside = sorted(str(f) for f in Path(path).rglob("*") if f.name.endswith(ENDINGS))
        if not inside:
            raise UsageError(f"folder {path} holds no checkpoint ({' '.join(ENDINGS)})")
        files += inside
    return files


def evaluate_file(path: str, args, val, loader, dist, log) -> dict:
    """The row of one checkpoint; raises UsageError where it can't be evaluated."""
    from networks import create_model
    from utils import checkpoint
    from utils.engine import Precision
    from utils.files import read_file
    from utils.paper import TABLE3
    from utils.training import evaluate_with_progress

    content = read_file(path)
    network, assumed = checkpoint.recognise(
        content, path, args.attention_type, args.attention_param
    )
    if network["num_classes"] < len(val.classes):
        raise UsageError(
            f"checkpoint {path} knows {network['num_classes']} classes, "
            f"{args.data} has {len(val.classes)} class folders"
        )
    try:
        model = create_model(**network)
    except ValueError as error:
        raise UsageError(f"checkpoint {path}: {error}") from None
    checkpoint.load_state(model, checkpoint.state_dict_of(content, path), path)
    metrics = evaluate_with_progress(
        dist.wrap(model), loader, dist, Precision(dist.device.type), log, path, print_freq=10
    )
    in_paper = TABLE3.get((network["arch"], network["attention"]))
    if network["num_classes"] != 1000:
        in_paper = None
    return {
        "file": path,
        **network,
        **{name: metrics[name] for name in ("images", "loss", "acc1", "acc5")},
        "paper_acc1": in_paper and in_paper.acc1,
        "paper_acc5": in_paper and in_paper.acc5,
        "assumed": "; ".join(assumed.values()),
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
    from networks import default_param
    from utils import data, distributed
    from utils.listing import list_images
    from utils.log import RunLog

    dist, log = distributed.start(args.gpu), RunLog()
    files = find_checkpoints(args.paths)
    val = list_images(args.data, "val")
    if args.attention_type:
        try:
            default_param(args.attention_type)
        except ValueError as error:
            raise UsageError(str(error)) from None
    rows = []
    write_tables(rows, args)  # before hours of work, not after
    loader = data.eval_loader(val, args.image_size, args.batch_size, args.workers, dist)
    for path in files:
        try:
            rows.append(evaluate_file(path, args, val, loader, dist, log))
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
