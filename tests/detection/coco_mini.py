"""A few images of COCO, for detectors to learn by heart."""

import json
from pathlib import Path

COCO = Path(__file__).resolve().parents[3] / "shared" / "data" / "coco-mini"


def four_images() -> dict:
    """The annotations of the first four landscape images whose objects are all large."""
    coco = json.loads((COCO / "annotations/instances_train2017.json").read_text())
    chosen = {}
    for image in coco["images"]:
        objects = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        large = 0.05 * image["width"] * image["height"]
        if (
            image["width"] > image["height"]
            and objects
            and all(a["area"] > large and not a["iscrowd"] for a in objects)
        ):
            chosen[image["id"]] = image
    kept = dict(list(chosen.items())[:4])
    return {
        **coco,
        "images": list(kept.values()),
        "annotations": [a for a in coco["annotations"] if a["image_id"] in kept],
    }
