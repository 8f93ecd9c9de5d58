"""Parameters and FLOPs of every network, plain and with SimAM, beside the paper's figures.

    python scripts/model_table.py

prints a Markdown table. ImageNet's networks have 1,000 classes and images of 224x224 pixels, those
that are called cifar_... 10 classes and 32x32. FLOPs are multiply-adds as
`utils.training.complexity.count_flops` counts them; the paper's figures are those of its Table 3.
"""

import argparse
import itertools
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    return Parser(__doc__).parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

from networks import list_models
from utils.config import Network
from utils.data.imagenet import IMAGENET_CLASSES
from utils.processes.ending import exit_code
from utils.report.paper import TABLE3
from utils.report.tables import table
from utils.training.complexity import count_flops, count_parameters


def paper(arch: str, attention: str, figure: str) -> str:
    """What Table 3 has of a network."""
    row = TABLE3.get((arch, attention))
    return f"{getattr(row, figure):.2f}" if row else "-"


def count(arch: str, attention: str) -> dict[str, str]:
    """The row of a network."""
    num_classes, image_size = (10, 32) if arch.startswith("cifar_") else (IMAGENET_CLASSES, 224)
    model = Network(arch=arch, attention=attention, num_classes=num_classes).build()
    return {
        "network": arch,
        "attention": attention,
        "classes": f"{num_classes:,}",
        "parameters": f"{count_parameters(model):,}",
        "the paper's, M": paper(arch, attention, "params_m"),
        "FLOPs, G": f"{count_flops(model, image_size) / 1e9:.2f}",
        "the paper's, G": paper(arch, attention, "gflops"),
    }


def print_table() -> None:
    networks = itertools.product(list_models(), ("none", "simam"))
    print(table(itertools.starmap(count, networks)))


def main(argv: list[str] | None = None) -> int:
    parse_args(argv)
    return exit_code(print_table)


if __name__ == "__main__":
    sys.exit(main())
