"""What a detector found: as COCO's results, and on the picture."""

import pytest
import torch

pytest.importorskip("torchvision", reason="mmdetection's environment has none")
evaluation = pytest.importorskip("utils.detection.evaluation")

FOUND = {
    "boxes": torch.tensor([[8.0, 8, 40, 30], [4, 4, 60, 50]]),
    "scores": torch.tensor([0.9, 0.4]),
    "labels": torch.tensor([3, 7]),
}


def test_boxes_are_corner_and_size():
    first, second = evaluation.results(5, FOUND)
    assert first == {
        "image_id": 5,
        "category_id": 3,
        "score": pytest.approx(0.9),
        "bbox": [8, 8, 32, 22],
    }
    assert second["bbox"] == [4, 4, 56, 46]


def test_what_is_likely_is_drawn():
    image = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    masks = torch.zeros(2, 1, 64, 64)
    masks[0, 0, 40:60, 10:20] = masks[1, 0, :4, :4] = 1
    changed = (evaluation.drawn(image, FOUND | {"masks": masks}, {3: "car"}) != image).any(0)
    assert changed[8, 10:40].all()  # the box
    assert changed[42:58, 12:18].all()  # the mask
    assert not changed[:4, :4].any()  # the other one, and its box
    assert not changed[:, 61:].any()
    assert torch.equal(evaluation.drawn(image, {**FOUND, "scores": torch.zeros(2)}, {}), image)
