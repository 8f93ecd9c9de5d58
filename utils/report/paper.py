"""The paper's Tables 2 (CIFAR), 3 (ImageNet) and 4 (COCO), as its authors printed them."""

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


class Accuracy(NamedTuple):
    """Top-1 in percent: the mean and the standard deviation of `TABLE2_RUNS` runs."""

    mean: float
    std: float


TABLE2_RUNS = 5
# by (dataset, arch, attention); the paper prints WideResNet-20x10 and means 28 layers
TABLE2 = {
    ("cifar10", "cifar_resnet20", "none"): Accuracy(92.33, 0.19),
    ("cifar10", "cifar_resnet20", "se"): Accuracy(92.42, 0.14),
    ("cifar10", "cifar_resnet20", "cbam"): Accuracy(92.60, 0.31),
    ("cifar10", "cifar_resnet20", "eca"): Accuracy(92.35, 0.35),
    ("cifar10", "cifar_resnet20", "gc"): Accuracy(92.47, 0.19),
    ("cifar10", "cifar_resnet20", "simam"): Accuracy(92.73, 0.18),
    ("cifar10", "cifar_resnet56", "none"): Accuracy(93.58, 0.20),
    ("cifar10", "cifar_resnet56", "se"): Accuracy(93.69, 0.17),
    ("cifar10", "cifar_resnet56", "cbam"): Accuracy(93.82, 0.10),
    ("cifar10", "cifar_resnet56", "eca"): Accuracy(93.68, 0.08),
    ("cifar10", "cifar_resnet56", "gc"): Accuracy(93.58, 0.08),
    ("cifar10", "cifar_resnet56", "simam"): Accuracy(93.76, 0.13),
    ("cifar10", "cifar_resnet110", "none"): Accuracy(94.51, 0.31),
    ("cifar10", "cifar_resnet110", "se"): Accuracy(94.68, 0.22),
    ("cifar10", "cifar_resnet110", "cbam"): Accuracy(94.83, 0.18),
    ("cifar10", "cifar_resnet110", "eca"): Accuracy(94.72, 0.15),
    ("cifar10", "cifar_resnet110", "gc"): Accuracy(94.78, 0.25),
    ("cifar10", "cifar_resnet110", "simam"): Accuracy(94.72, 0.18),
    ("cifar10", "cifar_mobilenet_v2", "none"): Accuracy(91.86, 0.12),
    ("cifar10", "cifar_mobilenet_v2", "se"): Accuracy(91.79, 0.20),
    ("cifar10", "cifar_mobilenet_v2", "cbam"): Accuracy(91.88, 0.16),
    ("cifar10", "cifar_mobilenet_v2", "eca"): Accuracy(92.34, 0.23),
    ("cifar10", "cifar_mobilenet_v2", "gc"): Accuracy(91.73, 0.14),
    ("cifar10", "cifar_mobilenet_v2", "simam"): Accuracy(92.36, 0.20),
    ("cifar10", "cifar_preresnet20", "none"): Accuracy(92.14, 0.25),
    ("cifar10", "cifar_preresnet20", "se"): Accuracy(92.24, 0.06),
    ("cifar10", "cifar_preresnet20", "cbam"): Accuracy(92.19, 0.11),
    ("cifar10", "cifar_preresnet20", "eca"): Accuracy(92.16, 0.25),
    ("cifar10", "cifar_preresnet20", "gc"): Accuracy(92.19, 0.20),
    ("cifar10", "cifar_preresnet20", "simam"): Accuracy(92.47, 0.12),
    ("cifar10", "cifar_preresnet56", "none"): Accuracy(93.71, 0.24),
    ("cifar10", "cifar_preresnet56", "se"): Accuracy(93.57, 0.15),
    ("cifar10", "cifar_preresnet56", "cbam"): Accuracy(93.67, 0.08),
    ("cifar10", "cifar_preresnet56", "eca"): Accuracy(93.78, 0.17),
    ("cifar10", "cifar_preresnet56", "gc"): Accuracy(93.77, 0.12),
    ("cifar10", "cifar_preresnet56", "simam"): Accuracy(93.80, 0.30),
    ("cifar10", "cifar_preresnet110", "none"): Accuracy(94.22, 0.18),
    ("cifar10", "cifar_preresnet110", "se"): Accuracy(94.40, 0.18),
    ("cifar10", "cifar_preresnet110", "cbam"): Accuracy(94.37, 0.33),
    ("cifar10", "cifar_preresnet110", "eca"): Accuracy(94.70, 0.31),
    ("cifar10", "cifar_preresnet110", "gc"): Accuracy(94.85, 0.19),
    ("cifar10", "cifar_preresnet110", "simam"): Accuracy(94.90, 0.19),
    ("cifar10", "cifar_wideresnet28_10", "none"): Accuracy(95.78, 0.10),
    ("cifar10", "cifar_wideresnet28_10", "se"): Accuracy(96.24, 0.04),
    ("cifar10", "cifar_wideresnet28_10", "cbam"): Accuracy(95.98, 0.17),
    ("cifar10", "cifar_wideresnet28_10", "eca"): Accuracy(96.12, 0.15),
    ("cifar10", "cifar_wideresnet28_10", "gc"): Accuracy(96.12, 0.18),
    ("cifar10", "cifar_wideresnet28_10", "simam"): Accuracy(96.09, 0.21),
    ("cifar100", "cifar_resnet20", "none"): Accuracy(68.88, 0.15),
    ("cifar100", "cifar_resnet20", "se"): Accuracy(69.45, 0.11),
    ("cifar100", "cifar_resnet20", "cbam"): Accuracy(69.47, 0.35),
    ("cifar100", "cifar_resnet20", "eca"): Accuracy(68.89, 0.57),
    ("cifar100", "cifar_resnet20", "gc"): Accuracy(69.16, 0.48),
    ("cifar100", "cifar_resnet20", "simam"): Accuracy(69.57, 0.40),
    ("cifar100", "cifar_resnet56", "none"): Accuracy(72.24, 0.37),
    ("cifar100", "cifar_resnet56", "se"): Accuracy(72.84, 0.51),
    ("cifar100", "cifar_resnet56", "cbam"): Accuracy(72.47, 0.52),
    ("cifar100", "cifar_resnet56", "eca"): Accuracy(72.45, 0.38),
    ("cifar100", "cifar_resnet56", "gc"): Accuracy(72.50, 0.50),
    ("cifar100", "cifar_resnet56", "simam"): Accuracy(72.82, 0.25),
    ("cifar100", "cifar_resnet110", "none"): Accuracy(75.54, 0.24),
    ("cifar100", "cifar_resnet110", "se"): Accuracy(76.56, 0.30),
    ("cifar100", "cifar_resnet110", "cbam"): Accuracy(76.45, 0.54),
    ("cifar100", "cifar_resnet110", "eca"): Accuracy(76.33, 0.65),
    ("cifar100", "cifar_resnet110", "gc"): Accuracy(76.21, 0.17),
    ("cifar100", "cifar_resnet110", "simam"): Accuracy(76.42, 0.27),
    ("cifar100", "cifar_mobilenet_v2", "none"): Accuracy(71.32, 0.09),
    ("cifar100", "cifar_mobilenet_v2", "se"): Accuracy(71.54, 0.31),
    ("cifar100", "cifar_mobilenet_v2", "cbam"): Accuracy(71.79, 0.22),
    ("cifar100", "cifar_mobilenet_v2", "eca"): Accuracy(71.24, 0.45),
    ("cifar100", "cifar_mobilenet_v2", "gc"): Accuracy(71.78, 0.28),
    ("cifar100", "cifar_mobilenet_v2", "simam"): Accuracy(72.08, 0.28),
    ("cifar100", "cifar_preresnet20", "none"): Accuracy(68.70, 0.30),
    ("cifar100", "cifar_preresnet20", "se"): Accuracy(68.70, 0.21),
    ("cifar100", "cifar_preresnet20", "cbam"): Accuracy(68.76, 0.56),
    ("cifar100", "cifar_preresnet20", "eca"): Accuracy(68.31, 0.46),
    ("cifar100", "cifar_preresnet20", "gc"): Accuracy(68.96, 0.48),
    ("cifar100", "cifar_preresnet20", "simam"): Accuracy(69.13, 0.50),
    ("cifar100", "cifar_preresnet56", "none"): Accuracy(71.83, 0.23),
    ("cifar100", "cifar_preresnet56", "se"): Accuracy(72.57, 0.32),
    ("cifar100", "cifar_preresnet56", "cbam"): Accuracy(72.16, 0.12),
    ("cifar100", "cifar_preresnet56", "eca"): Accuracy(72.43, 0.45),
    ("cifar100", "cifar_preresnet56", "gc"): Accuracy(72.44, 0.19),
    ("cifar100", "cifar_preresnet56", "simam"): Accuracy(72.36, 0.19),
    ("cifar100", "cifar_preresnet110", "none"): Accuracy(75.95, 0.22),
    ("cifar100", "cifar_preresnet110", "se"): Accuracy(76.68, 0.30),
    ("cifar100", "cifar_preresnet110", "cbam"): Accuracy(76.01, 0.57),
    ("cifar100", "cifar_preresnet110", "eca"): Accuracy(76.11, 0.54),
    ("cifar100", "cifar_preresnet110", "gc"): Accuracy(75.88, 0.28),
    ("cifar100", "cifar_preresnet110", "simam"): Accuracy(76.24, 0.31),
    ("cifar100", "cifar_wideresnet28_10", "none"): Accuracy(81.31, 0.39),
    ("cifar100", "cifar_wideresnet28_10", "se"): Accuracy(81.30, 0.08),
    ("cifar100", "cifar_wideresnet28_10", "cbam"): Accuracy(80.54, 0.23),
    ("cifar100", "cifar_wideresnet28_10", "eca"): Accuracy(80.35, 0.22),
    ("cifar100", "cifar_wideresnet28_10", "gc"): Accuracy(79.98, 0.17),
    ("cifar100", "cifar_wideresnet28_10", "simam"): Accuracy(81.51, 0.25),
}


class AveragePrecision(NamedTuple):
    """COCO's, in percent, as pycocotools prints it."""

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float


# by (detector, metric, attention), named as mmdetection's configs and metrics; the authors' README
# has 40.8 for the AP75 of Faster R-CNN with R50
TABLE4 = {
    ("faster-rcnn_r50", "bbox", "none"): AveragePrecision(37.8, 58.5, 40.8, 21.9, 41.7, 48.2),
    ("faster-rcnn_r50", "bbox", "se"): AveragePrecision(39.4, 60.6, 43.0, 23.6, 43.5, 50.4),
    ("faster-rcnn_r50", "bbox", "simam"): AveragePrecision(39.2, 60.7, 42.8, 22.8, 43.0, 50.6),
    ("faster-rcnn_r101", "bbox", "none"): AveragePrecision(39.6, 60.3, 43.0, 22.5, 43.7, 51.4),
    ("faster-rcnn_r101", "bbox", "se"): AveragePrecision(41.1, 62.0, 45.2, 24.1, 45.4, 53.0),
    ("faster-rcnn_r101", "bbox", "simam"): AveragePrecision(41.2, 62.4, 45.0, 24.0, 45.6, 52.8),
    ("mask-rcnn_r50", "bbox", "none"): AveragePrecision(38.1, 58.9, 41.3, 22.2, 41.5, 49.4),
    ("mask-rcnn_r50", "bbox", "se"): AveragePrecision(39.9, 61.1, 43.4, 24.6, 43.6, 51.3),
    ("mask-rcnn_r50", "bbox", "simam"): AveragePrecision(39.8, 61.0, 43.4, 23.1, 43.7, 51.4),
    ("mask-rcnn_r101", "bbox", "none"): AveragePrecision(40.3, 60.8, 44.0, 22.8, 44.2, 52.9),
    ("mask-rcnn_r101", "bbox", "se"): AveragePrecision(41.8, 62.6, 45.5, 24.3, 46.3, 54.1),
    ("mask-rcnn_r101", "bbox", "simam"): AveragePrecision(41.8, 62.8, 46.0, 24.8, 46.2, 53.9),
    ("mask-rcnn_r50", "segm", "none"): AveragePrecision(34.6, 55.6, 36.7, 18.8, 37.7, 46.8),
    ("mask-rcnn_r50", "segm", "se"): AveragePrecision(36.0, 57.8, 38.1, 20.7, 39.4, 48.5),
    ("mask-rcnn_r50", "segm", "simam"): AveragePrecision(36.0, 57.9, 38.2, 19.1, 39.7, 48.6),
    ("mask-rcnn_r101", "segm", "none"): AveragePrecision(36.3, 57.6, 38.8, 18.8, 39.9, 49.6),
    ("mask-rcnn_r101", "segm", "se"): AveragePrecision(37.2, 59.4, 39.7, 20.2, 41.2, 50.4),
    ("mask-rcnn_r101", "segm", "simam"): AveragePrecision(37.6, 59.5, 40.1, 20.5, 41.5, 50.8),
}
