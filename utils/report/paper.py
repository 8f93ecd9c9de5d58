"""The paper's Tables 2 (CIFAR), 3 (ImageNet) and 4 (COCO), as its authors printed them.

The numbers are in the CSV files beside this one. The paper prints WideResNet-20x10 and means 28
layers. The authors' README has other values of two: 74.49 for the top-1 of ResNet-34 with SimAM,
40.8 for the AP75 of Faster R-CNN with R50 and SimAM.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

TABLE2_RUNS = 5


@dataclass(frozen=True)
class Accuracy:
    """Top-1 in percent: the mean and the standard deviation of `TABLE2_RUNS` runs."""

    mean: float | None
    std: float | None


@dataclass(frozen=True)
class Figures:
    """Percent, millions, 1e9 multiply-adds, images/s of a GTX 1080 Ti at batch 1."""

    acc1: float
    acc5: float
    params_m: float
    gflops: float
    fps: float


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's, in percent: AP, AP50, AP75, and that of small, medium and large objects."""

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float


def lines(number: int) -> list[list[str]]:
    """The cells of a table's file, line by line; the first names the columns."""
    path = Path(__file__).with_name(f"table{number}.csv")
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


(_, _, *attentions), *rows = lines(2)
# by (dataset, arch, attention)
TABLE2 = {
    (dataset, arch, attention): Accuracy(*map(float, cell.split("±")))
    for dataset, arch, *cells in rows
    for attention, cell in zip(attentions, cells, strict=True)
}
# by (arch, attention)
TABLE3 = {
    (arch, attention): Figures(*map(float, figures)) for arch, attention, *figures in lines(3)[1:]
}
# by (detector, metric, attention); named as mmdetection's configs and metrics
TABLE4 = {
    (detector, metric, attention): AveragePrecision(*map(float, figures))
    for detector, metric, attention, *figures in lines(4)[1:]
}
