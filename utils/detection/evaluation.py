"""What a detector finds on images: its average precision, and pictures of it."""

import os
from dataclasses import astuple
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from ..checkpoints.formats import from_bytes, to_bytes
from ..data.batches import EvalBatches
from ..errors import needed
from ..processes.dist import Dist
from ..report.paper import AveragePrecision
from .average_precision import average_precision
from .images import CocoImages

SHOWN = 0.5  # the score from which on a detection is drawn
Output = dict[str, torch.Tensor]


@torch.no_grad()
def evaluate(
    model: nn.Module, images: CocoImages, dist: Dist, workers: int = 0, show_dir: str | None = None
) -> dict[str, AveragePrecision]:
    """AP in percent of "bbox", and of "segm" where the model makes masks, in every process.

    model: not wrapped. show_dir: draws what it finds on each image, as a file of its name.
    """
    model.eval()
    found, kinds = [], ["bbox", "segm"] if images.masks else ["bbox"]
    batches = EvalBatches(len(images), 1, dist.rank, dist.world)
    for (image,), (target,) in images.load(batches, workers):
        (output,) = model([image.to(dist.device) / 255])
        output = {name: value.cpu() for name, value in output.items()}
        image_id = int(target["image_id"])
        found += results(image_id, output)
        if show_dir:
            path = os.path.join(show_dir, os.path.basename(images.path(image_id)))
            to_pil_image(drawn(image, output, images.categories)).save(path)
    found = gathered(found, dist)
    figures = dist.from_main(
        lambda: [astuple(average_precision(images.coco, found, kind)) for kind in kinds]
    )
    return {kind: AveragePrecision(*each) for kind, each in zip(kinds, figures, strict=True)}


def results(image_id: int, output: Output) -> list[dict[str, Any]]:
    """A detector's output for an image in COCO's format of results, as plain values."""
    boxes = output["boxes"].clone()
    boxes[:, 2:] -= boxes[:, :2]
    columns = {"category_id": output["labels"], "score": output["scores"], "bbox": boxes}
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    found = [{"image_id": image_id, **dict(zip(columns, row, strict=True))} for row in rows]
    for each, mask in zip(found, output.get("masks", ()), strict="masks" in output):
        pixels = np.asfortranarray((mask[0] > 0.5).numpy())
        encoded = needed("pycocotools.mask", "pycocotools").encode(pixels)
        each["segmentation"] = encoded | {"counts": encoded["counts"].decode()}
    return found


def gathered(found: list, dist: Dist) -> list:
    """The plain values of all processes."""
    if dist.world == 1:
        return found
    data = to_bytes(found)
    sizes = torch.zeros(dist.world, dtype=torch.int64)
    sizes[dist.rank] = len(data)
    sizes = dist.sum(sizes).tolist()
    own = torch.frombuffer(bytearray(data.ljust(max(sizes))), dtype=torch.uint8)
    parts = [torch.empty_like(own) for _ in sizes]
    torch.distributed.all_gather(parts, own)
    whole = (part[:size].numpy().tobytes() for part, size in zip(parts, sizes, strict=True))
    return [each for part in whole for each in from_bytes(part)]


def drawn(image: torch.Tensor, output: Output, names: dict[int, str]) -> torch.Tensor:
    """`image`, uint8 (3, H, W), with what was found on it, from a score of `SHOWN` on."""
    kept = output["scores"] >= SHOWN
    if not kept.any():
        return image
    if "masks" in output:
        image = draw_segmentation_masks(image, output["masks"][kept, 0] > 0.5, alpha=0.5)
    pairs = zip(output["labels"][kept].tolist(), output["scores"][kept].tolist(), strict=True)
    words = [f"{names.get(label, label)} {score:.2f}" for label, score in pairs]
    return draw_bounding_boxes(image, output["boxes"][kept], words, width=2)
