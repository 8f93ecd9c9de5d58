"""Write scikit-learn's 1,797 handwritten digits as PNG files in class folders.

    python scripts/make_digits.py FOLDER

makes FOLDER/train/<digit>/<number>.png and FOLDER/val/<digit>/<number>.png: of each digit the
first 36 images are for validation, the others for training. They are 8x8 pixels, grey.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where train/ and val/ begin")
    return parser.parse_args(argv)


def write_digits(folder: Path, val: int, train: int | None = None, classes: int = 10) -> None:
    """Write `val` images of each of the first `classes` digits for validation, `train` others."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(classes):
        images = np.uint8(digits.images[digits.target == label] * 255 / 16)
        splits = {"val": images[:val], "train": images[val:][:train]}
        for split, chosen in splits.items():
            target = Path(folder, split, str(label))
            target.mkdir(parents=True, exist_ok=True)
            for number, pixels in enumerate(chosen):
                Image.fromarray(pixels).save(target / f"{number:03}.png")


if __name__ == "__main__":
    write_digits(parse_args().folder, val=36)
