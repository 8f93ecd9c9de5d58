"""COCO's average precision, by pycocotools."""

import io
from contextlib import redirect_stdout
from dataclasses import astuple
from typing import Any

from ..errors import needed
from ..report.paper import AveragePrecision

KINDS = {"bbox": "boxes", "segm": "masks"}


def average_precision(truth: Any, found: list[dict[str, Any]], kind: str) -> AveragePrecision:
    """AP in percent, of the boxes ("bbox") or masks ("segm") in `found`, over all images of
    `truth`, a pycocotools COCO.

    found: in COCO's format of results: "image_id", "category_id", "score", "bbox" (x, y, width,
    height), "segmentation". -1 where there is no such object; 0 where nothing was found.
    """
    evaluation = needed("pycocotools.cocoeval", "pycocotools").COCOeval
    if not found:
        return AveragePrecision(*[0.0] * 6)
    other = "segmentation" if kind == "bbox" else "bbox"  # which would say how large an object is
    results = [{name: each[name] for name in each if name != other} for each in found]
    with redirect_stdout(io.StringIO()):  # it tells its progress
        evaluated = evaluation(truth, truth.loadRes(results), kind)
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    return AveragePrecision(*(100 * value if value >= 0 else -1.0 for value in evaluated.stats[:6]))


def in_words(kind: str, figures: AveragePrecision) -> str:
    """As a run's last lines say it."""
    names = ("AP", "AP50", "AP75", "small", "medium", "large")
    words = (f"{name} {value:.1f}" for name, value in zip(names, astuple(figures), strict=True))
    return f" * {KINDS[kind]}  {'  '.join(words)}"
