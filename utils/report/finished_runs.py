"""What finished runs reached: our run folders, and mmdetection's work folders."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..disk import read_entries

CURVES = ("lr", "train_loss", "train_acc1", "val_loss", "val_acc1", "val_acc5")
DETECTOR = re.compile(r"((?:faster|mask)-rcnn_r\d+)(?:-(\w+))?_fpn_1x_coco$")
SCHEDULE_1X = 12  # epochs
SUFFIXES = ("", "_50", "_75", "_s", "_m", "_l")


class Finished(NamedTuple):
    """A run that trained all of its epochs: its folder, its settings, an entry an epoch.

    An entry has the numbers of `CURVES`, and "seconds".
    """

    folder: str
    settings: Mapping[str, Any]
    epochs: list[Mapping[str, float]]

    def curves(self) -> dict[str, list[float]]:
        """The numbers of every epoch, by name, rounded to what is of interest."""
        return {name: [round(epoch[name], 6) for epoch in self.epochs] for name in CURVES}

    def seconds(self) -> float:
        return sum(epoch["seconds"] for epoch in self.epochs)


def read_run(folder: str) -> Finished | None:
    """The run in `folder`; None where there is none, or it is not finished."""
    try:
        settings = json.loads(Path(folder, "args.json").read_text())
        epochs = read_entries(Path(folder, "metrics.jsonl"))
    except (OSError, ValueError):
        return None
    wanted = {*CURVES, "seconds"}
    if not all(isinstance(epoch, dict) and epoch.keys() >= wanted for epoch in epochs):
        return None
    if not isinstance(settings, dict) or settings.get("epochs") != len(epochs):
        return None
    return Finished(folder, settings, epochs)


def read_detector(folder: str) -> dict[tuple[str, str, str], list[float]]:
    """By (detector, "bbox" or "segm", attention) the AP, AP50, AP75, and AP of small, medium and
    large objects, in percent, that mmdetection logged after the last epoch in a work folder.

    The work folder is named after its config, as mmdetection does it; empty for other folders,
    and where the 12 epochs are not complete. Reads the logs of mmdetection 3 and 2.
    """
    named = DETECTOR.match(Path(folder).resolve().name)
    if not named:
        return {}
    detector, attention = named[1], named[2] or "none"
    found = {}
    for log in sorted([*Path(folder).rglob("vis_data/*.json"), *Path(folder).glob("*.log.json")]):
        for entry in read_entries(log):
            if entry.get("step", entry.get("epoch")) != SCHEDULE_1X:
                continue
            for metric in ("bbox", "segm"):
                keys = [f"{metric}_mAP{suffix}" for suffix in SUFFIXES]
                values = [entry.get(f"coco/{key}", entry.get(key)) for key in keys]
                if None not in values:
                    found[detector, metric, attention] = [100 * value for value in values]
    return found
