"""Decode every image of a data set and list those that can't be read.

    python scripts/check_images.py DATA [-j WORKERS]

DATA holds train/ or val/ or both, in folders or archives, as for main_imagenet.py. Prints a line
for each unreadable image, its path and the reason; exit code 1 if there is any.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.cli import Parser, number


def parse_args(argv: list[str] | None = None):
    parser = Parser(__doc__)
    add, count = parser.add_argument, number(int, 1)
    add("data", metavar="DATA", help="folder with train/<class>/ or val/<class>/")
    add("-j", "--workers", type=count, default=os.cpu_count(), help="processes")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

from scripts.prepare.parallel import run_parallel
from utils.data.images import open_image
from utils.data.listing import list_images, place_of
from utils.data.places import Place
from utils.errors import one_line, reason
from utils.processes.ending import exit_code


def unreadable(image: Place) -> str | None:
    """A line that says why Pillow can't decode the image; None where it can."""
    try:
        open_image(image, "pil")
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        return f"{image}: {reason(error)}"
    return None


def check(root: str, workers: int) -> int:
    splits = [split for split in ("train", "val") if place_of(root, split)]
    listings = [list_images(root, split) for split in splits or ["train"]]
    for note in [note for listing in listings for note in listing.notes]:
        print(note, file=sys.stderr)
    images = [image for listing in listings for image in listing.images]
    lines = list(filter(None, run_parallel(unreadable, images, workers, "Images")))
    for line in lines:
        print(one_line(line))
    print(f"{len(lines)} of {len(images)} images are unreadable", file=sys.stderr)
    return 1 if lines else 0


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: check(args.data, args.workers))


if __name__ == "__main__":
    sys.exit(main())
