"""Evaluate many checkpoints on DATA's validation images, in one table beside the authors' figures.

    python scripts/evaluate_all.py DATA CHECKPOINT_OR_FOLDER... [--csv FILE] [--json FILE]

Each file's network is recognised: our own files name it, others show it by their keys and shapes.
SimAM has no weights, so bare ones of a network with SimAM look like those of one without; the
table says what was assumed, --attention-type and --attention-param say it better. Of the files in a
run folder only the best is evaluated, unless they are named. A file that can't be evaluated is
reported and passed over; the exit code is then 2.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser, add_batches, add_gpu, add_recognition


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("data", metavar="DATA", help="folder with val/<class>/")
    add("paths", metavar="CHECKPOINT_OR_FOLDER", nargs="+", help="folders are searched through")
    add_recognition(parser)
    add_batches(parser)
    add_gpu(parser)
    add("--class-names", metavar="FILE", help="of outputs that a file does not name, one a line")
    add("--csv", metavar="FILE", help="write the table here too, after each checkpoint")
    add("--json", metavar="FILE", help="the same as JSON")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

from utils.checkpoints.trained import Trained, load_trained
from utils.config import Data, Machine, default_of
from utils.data.classes import said_names
from utils.data.files import find_files
from utils.data.imagenet import IMAGENET_CLASSES
from utils.data.listing import Listing, list_images
from utils.data.loader import eval_loader
from utils.disk import check_target
from utils.errors import UsageError
from utils.processes.dist import Dist, start
from utils.processes.ending import exit_code
from utils.report.paper import RELEASED, TABLE3
from utils.report.tables import table, write_csv, write_json
from utils.training.engine import Precision
from utils.training.evaluation import evaluate_with_progress, matched
from utils.training.folder import BEST, LATEST, PREVIOUS
from utils.training.log import Progress, RunLog

ENDINGS = (".pth", ".pt", ".pth.tar", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a checkpoint is and what it reaches, in percent, beside what the authors say
    of the file that they released, or in the paper.

    image_size: in pixels a side. images: how many. assumed: what the file does not say.
    """

    file: str
    arch: str
    attention: str
    attention_param: float | None
    num_classes: int
    image_size: int
    images: int
    loss: float
    acc1: float
    acc5: float
    paper_acc1: float | None
    paper_acc5: float | None
    assumed: str


COLUMNS = {
    "checkpoint": attrgetter("file"),
    "network": attrgetter("arch"),
    "attention": lambda row: setting(row.attention, row.attention_param),
    "top-1": lambda row: f"{row.acc1:.3f}",
    "top-5": lambda row: f"{row.acc5:.3f}" if row.num_classes > 5 else "",
    "authors'": lambda row: " / ".join(map(plain, filter(None, (row.paper_acc1, row.paper_acc5)))),
    "assumed": attrgetter("assumed"),
}


def plain(percent: float) -> str:
    """With the digits that were published: two, or of released files three."""
    return f"{percent:.3f}".removesuffix("0")


def setting(attention: str, param: float | None) -> str:
    return attention if param is None else f"{attention} {param:g}"


def evaluate_checkpoint(
    trained: Trained, images: Listing, data: Data, dist: Dist, names: Sequence[str] = ()
) -> Row:
    """Evaluate a network, saying where it is, on `images`, cut as those of its training.

    names: of its outputs, where it does not say them. Raises UsageError where a class folder means
    none of its outputs, and where those are not finite.
    """
    network, preparation = trained.network, trained.preparation
    outputs = trained.checkpoint.outputs_for(images.classes, names)
    model, images = matched(trained.model, images, outputs, subset=False)
    loader = eval_loader(images, data, preparation, dist)
    progress = Progress(RunLog(), trained.path, loader.batches, 10, network.num_classes)
    precision = Precision(dist.device.type)
    means = evaluate_with_progress(dist.replicate(model), loader, dist, precision, progress)
    trained.checkpoint.check_finite(means["loss"])
    key = network.arch, network.attention
    paper = RELEASED.get(("imagenet", *key)) or TABLE3.get(key)
    if network.num_classes != IMAGENET_CLASSES:
        paper = None
    return Row(
        file=trained.path,
        **asdict(network),
        image_size=preparation.centre_crop,
        **{name: means[name] for name in ("images", "loss", "acc1", "acc5")},
        paper_acc1=paper and paper.acc1,
        paper_acc5=paper and paper.acc5,
        assumed="; ".join(trained.assumed.values()),
    )


def is_beside_best(path: str) -> bool:
    """Whether the run whose state it is has a better one, kept beside it."""
    folder, name = os.path.split(path)
    return name in (LATEST, PREVIOUS) and os.path.exists(os.path.join(folder, BEST))


def evaluate_all(args: argparse.Namespace) -> int:
    """Evaluate what can be; returns the exit code."""
    dist = start(Machine(gpu=args.gpu))
    found = dict.fromkeys(find_files(args.paths, ENDINGS, "checkpoint"))
    files = [path for path in found if path in args.paths or not is_beside_best(path)]
    names = said_names(args.class_names)
    images = list_images(args.data, "val", names)
    if args.attention_type:
        default_of(args.attention_type)  # a wrong name is told once, not of every file
    for note in images.notes:
        print(note, file=sys.stderr)
    for path in filter(None, (args.csv, args.json)):
        check_target(path, replace=True)
    data = Data(root=args.data, batch_size=args.batch_size, workers=args.workers)
    words = args.attention_type, args.attention_param, args.image_size
    rows = []
    for path in files:
        try:
            trained = load_trained(path, *words)
            rows.append(evaluate_checkpoint(trained, images, data, dist, names))
        except UsageError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        if args.csv:
            write_csv(rows, args.csv)
        if args.json:
            write_json(rows, args.json)
    print(table(rows, COLUMNS))
    return 0 if len(rows) == len(files) else 2


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: evaluate_all(args), "a smaller -b needs less")


if __name__ == "__main__":
    sys.exit(main())
