"""Decode every image of a data set and list those that can't be read.

    python scripts/check_images.py DATA [-j WORKERS]

DATA holds train/<class>/ or val/<class>/ or both. Prints a line for each unreadable file, its
path and the reason; exit code 1 if there is any.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.prepare.parallel import chunks, run_parallel
from utils.cli import Parser, exit_code, number
from utils.data.images import open_image
from utils.data.listing import list_images
from utils.errors import reason


def unreadable(paths: list[str]) -> list[str]:
    """A line for each of `paths` that Pillow can't decode."""
    found = []
    for path in paths:
        try:
            open_image(path, "pil")
        except Exception as error:  # a damaged file makes Pillow raise almost anything
            found.append(f"{path}: {reason(error)}")
    return found


def check(root: str, workers: int) -> int:
    splits = [split for split in ("train", "val") if os.path.isdir(os.path.join(root, split))]
    paths = [path for split in splits or ["train"] for path in list_images(root, split).paths]
    results = run_parallel(unreadable, chunks(paths, 64), workers, "Images")
    lines = sorted(line for lines in results for line in lines)
    for line in lines:
        print(line)
    print(f"{len(lines)} of {len(paths)} images are unreadable", file=sys.stderr)
    return 1 if lines else 0


def parse_args(argv: list[str] | None = None):
    parser = Parser(description=__doc__.split("\n\n")[0])
    add, count = parser.add_argument, number(int, 1)
    add("data", metavar="DATA", help="folder with train/<class>/ or val/<class>/")
    add("-j", "--workers", type=count, default=os.cpu_count(), help="processes")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: check(args.data, args.workers))


if __name__ == "__main__":
    sys.exit(main())
