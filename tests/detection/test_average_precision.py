"""Average precision: mmdetection's CocoMetric on the same detections says the same."""

import json

import coco_mini
import detectors  # noqa: F401 (skips without mmdetection)
import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from pycocotools import mask
from pycocotools.coco import COCO

from utils.detection.average_precision import average_precision

pytestmark = [
    pytest.mark.skipif(not coco_mini.COCO.is_dir(), reason=f"no images in {coco_mini.COCO}"),
    pytest.mark.filterwarnings("ignore"),  # of libraries older than this torch
]


def test_it_is_that_of_coco_metric(tmp_path):
    """On boxes and masks that are moved, mistaken for others or missing."""
    torch.manual_seed(0)
    path = coco_mini.COCO / "annotations/instances_val2017.json"
    truth = COCO(path)
    metric = CocoMetric(ann_file=str(path), metric=["bbox", "segm"])
    categories = {each["id"]: each["name"] for each in truth.cats.values()}
    metric.dataset_meta = dict(classes=tuple(categories.values()))
    labels, found = {each: label for label, each in enumerate(categories)}, []
    for image_id, image in truth.imgs.items():
        objects = truth.loadAnns(truth.getAnnIds(image_id, iscrowd=False))[::2]
        moved = torch.randint(-6, 7, (len(objects), 2))
        masks = [
            np.roll(truth.annToMask(each), shift, (1, 0))
            for each, shift in zip(objects, moved.tolist(), strict=True)
        ]
        kinds = [o["category_id"] if torch.rand(()) < 0.8 else 1 for o in objects]
        boxes = torch.tensor([o["bbox"] for o in objects]).reshape(-1, 4)
        boxes[:, :2] += moved
        scores = torch.rand(len(objects))
        corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        predicted = dict(
            bboxes=corners,
            scores=scores,
            labels=torch.tensor([labels[kind] for kind in kinds], dtype=torch.int64),
            masks=[mask.encode(np.asfortranarray(each)) for each in masks],
        )
        shape = (image["height"], image["width"])
        metric.process({}, [dict(img_id=image_id, ori_shape=shape, pred_instances=predicted)])
        found += [
            {"image_id": image_id, "category_id": kind, "score": score, "bbox": box}
            | {"segmentation": encoded | {"counts": encoded["counts"].decode()}}
            for kind, score, box, encoded in zip(
                kinds, scores.tolist(), boxes.tolist(), predicted["masks"], strict=True
            )
        ]
    theirs = metric.evaluate(size=len(truth.imgs))
    found = json.loads(json.dumps(found))  # plain values
    names = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
    for kind in ("bbox", "segm"):
        ours = vars(average_precision(truth, found, kind)).values()
        expected = [100 * theirs[f"coco/{kind}_{name}"] for name in names]
        assert expected[0] > 5
        assert list(ours) == pytest.approx(expected, abs=0.1)  # theirs has three digits
