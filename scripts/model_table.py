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
from utils.paper import TABLE3


def row(arch: str, attention: str) -> list[str]:
    model = create_model(arch, attention)
    ours = f"{count_parameters(model) / 1e6:.2f} M", f"{count_flops(model) / 1e9:.2f} G"
    paper = "-", "-"
    if (arch, attention) in TABLE3:
        figures = TABLE3[arch, attention]
        paper = f"{figures.params_m:.2f} M", f"{figures.gflops:.2f} G"
    return [arch, attention, ours[0], paper[0], ours[1], paper[1]]


def main() -> None:
    head = ["network", "attention", "parameters", "paper's", "FLOPs", "paper's"]
    rows = [row(arch, attention) for arch in list_models() for attention in ("none", "simam")]
    for cells in [head, ["---"] * len(head), *rows]:
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
