"""torchvision's detectors with our networks: the command, trained on four images of COCO."""

import json
import shutil
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from detection.coco_mini import COCO, four_images
from PIL import Image
from runs import SignalAtForward, assert_equal
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.ops import MultiScaleRoIAlign

from networks import create_model
from scripts import train_detection
from utils.detection import detectors

pytest.importorskip("pycocotools", reason="pycocotools is not installed: pip install .[detection]")
pytestmark = [
    pytest.mark.skipif(not COCO.is_dir(), reason=f"the images are not in {COCO}"),
    # of pycocotools, which is older than this numpy
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

WIDTH = 160


def code_of(*words) -> int:
    try:
        return train_detection.main([str(word) for word in words])
    except SystemExit as stop:
        return stop.code


def shrunk(coco: dict, source: Path, target: Path) -> dict:
    """`coco` with its images made smaller, in `target`."""
    target.mkdir(parents=True)
    images, annotations = [], []
    for entry in coco["images"]:
        scale = WIDTH / entry["width"]
        size = (WIDTH, round(scale * entry["height"]))
        Image.open(source / entry["file_name"]).resize(size).save(target / entry["file_name"])
        images.append({**entry, "width": size[0], "height": size[1]})
        for each in coco["annotations"]:
            if each["image_id"] == entry["id"]:
                parts = [(scale * np.array(part)).tolist() for part in each["segmentation"]]
                box = [scale * value for value in each["bbox"]]
                area = each["area"] * scale**2
                annotations.append({**each, "segmentation": parts, "bbox": box, "area": area})
    return {**coco, "images": images, "annotations": annotations}


@pytest.fixture(scope="session")
def four(made_once) -> Path:
    """Four images of COCO, to train on, eight times each, and to validate on."""

    def make(folder: Path) -> None:
        val = shrunk(four_images(), COCO / "train2017", folder / "val2017")
        (folder / "train2017").symlink_to("val2017")
        train = {**val, "images": [], "annotations": []}
        for again in range(8):
            for kind in ("images", "annotations"):
                for each in val[kind]:
                    key = "id" if kind == "images" else "image_id"
                    new = {**each, key: each[key] + again * 10**7}
                    if kind == "annotations":
                        new["id"] = len(train[kind]) + 1
                    train[kind].append(new)
        (folder / "annotations").mkdir()
        for split, content in (("train", train), ("val", val)):
            path = folder / "annotations" / f"instances_{split}2017.json"
            path.write_text(json.dumps(content))

    return made_once("four", make)


@pytest.fixture(scope="session")
def weights(made_once, four) -> Path:
    """A ResNet-18 with SimAM, its norms holding the statistics of the four images."""

    def make(folder: Path) -> None:
        torch.manual_seed(0)
        network = create_model("resnet18", "simam", 0.1)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        mean, std = (np.array(each) for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        with torch.no_grad():
            for path in sorted((four / "val2017").iterdir()):
                image = (np.array(Image.open(path).convert("RGB")) / 255 - mean) / std
                network.train()(torch.tensor(image, dtype=torch.float32).permute(2, 0, 1)[None])
        torch.save(network.state_dict(), folder / "simam-resnet18.pth")

    return made_once("weights", make) / "simam-resnet18.pth"


@pytest.fixture
def few_proposals(monkeypatch):
    """Mask R-CNN that learns from, and looks at, fewer places, in a tenth of the time."""
    sizes = {"box_batch_size_per_image": 16, "box_detections_per_img": 20}
    sizes |= {"rpn_post_nms_top_n_train": 100, "rpn_post_nms_top_n_test": 50}
    sizes["mask_roi_pool"] = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    monkeypatch.setitem(detectors.DETECTORS, "mask_rcnn", partial(MaskRCNN, **sizes))


def words(four: Path, root: Path, *more) -> list:
    text = "-a resnet18 --attention-type simam --attention-param 0.1 --gpu=-1 -j 0 --seed 1 -p 1 "
    return [four, *text.split(), "--ckpt", root, *more]


def checkpoint(root: Path) -> dict:
    (path,) = root.glob("*/checkpoint.pth.tar")
    return torch.load(path, weights_only=True)


@pytest.mark.slow
def test_mask_rcnn_is_trained_evaluated_and_drawn(six, weights, few_proposals, tmp_path, capsys):
    mask_rcnn = "--detector mask_rcnn --min-size 64 --max-size 96 -b 2"
    learn = f"{mask_rcnn} --lr 0.004 --warmup-steps 2 --epochs 1 --trainable-layers 5 --weights"
    assert code_of(*words(six, tmp_path, *learn.split(), weights)) == 0
    last = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split()[1] for line in last] == ["boxes", "masks"]
    (metrics,) = (json.loads(each.read_text()) for each in tmp_path.glob("*/metrics.jsonl"))
    assert 0 < metrics["train_loss"] < 10

    (path,) = tmp_path.glob("*/checkpoint.pth.tar")
    shown = tmp_path / "shown"
    evaluated = words(six, tmp_path, *mask_rcnn.split(), "-e", "--resume", path)
    assert code_of(*evaluated, "--show-dir", shown) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == last
    for file in (six / "val2017").iterdir():
        both = (shown / file.name, file)
        drawn, plain = (Image.open(each).convert("RGB") for each in both)
        assert drawn.size == plain.size


FAST = "--detector faster_rcnn --min-size 32 --max-size 64 -b 2 --lr 0.01 --epochs 1"


@pytest.fixture(scope="session")
def six(made_once, four) -> Path:
    """Six images to train on: three steps."""

    def make(folder: Path) -> None:
        shutil.copytree(four, folder, dirs_exist_ok=True)
        path = folder / "annotations" / "instances_train2017.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "images": content["images"][:6]}))

    return made_once("six", make)


@pytest.mark.slow
def test_stopped_within_an_epoch_it_goes_on_bit_for_bit(six, few_proposals, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    mask_rcnn = FAST.replace("faster", "mask").split()
    assert code_of(*words(six, whole, *mask_rcnn)) == 0
    with SignalAtForward(MaskRCNN, 2, signal.SIGTERM):
        assert code_of(*words(six, parts, *mask_rcnn)) == 143
    assert "epoch 1, step 2 of 3" in capsys.readouterr().err
    assert code_of(*words(six, parts, *mask_rcnn)) == 2  # a new run would overwrite it
    assert code_of(*words(six, parts, *mask_rcnn, "--resume", "auto")) == 0
    assert_equal(checkpoint(parts), checkpoint(whole), "checkpoint")
    metrics = [next(each.glob("*/metrics.jsonl")).read_text() for each in (parts, whole)]
    one, other = (json.loads(each) | {"seconds": 0} for each in metrics)
    assert one == other
    again = words(six, parts, *mask_rcnn, "--resume", "auto")
    again[again.index("-b") + 1] = "3"
    capsys.readouterr()
    assert code_of(*again) == 2
    assert "was trained with batch_size 2, not 3" in capsys.readouterr().err


@pytest.mark.slow
def test_mask_rcnn_learns_four_images_by_heart(four, few_proposals, tmp_path):
    """From scratch, and stopped on the way."""
    text = "--detector mask_rcnn --min-size 64 --max-size 128 -b 2 --lr 0.005 --warmup-steps 15"
    learn = words(four, tmp_path, *text.split(), "--epochs", 4)
    with SignalAtForward(MaskRCNN, 30, signal.SIGTERM):
        assert code_of(*learn) == 143
    assert code_of(*learn, "--resume", "auto") == 0
    (lines,) = (each.read_text().splitlines() for each in tmp_path.glob("*/metrics.jsonl"))
    assert json.loads(lines[-1])["val_bbox_ap50"] > 50


@pytest.mark.slow
def test_two_processes_evaluate_every_image(six, tmp_path, capfd):
    """What one process finds, in its order."""
    assert code_of(*words(six, tmp_path, *FAST.split())) == 0
    (last,) = capfd.readouterr().out.splitlines()[-1:]
    path = next(tmp_path.glob("*/checkpoint.pth.tar"))
    both = words(six, tmp_path, *FAST.split(), "-e", "--resume", path)
    both[both.index("--gpu=-1")] = "--gpu=-1,-1"
    assert code_of(*both) == 0
    assert last in capfd.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("nowhere", "nowhere/annotations/instances_train2017.json does not exist"),
        ("DATA -a cifar_resnet20", "-a cifar_resnet20: a network for images of 32 pixels"),
        ("DATA --attention-type simm", "unknown attention 'simm'; known: simam"),
        ("DATA --detector ssd", "invalid choice: 'ssd'"),
        ("DATA -e", "-e needs the checkpoint to evaluate: --resume FILE"),
        ("DATA --resume none.pth", "none.pth does not exist"),
        ("DATA --weights none.pth", "none.pth does not exist"),
    ],
)
def test_mistakes_are_one_line(options, said, four, tmp_path, capsys):
    text = options.replace("DATA", str(four))
    assert code_of(*text.split(), "--ckpt", tmp_path / "ckpts", "--gpu=-1", "-j", 0) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert not (tmp_path / "ckpts").exists()


def test_an_image_that_cannot_be_read_is_named(six, tmp_path, capsys):
    data = tmp_path / "data"
    (data / "train2017").mkdir(parents=True)
    (data / "annotations").symlink_to(six / "annotations")
    assert code_of(*words(data, tmp_path / "ckpts", *FAST.split())) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"can't read image {data}/train2017/" in error
