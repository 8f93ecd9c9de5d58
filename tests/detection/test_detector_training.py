"""The shipped Mask R-CNN, trained, resumed and tested with mmdetection's own tools."""

import json
from pathlib import Path

import detectors
import mmcv
import numpy as np
import pytest
import torch
from coco_mini import COCO, four_images
from mmdet.apis import DetInferencer

from scripts.convert_checkpoint import convert_detector

TOOLS = detectors.MIM / "tools"
FIRST, STEPS = 10, 42  # where the run ends at first, and in the end

# What a user changes: the data, its size, the length of the run. Fewer proposals save time; the
# sampler without end saves mmengine's pause of two seconds after every pass over four images.
CONFIG = """
_base_ = "{base}"
model = dict(
    backbone=dict(init_cfg=dict(checkpoint="{weights}")),
    train_cfg=dict(rpn_proposal=dict(max_per_img=100), rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(max_per_img=50)),
)
load = dict(type="LoadImageFromFile")
annotate = dict(type="LoadAnnotations", with_bbox=True, with_mask=True)
resize = dict(type="Resize", scale=(192, 120), keep_ratio=True)
pack = dict(
    type="PackDetInputs",
    meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
)
images = dict(data_root="{coco}/", ann_file="{images}", data_prefix=dict(img="train2017/"))
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    sampler=dict(type="InfiniteSampler"),
    dataset=dict(pipeline=[load, annotate, resize, pack], **images),
    **loader
)
val_dataloader = dict(dataset=dict(pipeline=[load, resize, annotate, pack], **images), **loader)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file="{images}")
test_evaluator = val_evaluator
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters={steps}, val_begin=1000)
param_scheduler = [dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=15)]
optim_wrapper = dict(clip_grad=dict(max_norm=10))
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval={steps})
)
log_processor = dict(by_epoch=False, window_size=1)
randomness = dict(seed=0)
"""


def normalised(path: Path) -> torch.Tensor:
    image = mmcv.imresize(mmcv.imread(path, channel_order="rgb"), (192, 120))
    image = mmcv.imnormalize(
        image, np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375]), to_rgb=False
    )
    return torch.from_numpy(image).permute(2, 0, 1).float()


def logged(folder: Path) -> list[dict]:
    """What the run in `folder` logged, one dict per line, the oldest first."""
    files = sorted(folder.glob("*/vis_data/scalars.json"))
    lines = [line for file in files for line in file.read_text().splitlines()]
    return [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.skipif(not COCO.is_dir(), reason=f"the images are not in {COCO}")
@pytest.mark.filterwarnings("ignore")  # of libraries older than this torch
def test_mask_rcnn_trains_resumes_evaluates_and_draws(tmp_path):
    images, weights, run = (tmp_path / name for name in ("four.json", "simam.pth", "run"))
    annotations = four_images()
    images.write_text(json.dumps(annotations))
    files = [COCO / "train2017" / image["file_name"] for image in annotations["images"]]
    torch.manual_seed(0)
    network = detectors.imagenet_network(50, torch.stack([normalised(file) for file in files]))
    torch.save(network.state_dict(), weights)

    def config(steps: int) -> Path:
        base = detectors.CONFIGS / "mask_rcnn/mask-rcnn_r50-simam_fpn_1x_coco.py"
        text = CONFIG.format(base=base, weights=weights, coco=COCO, images=images, steps=steps)
        file = tmp_path / f"steps{steps}.py"
        file.write_text(text)
        return file

    detectors.run_python(TOOLS / "train.py", config(FIRST), "--work-dir", run)
    before = [line["loss"] for line in logged(run) if "loss" in line]
    assert len(before) == FIRST

    detectors.run_python(TOOLS / "train.py", config(STEPS), "--work-dir", run, "--resume")
    lines = [line for line in logged(run) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    losses = [line["loss"] for line in lines]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    content = torch.load(run / f"iter_{STEPS}.pth", weights_only=True)
    history, _ = content["message_hub"]["log_scalars"]["train/loss"].data
    np.testing.assert_allclose(history[:FIRST], before, rtol=1e-3)

    checkpoint = run / f"iter_{STEPS}.pth"
    arguments = [config(STEPS), checkpoint, "--work-dir", tmp_path / "test"]
    detectors.run_python(TOOLS / "test.py", *arguments, "--show-dir", "drawn")
    (metrics,) = [json.loads(f.read_text()) for f in (tmp_path / "test").glob("*/*.json")]
    assert metrics["coco/bbox_mAP_50"] > 0.5
    assert metrics["coco/segm_mAP_50"] > 0.3

    published = tmp_path / "published.pth"
    convert_detector(str(checkpoint), str(published))
    assert published.stat().st_size < 0.6 * checkpoint.stat().st_size  # no momentum
    load = "import sys, torch; torch.load(sys.argv[1], weights_only=True)"  # and no log
    detectors.run_python("-c", load, published)
    inferencer = DetInferencer(weights=str(published), device="cpu", show_progress=False)
    (found,) = inferencer(str(files[0]))["predictions"]
    assert max(found["scores"]) > 0.3

    for file in files:
        (drawn,) = (tmp_path / "test").glob(f"*/drawn/{file.name}")
        plain, picture = mmcv.imread(file).astype(int), mmcv.imread(drawn).astype(int)
        height, width, _ = plain.shape
        assert picture.shape == (height, 2 * width, 3)  # annotations left, detections right
        # boxes and masks, not the few levels that saving as JPEG costs
        assert (abs(picture[:, width:] - plain) > 50).mean() > 0.02
