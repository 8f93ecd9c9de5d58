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
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    return Parser(__doc__).parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

from networks import list_models
from utils.config import Network
from utils.data.listing import IMAGENET_CLASSES
from utils.processes.ending import exit_code
from utils.report.paper import TABLE3
from utils.report.tables import table
from utils.training.complexity import count_flops, count_parameters


class Row(NamedTuple):
    """A network's size."""

    network: Network
    parameters: int
    flops: int

    def paper(self, figure: str, unit: str) -> str:
        """What Table 3 has of it."""
        row = TABLE3.get((self.network.arch, self.network.attention))
        return f"{getattr(row, figure):.2f} {unit}" if row else "-"


COLUMNS = {
    "network": lambda row: row.network.arch,
    "attention": lambda row: row.network.attention,
    "classes": lambda row: f"{row.network.num_classes:,}",
    "parameters": lambda row: f"{row.parameters:,}",
    "paper's parameters": lambda row: row.paper("params_m", "M"),
    "FLOPs": lambda row: f"{row.flops / 1e9:.2f} G",
    "paper's FLOPs": lambda row: row.paper("gflops", "G"),
}


def measure(arch: str, attention: str) -> Row:
    """Count a network's parameters and FLOPs."""
    num_classes, image_size = (10, 32) if arch.startswith("cifar_") else (IMAGENET_CLASSES, 224)
    network = Network(arch=arch, attention=attention, num_classes=num_classes)
    model = network.build()
    return Row(network, count_parameters(model), count_flops(model, image_size))


def print_table() -> None:
    names = itertools.product(list_models(), ("none", "simam"))
    print(table(itertools.starmap(measure, names), COLUMNS))


def main(argv: list[str] | None = None) -> int:
    parse_args(argv)
    return exit_code(print_table)


if __name__ == "__main__":
    sys.exit(main())
