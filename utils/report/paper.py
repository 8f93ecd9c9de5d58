"""The paper's Tables 2 (CIFAR), 3 (ImageNet) and 4 (COCO), as its authors printed them."""

from collections.abc import Iterator
from dataclasses import dataclass

TABLE2_RUNS = 5
# the paper prints WideResNet-20x10 and means 28 layers
ACCURACIES = """
cifar10                     none         se       cbam        eca         gc      simam
cifar_resnet20        92.33±0.19 92.42±0.14 92.60±0.31 92.35±0.35 92.47±0.19 92.73±0.18
cifar_resnet56        93.58±0.20 93.69±0.17 93.82±0.10 93.68±0.08 93.58±0.08 93.76±0.13
cifar_resnet110       94.51±0.31 94.68±0.22 94.83±0.18 94.72±0.15 94.78±0.25 94.72±0.18
cifar_mobilenet_v2    91.86±0.12 91.79±0.20 91.88±0.16 92.34±0.23 91.73±0.14 92.36±0.20
cifar_preresnet20     92.14±0.25 92.24±0.06 92.19±0.11 92.16±0.25 92.19±0.20 92.47±0.12
cifar_preresnet56     93.71±0.24 93.57±0.15 93.67±0.08 93.78±0.17 93.77±0.12 93.80±0.30
cifar_preresnet110    94.22±0.18 94.40±0.18 94.37±0.33 94.70±0.31 94.85±0.19 94.90±0.19
cifar_wideresnet28_10 95.78±0.10 96.24±0.04 95.98±0.17 96.12±0.15 96.12±0.18 96.09±0.21

cifar100                    none         se       cbam        eca         gc      simam
cifar_resnet20        68.88±0.15 69.45±0.11 69.47±0.35 68.89±0.57 69.16±0.48 69.57±0.40
cifar_resnet56        72.24±0.37 72.84±0.51 72.47±0.52 72.45±0.38 72.50±0.50 72.82±0.25
cifar_resnet110       75.54±0.24 76.56±0.30 76.45±0.54 76.33±0.65 76.21±0.17 76.42±0.27
cifar_mobilenet_v2    71.32±0.09 71.54±0.31 71.79±0.22 71.24±0.45 71.78±0.28 72.08±0.28
cifar_preresnet20     68.70±0.30 68.70±0.21 68.76±0.56 68.31±0.46 68.96±0.48 69.13±0.50
cifar_preresnet56     71.83±0.23 72.57±0.32 72.16±0.12 72.43±0.45 72.44±0.19 72.36±0.19
cifar_preresnet110    75.95±0.22 76.68±0.30 76.01±0.57 76.11±0.54 75.88±0.28 76.24±0.31
cifar_wideresnet28_10 81.31±0.39 81.30±0.08 80.54±0.23 80.35±0.22 79.98±0.17 81.51±0.25
"""

# top-1, top-5, parameters, FLOPs, images/s; the authors' README has 74.49 for ResNet-34 with SimAM
IMAGENET = """
resnet18        none   70.33 89.58  11.69 1.82  215
resnet18        se     71.19 90.21  11.78 1.82  144
resnet18        cbam   71.24 90.04  11.78 1.82   78
resnet18        eca    70.71 89.85  11.69 1.82  148
resnet18        srm    71.09 89.98  11.69 1.82  115
resnet18        simam  71.31 89.88  11.69 1.82  147
resnet34        none   73.75 91.60  21.80 3.67  119
resnet34        se     74.32 91.99  21.95 3.67   81
resnet34        cbam   74.41 91.85  21.96 3.67   38
resnet34        eca    74.03 91.73  21.80 3.67   82
resnet34        srm    74.49 92.01  21.81 3.67   59
resnet34        simam  74.46 92.02  21.80 3.67   78
resnet50        none   76.34 93.12  25.56 4.11   89
resnet50        se     77.51 93.74  28.07 4.12   64
resnet50        cbam   77.63 93.88  28.09 4.12   33
resnet50        eca    77.17 93.52  25.56 4.12   64
resnet50        srm    77.51 93.06  25.59 4.11   56
resnet50        simam  77.45 93.66  25.56 4.11   64
resnet101       none   77.82 93.85  44.55 7.83   47
resnet101       se     78.39 94.13  49.29 7.85   33
resnet101       cbam   78.57 94.18  49.33 7.85   14
resnet101       eca    78.46 94.12  44.55 7.84   33
resnet101       srm    78.58 94.15  44.68 7.83   25
resnet101       simam  78.65 94.11  44.55 7.83   32
resnext50_32x4d none   77.47 93.52  25.03 4.26   70
resnext50_32x4d se     77.96 93.93  27.54 4.27   53
resnext50_32x4d cbam   78.06 94.07  27.56 4.27   32
resnext50_32x4d eca    77.74 93.87  25.03 4.27   54
resnext50_32x4d srm    78.04 93.91  25.06 4.26   46
resnext50_32x4d simam  78.00 93.93  25.03 4.26   53
mobilenet_v2    none   71.90 90.51   3.50 0.31   99
mobilenet_v2    se     72.46 90.85   3.53 0.31   65
mobilenet_v2    cbam   72.49 90.78   3.54 0.32   35
mobilenet_v2    eca    72.01 90.46   3.50 0.31   66
mobilenet_v2    srm    72.32 90.70   3.51 0.31   53
mobilenet_v2    simam  72.36 90.74   3.50 0.31   66
"""

# named as mmdetection's configs and metrics: AP, AP50, AP75, and that of small, medium and large
# objects; the authors' README has 40.8 for the AP75 of Faster R-CNN with R50
COCO = """
faster-rcnn_r50  bbox none   37.8 58.5 40.8 21.9 41.7 48.2
faster-rcnn_r50  bbox se     39.4 60.6 43.0 23.6 43.5 50.4
faster-rcnn_r50  bbox simam  39.2 60.7 42.8 22.8 43.0 50.6
faster-rcnn_r101 bbox none   39.6 60.3 43.0 22.5 43.7 51.4
faster-rcnn_r101 bbox se     41.1 62.0 45.2 24.1 45.4 53.0
faster-rcnn_r101 bbox simam  41.2 62.4 45.0 24.0 45.6 52.8
mask-rcnn_r50    bbox none   38.1 58.9 41.3 22.2 41.5 49.4
mask-rcnn_r50    bbox se     39.9 61.1 43.4 24.6 43.6 51.3
mask-rcnn_r50    bbox simam  39.8 61.0 43.4 23.1 43.7 51.4
mask-rcnn_r101   bbox none   40.3 60.8 44.0 22.8 44.2 52.9
mask-rcnn_r101   bbox se     41.8 62.6 45.5 24.3 46.3 54.1
mask-rcnn_r101   bbox simam  41.8 62.8 46.0 24.8 46.2 53.9
mask-rcnn_r50    segm none   34.6 55.6 36.7 18.8 37.7 46.8
mask-rcnn_r50    segm se     36.0 57.8 38.1 20.7 39.4 48.5
mask-rcnn_r50    segm simam  36.0 57.9 38.2 19.1 39.7 48.6
mask-rcnn_r101   segm none   36.3 57.6 38.8 18.8 39.9 49.6
mask-rcnn_r101   segm se     37.2 59.4 39.7 20.2 41.2 50.4
mask-rcnn_r101   segm simam  37.6 59.5 40.1 20.5 41.5 50.8
"""


@dataclass(frozen=True)
class Accuracy:
    """Top-1 in percent: the mean and the standard deviation of `TABLE2_RUNS` runs."""

    mean: float
    std: float


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
    """COCO's, in percent, as pycocotools prints it."""

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float


def words(text: str) -> list[list[str]]:
    """Those of each line."""
    return [line.split() for line in text.strip().splitlines()]


def accuracies() -> Iterator[tuple[tuple[str, str, str], Accuracy]]:
    for block in ACCURACIES.split("\n\n"):
        (dataset, *attentions), *rows = words(block)
        for arch, *cells in rows:
            for attention, cell in zip(attentions, cells, strict=True):
                yield (dataset, arch, attention), Accuracy(*map(float, cell.split("±")))


# by (dataset, arch, attention)
TABLE2 = dict(accuracies())
# by (arch, attention)
TABLE3 = {
    (arch, attention): Figures(*map(float, figures))
    for arch, attention, *figures in words(IMAGENET)
}
# by (detector, metric, attention)
TABLE4 = {
    (detector, metric, attention): AveragePrecision(*map(float, figures))
    for detector, metric, attention, *figures in words(COCO)
}
