"""The paper's Table 3: ImageNet, as its authors printed it."""

from typing import NamedTuple


class Row(NamedTuple):
    """Percent, millions, 1e9 multiply-adds, images/s of a GTX 1080 Ti at batch 1."""

    acc1: float
    acc5: float
    params_m: float
    gflops: float
    fps: int


# by (arch, attention); the authors' README has 74.49 for ResNet-34 with SimAM
TABLE3 = {
    ("resnet18", "none"): Row(70.33, 89.58, 11.69, 1.82, 215),
    ("resnet18", "se"): Row(71.19, 90.21, 11.78, 1.82, 144),
    ("resnet18", "cbam"): Row(71.24, 90.04, 11.78, 1.82, 78),
    ("resnet18", "eca"): Row(70.71, 89.85, 11.69, 1.82, 148),
    ("resnet18", "srm"): Row(71.09, 89.98, 11.69, 1.82, 115),
    ("resnet18", "simam"): Row(71.31, 89.88, 11.69, 1.82, 147),
    ("resnet34", "none"): Row(73.75, 91.60, 21.80, 3.67, 119),
    ("resnet34", "se"): Row(74.32, 91.99, 21.95, 3.67, 81),
    ("resnet34", "cbam"): Row(74.41, 91.85, 21.96, 3.67, 38),
    ("resnet34", "eca"): Row(74.03, 91.73, 21.80, 3.67, 82),
    ("resnet34", "srm"): Row(74.49, 92.01, 21.81, 3.67, 59),
    ("resnet34", "simam"): Row(74.46, 92.02, 21.80, 3.67, 78),
    ("resnet50", "none"): Row(76.34, 93.12, 25.56, 4.11, 89),
    ("resnet50", "se"): Row(77.51, 93.74, 28.07, 4.12, 64),
    ("resnet50", "cbam"): Row(77.63, 93.88, 28.09, 4.12, 33),
    ("resnet50", "eca"): Row(77.17, 93.52, 25.56, 4.12, 64),
    ("resnet50", "srm"): Row(77.51, 93.06, 25.59, 4.11, 56),
    ("resnet50", "simam"): Row(77.45, 93.66, 25.56, 4.11, 64),
    ("resnet101", "none"): Row(77.82, 93.85, 44.55, 7.83, 47),
    ("resnet101", "se"): Row(78.39, 94.13, 49.29, 7.85, 33),
    ("resnet101", "cbam"): Row(78.57, 94.18, 49.33, 7.85, 14),
    ("resnet101", "eca"): Row(78.46, 94.12, 44.55, 7.84, 33),
    ("resnet101", "srm"): Row(78.58, 94.15, 44.68, 7.83, 25),
    ("resnet101", "simam"): Row(78.65, 94.11, 44.55, 7.83, 32),
    ("resnext50_32x4d", "none"): Row(77.47, 93.52, 25.03, 4.26, 70),
    ("resnext50_32x4d", "se"): Row(77.96, 93.93, 27.54, 4.27, 53),
    ("resnext50_32x4d", "cbam"): Row(78.06, 94.07, 27.56, 4.27, 32),
    ("resnext50_32x4d", "eca"): Row(77.74, 93.87, 25.03, 4.27, 54),
    ("resnext50_32x4d", "srm"): Row(78.04, 93.91, 25.06, 4.26, 46),
    ("resnext50_32x4d", "simam"): Row(78.00, 93.93, 25.03, 4.26, 53),
    ("mobilenet_v2", "none"): Row(71.90, 90.51, 3.50, 0.31, 99),
    ("mobilenet_v2", "se"): Row(72.46, 90.85, 3.53, 0.31, 65),
    ("mobilenet_v2", "cbam"): Row(72.49, 90.78, 3.54, 0.32, 35),
    ("mobilenet_v2", "eca"): Row(72.01, 90.46, 3.50, 0.31, 66),
    ("mobilenet_v2", "srm"): Row(72.32, 90.70, 3.51, 0.31, 53),
    ("mobilenet_v2", "simam"): Row(72.36, 90.74, 3.50, 0.31, 66),
}
