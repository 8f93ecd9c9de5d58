"""Parameters and FLOPs of every network, plain and with SimAM, beside the paper's figures.

    python scripts/model_table.py

prints a Markdown table. FLOPs are multiply-adds at 224x224 as `utils.complexity.count_flops`
counts them; the paper's figures are those of its Table 3.
"""

import sys
from operator import itemgetter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from networks import create_model, list_models
from utils.complexity import count_flops, count_parameters
from utils.paper import TABLE3
from utils.tables import table


def row(arch: str, attention: str) -> dict[str, str]:
    model, figures = create_model(arch, attention), TABLE3.get((arch, attention))
    return {
        "network": arch,
        "attention": attention,
        "parameters": f"{count_parameters(model) / 1e6:.2f} M",
        "paper's parameters": f"{figures.params_m:.2f} M" if figures else "-",
        "FLOPs": f"{count_flops(model) / 1e9:.2f} G",
        "paper's FLOPs": f"{figures.gflops:.2f} G" if figures else "-",
    }


def main() -> None:
    rows = [row(arch, attention) for arch in list_models() for attention in ("none", "simam")]
    print(table(rows, {name: itemgetter(name) for name in rows[0]}))


if __name__ == "__main__":
    main()
