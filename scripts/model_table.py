"""Parameters and FLOPs of every network, plain and with SimAM, beside the paper's figures.

    python scripts/model_table.py

prints a Markdown table. ImageNet's networks have 1,000 classes and images of 224x224 pixels, those
that are called cifar_... 10 classes and 32x32. FLOPs are multiply-adds as
`utils.training.complexity.count_flops` counts them; the paper's figures are those of its Table 3.
"""

import sys
from operator import itemgetter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from networks import create_model, list_models
from utils.report.paper import TABLE3
from utils.report.tables import table
from utils.training.complexity import count_flops, count_parameters


def row(arch: str, attention: str) -> dict[str, str]:
    """What the table says of a network, by column."""
    num_classes, image_size = (10, 32) if arch.startswith("cifar_") else (1000, 224)
    model = create_model(arch, attention, num_classes=num_classes)
    figures = TABLE3.get((arch, attention))
    return {
        "network": arch,
        "attention": attention,
        "classes": f"{num_classes:,}",
        "parameters": f"{count_parameters(model):,}",
        "paper's parameters": f"{figures.params_m:.2f} M" if figures else "-",
        "FLOPs": f"{count_flops(model, image_size) / 1e9:.2f} G",
        "paper's FLOPs": f"{figures.gflops:.2f} G" if figures else "-",
    }


def main() -> None:
    rows = [row(arch, attention) for arch in list_models() for attention in ("none", "simam")]
    print(table(rows, {name: itemgetter(name) for name in rows[0]}))


if __name__ == "__main__":
    main()
