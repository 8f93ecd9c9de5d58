"""ImageNet, in whatever form it is at hand, as class folders or an archive a class; made smaller.

    python scripts/prepare_imagenet.py SOURCE DEST [--shorter-side 400] [--tars]

SOURCE is what main_imagenet.py takes: class folders, archives, ImageNet's own tars and devkit; or
class folders and a flat val/. It is only read; images of folders that stay as they are are linked,
where the disk allows it, not copied. DEST gets train/<class>/ and val/<class>/, with --tars an
archive in place of each. Stopped at any time, the same command goes on. Exit code 1 where an image
is damaged or something is missing, said in a line each.
"""

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.cli import Parser, number


def parse_args(argv: list[str] | None = None):
    parser = Parser(__doc__)
    add, count = parser.add_argument, number(int, 1)
    add("source", metavar="SOURCE", help="where the images are")
    add("dest", metavar="DEST", help="where train/<class>/ and val/<class>/ go")
    add("--shorter-side", type=count, help="pixels that an image has there at most")
    add("--tars", action="store_true", help="write an archive for each class, not a folder")
    classes = "the devkit's archive, or lines with WordNet ids, in the images' order or after names"
    add("--val-classes", metavar="FILE", help=classes)
    add("-j", "--workers", type=count, default=os.cpu_count(), help="processes")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

from scripts.prepare.images import write_folder, write_tar
from scripts.prepare.parallel import run_parallel
from utils.data.files import is_data
from utils.data.imagenet import IMAGENET_CLASSES, IMAGENET_IMAGES
from utils.data.listing import Listing, list_images
from utils.errors import UsageError, one_line, some
from utils.processes.ending import exit_code


def prepare(args: argparse.Namespace) -> int:
    if not os.path.isdir(args.source):
        raise UsageError(f"source folder {args.source} does not exist")
    if os.path.realpath(args.source) == os.path.realpath(args.dest):
        raise UsageError(f"DEST must be another folder than SOURCE, {args.source}")
    splits = {
        split: list_images(args.source, split, val_classes=args.val_classes)
        for split in ("val", "train")  # first what can fail for want of the classes
    }
    for note in [note for listing in splits.values() for note in listing.notes]:
        print(note, file=sys.stderr)
    try:
        problems = [
            line
            for split, listing in splits.items()
            for line in written(listing, os.path.join(args.dest, split), args)
        ]
    except OSError as error:
        raise UsageError(
            f"{error}, from {args.source} to {args.dest}; once that is mended, the same command "
            "goes on"
        ) from None
    lines = list(count(args.dest))
    print("\n".join(map(one_line, problems + lines)))
    return 1 if problems or any(line.endswith("INCOMPLETE") for line in lines) else 0


def written(listing: Listing, dest: str, args: argparse.Namespace) -> list[str]:
    """Write the images to `dest`, what is not there yet; returns a line for each that can't be."""
    folders = [os.path.join(dest, named_safely(name)) for name in listing.classes]
    by_class = defaultdict(dict)
    for image, target in zip(listing.images, listing.targets, strict=True):
        name = os.path.basename(os.fsdecode(image.name))
        if by_class[folders[target]].setdefault(name, image) is not image:
            raise UsageError(f"{image} is not the only {name} of its class")
    if args.tars:
        write, chunk, items = write_tar, 1, list(by_class.items())
    else:
        write, chunk = write_folder, 16
        items = [(folder, {n: i}) for folder, images in by_class.items() for n, i in images.items()]
    make = partial(write, shorter_side=args.shorter_side)
    done = run_parallel(make, items, args.workers, dest, chunk)
    return [line for lines in done for line in lines]


def named_safely(label: str) -> str:
    """A class as the name of a folder; raises UsageError for what could lie elsewhere."""
    if not is_data(label) or label != os.path.basename(label):
        raise UsageError(f"class {label!r} can't be the name of a folder")
    return label


def count(root: str) -> Iterator[str]:
    """A line for each split: what is there, and what is not."""
    found = {split: list_images(root, split) for split in IMAGENET_IMAGES}
    known = set().union(*(listing.classes for listing in found.values()))
    for split, wanted in IMAGENET_IMAGES.items():
        classes, images = len(found[split].classes), len(found[split].images)
        line = f"{root}/{split}: {classes:,} of {IMAGENET_CLASSES:,} classes, "
        line += f"{images:,} of {wanted:,} images"
        absent = sorted(known.difference(found[split].classes))
        if absent:
            line += f"; no {some(absent)}"
        complete = (classes, images) == (IMAGENET_CLASSES, wanted)
        yield line + (": complete" if complete else ": INCOMPLETE")


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: prepare(args), interrupted="stopped; the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
