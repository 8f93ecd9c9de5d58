"""What torchvision's detectors and DeepLab ask of a network, and the detectors around ours."""

import pytest
import torch
from torch import nn

from networks import create_model
from utils.detection.options import Detector, Recipe

torchvision = pytest.importorskip("torchvision", reason="mmdetection's environment has none")
detection = torchvision.models.detection
build_detector = pytest.importorskip("utils.detection.detectors").build_detector

THEIRS = {
    "faster_rcnn": detection.fasterrcnn_resnet50_fpn,
    "mask_rcnn": detection.maskrcnn_resnet50_fpn,
    "retinanet": detection.retinanet_resnet50_fpn,
    "fcos": detection.fcos_resnet50_fpn,
}


def built(kind: str, network: nn.Module, **options) -> nn.Module:
    return build_detector(Detector(detector=kind, min_size=64, max_size=96), network, 91, **options)


@pytest.mark.parametrize("kind", THEIRS)
def test_torchvisions_own_weights_load_strictly_and_find_the_same(kind):
    theirs = THEIRS[kind](weights=None, weights_backbone=None, min_size=64, max_size=96).eval()
    ours = built(kind, create_model("resnet50")).eval()
    ours.load_state_dict(theirs.state_dict())
    with_simam = built(kind, create_model("resnet50", "simam"))
    with_simam.load_state_dict(theirs.state_dict())
    images = [torch.rand(3, 60, 80)]
    for model in (theirs, ours):
        last = model.roi_heads if "rcnn" in kind else model
        last.score_thresh, last.detections_per_img = 0.0, 3  # untrained; each costs a mask
    with torch.no_grad():
        (found,), (expected,) = ours(images), theirs(images)
    assert len(found["boxes"])
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_frozen_norms_and_stages_are_torchvisions():
    """As behind pretrained weights."""
    theirs = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    extract = detection.backbone_utils._resnet_fpn_extractor
    norm = torchvision.ops.FrozenBatchNorm2d
    theirs.backbone = extract(torchvision.models.resnet50(norm_layer=norm), 3)
    network = create_model("resnet50", "se")
    statistics = network.bn1.running_mean.uniform_()
    ours = built("faster_rcnn", network, frozen_norms=True)
    own = {key: value for key, value in ours.state_dict().items() if ".attn_" not in key}
    assert own.keys() == theirs.state_dict().keys()
    assert torch.equal(ours.backbone.body.bn1.running_mean, statistics)
    learn = {name for name, each in ours.named_parameters() if each.requires_grad}
    assert {name for name in learn if ".attn_" not in name} == {
        name for name, each in theirs.named_parameters() if each.requires_grad
    }
    assert {name.split(".")[2] for name in learn if ".attn_" in name} == {
        "layer2",
        "layer3",
        "layer4",
    }


@pytest.mark.parametrize("kind", ["faster_rcnn", "retinanet"])
def test_mobilenets_pyramid_is_that_of_torchvisions_network(kind):
    network = create_model("mobilenet_v2")
    theirs = torchvision.models.mobilenet_v2().eval()
    theirs.load_state_dict(network.state_dict())
    ours = built(kind, network).eval()
    extract = detection.backbone_utils._mobilenet_extractor
    reference = extract(theirs, True, 5, [1, 2, 3, 5]).eval()
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        body, expected = ours.backbone.body(x), reference.body(x)
        levels = [tuple(each.shape[2:]) for each in ours.backbone(x).values()]
    assert len(body) == (4 if kind == "faster_rcnn" else 3)
    for one, other in zip(body.values(), list(expected.values())[-len(body) :], strict=True):
        torch.testing.assert_close(one, other)
    strides = [4, 8, 16, 32, 64] if kind == "faster_rcnn" else [8, 16, 32, 64, 128]
    assert levels == [(-(-64 // stride), -(-96 // stride)) for stride in strides]


@pytest.mark.parametrize("arch", ["resnet50", "resnext50_32x4d"])
@pytest.mark.parametrize("dilated", [(False, True, True), (True, True, True), (False, False, True)])
def test_dilated_it_computes_what_torchvisions_does(arch, dilated):
    network = create_model(arch)
    network.replace_stride_with_dilation(*dilated)
    theirs = torchvision.models.get_model(arch, replace_stride_with_dilation=dilated)
    theirs.load_state_dict(network.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), theirs.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50d"])
def test_other_blocks_are_not_dilated(arch):
    with pytest.raises(ValueError, match="not dilated"):
        create_model(arch).replace_stride_with_dilation(False, True, True)


def test_the_learning_rate_is_that_of_torchvisions_references():
    steps, recipe = 5, Recipe(batch_size=16, lr_steps=[2, 3], epochs=4)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.02)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 3], gamma=0.1)
    warmup = torch.optim.lr_scheduler.LinearLR(
        optimizer, 1 / 1000, total_iters=min(1000, steps - 1)
    )
    for epoch in range(4):
        for step in range(steps):
            expected = optimizer.param_groups[0]["lr"]
            assert recipe.lr_at(epoch, step, steps) == pytest.approx(expected), (epoch, step)
            optimizer.step()
            if epoch == 0:
                warmup.step()
        schedule.step()
