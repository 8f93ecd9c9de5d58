"""Parameters and FLOPs of every network, plain and with SimAM, beside the paper's figures.

    python scripts/model_table.py

prints a Markdown table. FLOPs are multiply-adds at 224x224 as `utils.complexity.count_flops`
counts them; the paper's figures are those of its Table 3.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from networks import create_model, list_models
from utils.complexity import count_flops, count_parameters

PAPER = {  # parameters in millions, GFLOPs; the same for the plain network and for SimAM
    "resnet18": (11.69, 1.82),
    "resnet34": (21.80, 3.67),
    "resnet50": (25.56, 4.11),
    "resnet101": (44.55, 7.83),
    "resnext50_32x4d": (25.03, 4.26),
    "mobilenet_v2": (3.50, 0.31),
}


def row(arch: str, attention: str) -> list[str]:
    model = create_model(arch, attention)
    ours = f"{count_parameters(model) / 1e6:.2f} M", f"{count_flops(model) / 1e9:.2f} G"
    paper = "-", "-"
    if arch in PAPER:
        paper = f"{PAPER[arch][0]:.2f} M", f"{PAPER[arch][1]:.2f} G"
    return [arch, attention, ours[0], paper[0], ours[1], paper[1]]


def main() -> None:
    head = ["network", "attention", "parameters", "paper's", "FLOPs", "paper's"]
    rows = [row(arch, attention) for arch in list_models() for attention in ("none", "simam")]
    for cells in [head, ["---"] * len(head), *rows]:
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
