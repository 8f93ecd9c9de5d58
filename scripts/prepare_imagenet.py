"""ImageNet's archives, or a folder made from them, as train/<class>/ and val/<class>/.

    python scripts/prepare_imagenet.py SOURCE DEST [--shorter-side 400] [--val-classes FILE]

SOURCE holds ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz; or
train/<class>/ instead of the first, and val/<class>/ or a flat val/ instead of the second. It is
only read; images of folders are linked, where the disk allows it, not copied. Stopped at any time,
the same command goes on. --shorter-side N writes smaller copies, quicker to decode, to DEST-N.
Exit code 1 where something is missing or damaged, said in one line each.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.cli import Parser, number


def parse_args(argv: list[str] | None = None):
    parser = Parser(__doc__)
    add, count = parser.add_argument, number(int, 1)
    add("source", metavar="SOURCE", help="folder with the archives, or train/ and val/")
    add("dest", metavar="DEST", help="where train/<class>/ and val/<class>/ go")
    add("--shorter-side", type=count, help="pixels; also write resized copies")
    classes = "the devkit's archive, or lines with WordNet ids, in the images' order or after names"
    add("--val-classes", metavar="FILE", help=classes)
    add("-j", "--workers", type=count, default=os.cpu_count(), help="processes for the copies")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

from scripts.prepare.archives import (
    DEVKIT,
    TRAIN_ARCHIVE,
    VAL_ARCHIVE,
    ValClasses,
    unpack_train,
    unpack_val,
)
from scripts.prepare.images import images_below, link_images, write_smaller
from scripts.prepare.parallel import run_parallel
from utils.data.listing import IMAGENET_CLASSES, IMAGENET_IMAGES
from utils.errors import UsageError, one_line, some
from utils.processes.ending import exit_code


def prepare(args: argparse.Namespace) -> int:
    source, dest = args.source, args.dest.rstrip("/")
    if not os.path.isdir(source):
        raise UsageError(f"source folder {source} does not exist")
    roots = [dest, f"{dest}-{args.shorter_side}"] if args.shorter_side else [dest]
    if os.path.realpath(source) in map(os.path.realpath, roots):
        raise UsageError(f"DEST must be another folder than SOURCE, {source}, and so must DEST-N")
    class_of = ValClasses(args.val_classes or os.path.join(source, f"{DEVKIT}.tar.gz"))
    try:
        problems = make_images(source, dest, class_of)
        if args.shorter_side:
            problems += make_copies(*roots, args.shorter_side, args.workers)
    except OSError as error:
        raise UsageError(
            f"{error}, from {source} to {dest}; once that is mended, the same command goes on"
        ) from None
    lines = [line for root in roots for line in count(root)]
    print("\n".join(map(one_line, problems + lines)))
    return 1 if problems or any(line.endswith("INCOMPLETE") for line in lines) else 0


def make_images(source: str, dest: str, class_of: ValClasses) -> list[str]:
    """Make `dest`/train and `dest`/val, what is not there yet; returns what is damaged."""
    problems: list[str] = []
    train, val = find(source, TRAIN_ARCHIVE, "train"), find(source, VAL_ARCHIVE, "val")
    # first what can fail at once, for want of the classes
    if os.path.isfile(val):
        unpack_val(val, os.path.join(dest, "val"), class_of, problems)
    else:
        link_images(val, os.path.join(dest, "val"), class_of)
    if os.path.isfile(train):
        unpack_train(train, os.path.join(dest, "train"), problems)
    else:
        link_images(train, os.path.join(dest, "train"))
    return problems


def find(source: str, archive: str, folder: str) -> str:
    """The archive in `source`, or the folder made from it."""
    for path in (os.path.join(source, archive), os.path.join(source, folder)):
        if os.path.exists(path):
            return path
    raise UsageError(f"{source} holds neither {archive} nor {folder}/")


def make_copies(dest: str, copy: str, shorter_side: int, workers: int) -> list[str]:
    """Make what is not there yet of `copy`; returns what can't be decoded."""
    images = [f"{split}/{i}" for split in IMAGENET_IMAGES for i in images_below(f"{dest}/{split}")]
    make = partial(write_smaller, source=dest, dest=copy, shorter_side=shorter_side)
    return list(filter(None, run_parallel(make, images, workers, "Copies")))


def count(root: str) -> Iterator[str]:
    """A line for each split: what is there, and what is not."""
    found = {
        split: Counter(map(os.path.dirname, images_below(os.path.join(root, split))))
        for split in IMAGENET_IMAGES
    }
    known = set().union(*found.values())
    for split, wanted in IMAGENET_IMAGES.items():
        classes, images = len(found[split]), sum(found[split].values())
        line = f"{root}/{split}: {classes:,} of {IMAGENET_CLASSES:,} classes, "
        line += f"{images:,} of {wanted:,} images"
        absent = sorted(known - found[split].keys())
        if absent:
            line += f"; no {some(absent)}"
        complete = (classes, images) == (IMAGENET_CLASSES, wanted)
        yield line + (": complete" if complete else ": INCOMPLETE")


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: prepare(args), interrupted="stopped; the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
