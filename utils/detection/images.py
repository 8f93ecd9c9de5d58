"""Images with objects, in COCO's format."""

import io
import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor

from ..data.batches import EvalBatches, Key, TrainBatches
from ..data.seed import seeded
from ..errors import UsageError, needed
from ..processes.signals import kill_workers_at_exit, leave_to_parent

Target = dict[str, torch.Tensor]
Sample = tuple[torch.Tensor, Target]
Batch = tuple[tuple[torch.Tensor, ...], tuple[Target, ...]]


class CocoImages(Dataset):
    """The images of ROOT/SPLIT2017/ that ROOT/annotations/instances_SPLIT2017.json names.

    A sample, by (epoch, index), is the image, uint8 (3, H, W), with its "image_id" and, for
    training, its objects as torchvision's detectors take them: "boxes" (corners), "labels"
    (category ids), "masks".

    seed: for training: a random flip, drawn from (seed, epoch, index) alone, and only images with
    objects; None for evaluation: all images as they are. Crowds are left out, as in torchvision's
    references. Raises UsageError where the annotations are not there, or are none.
    """

    def __init__(self, root: str, split: str, masks: bool = False, seed: int | None = None):
        self.folder, self.masks, self.seed = os.path.join(root, f"{split}2017"), masks, seed
        path = os.path.join(root, "annotations", f"instances_{split}2017.json")
        if not os.path.exists(path):
            raise UsageError(f"no annotations in COCO's format: {path} does not exist")
        try:
            with redirect_stdout(io.StringIO()):  # it tells its progress
                self.coco = needed("pycocotools.coco", "pycocotools").COCO(path)
            self.categories = {each["id"]: each["name"] for each in self.coco.cats.values()}
            self.ids = sorted(self.coco.imgs)
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise UsageError(f"{path} is not in COCO's format: {error!r}") from None
        if seed is not None:
            self.ids = [each for each in self.ids if self.objects(each)]
        if not self.ids or not self.categories:
            raise UsageError(f"{path} holds no {'objects' if self.categories else 'categories'}")

    @property
    def num_classes(self) -> int:
        """Of a detector whose labels are the category ids; 0 is the background."""
        return max(self.categories) + 1

    def objects(self, image_id: int) -> list[dict[str, Any]]:
        """The image's annotations of single objects with an area."""
        found = self.coco.loadAnns(self.coco.getAnnIds(image_id, iscrowd=False))
        return [each for each in found if min(each["bbox"][2:]) > 0]

    def path(self, image_id: int) -> str:
        return os.path.join(self.folder, self.coco.imgs[image_id]["file_name"])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: Key) -> Sample | UsageError:
        epoch, index = key
        image_id = self.ids[index]
        try:
            image = read_image(self.path(image_id))
        except UsageError as error:
            return error
        target = {"image_id": torch.tensor(image_id)}
        if self.seed is None:
            return image, target
        objects = self.objects(image_id)
        boxes = torch.tensor([each["bbox"] for each in objects], dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]
        target |= {
            "boxes": boxes,
            "labels": torch.tensor([each["category_id"] for each in objects]),
        }
        if self.masks:
            masks = np.stack([self.coco.annToMask(each) for each in objects])
            target["masks"] = torch.from_numpy(masks)
        if seeded(self.seed, epoch, index).random() < 0.5:
            image = image.flip(2)
            boxes[:, [0, 2]] = image.shape[2] - boxes[:, [2, 0]]
            if self.masks:
                target["masks"] = target["masks"].flip(2)
        return image, target

    def load(self, batches: TrainBatches | EvalBatches, workers: int) -> Iterator[Batch]:
        """Lists of images and of their targets; `batches` say which. Raises UsageError for an image
        that can't be read."""
        kill_workers_at_exit()
        for batch in DataLoader(
            self,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_batch,
            worker_init_fn=leave_to_parent,
        ):
            if isinstance(batch, UsageError):
                raise batch
            yield batch


def _batch(samples: list[Sample | UsageError]) -> Batch | UsageError:
    for each in samples:
        if isinstance(each, UsageError):  # raised in a worker, it would be a traceback
            return each
    return tuple(zip(*samples, strict=True))


def read_image(path: str) -> torch.Tensor:
    """uint8 (3, H, W); raises UsageError for what is no image."""
    try:
        return pil_to_tensor(Image.open(path).convert("RGB"))
    except (OSError, Image.DecompressionBombError) as error:
        raise UsageError(f"can't read image {path}: {error}") from None
