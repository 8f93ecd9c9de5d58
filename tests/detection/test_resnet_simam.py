import copy
import pickle

import detectors
import pytest
import torch
from mmcv.cnn import fuse_conv_bn
from mmdet.registry import MODELS
from mmengine.runner.checkpoint import load_checkpoint
from torch import nn

from networks import create_model
from scripts.convert_checkpoint import convert

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries older than this torch

DEPTHS = [18, 34, 50, 101, 152]


def backbone(depth=18, checkpoint=None, name="ResNetSimAM", **options):
    if checkpoint is not None:
        options["init_cfg"] = dict(type="Pretrained", checkpoint=str(checkpoint))
    model = MODELS.build(dict(type=name, depth=depth, **options))
    model.init_weights()
    model.eval()  # mmdetection's returns nothing
    return model


def stages(network, x):
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    maps = []
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = layer(x)
        maps.append(x)
    return maps


def as_weights(state):
    return state


def as_published(state):
    """What the authors' script saves, with a FLOP counter's buffers left in."""
    published = {f"module.{k.replace('.conv2.', '.conv2.0.')}": v for k, v in state.items()}
    published["module.layer1.0.conv1.total_ops"] = torch.zeros(1)
    return {"epoch": 90, "best_acc": torch.tensor(71.3), "state_dict": published}


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randn(2, 3, 96, 64)


@pytest.mark.parametrize("file", [as_weights, as_published])
@pytest.mark.parametrize("depth", DEPTHS)
def test_features_are_those_of_the_imagenet_network(depth, file, images, tmp_path):
    network = detectors.imagenet_network(depth, images)
    torch.save(file(network.state_dict()), tmp_path / "weights.pth")
    model = backbone(depth, tmp_path / "weights.pth", name="ResNetAM")
    with torch.no_grad():
        ours, theirs = model(images), stages(network, images)
    assert [tuple(y.shape[2:]) for y in ours] == [(24, 16), (12, 8), (6, 4), (3, 2)]
    for y, reference in zip(ours, theirs, strict=True):
        assert (y - reference).abs().max() < 1e-5


@pytest.mark.parametrize("attention", ["coordinate", "sws"])
def test_other_modules_stand_where_the_imagenet_network_has_them(attention, images, tmp_path):
    network = create_model("resnet50", attention).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    model = backbone(50, tmp_path / "weights.pth", attention_type=attention)
    with torch.no_grad():
        for y, reference in zip(model(images), stages(network, images), strict=True):
            torch.testing.assert_close(y, reference, rtol=1e-4, atol=1e-4)
    if attention == "coordinate":
        torch.save(create_model("resnet50").state_dict(), tmp_path / "plain.pth")
        with pytest.raises(RuntimeError, match=r"missing \(layer1.0.attn_block.squeeze.0.weight"):
            backbone(50, tmp_path / "plain.pth", attention_type=attention)


def test_converted_weights_are_read(images, tmp_path):
    network = detectors.imagenet_network(18, images)
    torch.save(network.state_dict(), tmp_path / "ours.pth")
    convert(str(tmp_path / "ours.pth"), str(tmp_path / "weights.pth"), "mmdet", "simam")
    with torch.no_grad():
        features = backbone(18, tmp_path / "weights.pth")(images)[-1]
        assert (features - stages(network, images)[-1]).abs().max() < 1e-5


@pytest.mark.parametrize("depth", [18, 50])
def test_simam_is_all_that_differs_from_mmdetections_resnet(depth, images):
    plain, model = backbone(depth, name="ResNet", zero_init_residual=False), backbone(depth)
    without = backbone(depth, attention_type="none")
    assert list(model.state_dict()) == list(plain.state_dict())
    model.load_state_dict(plain.state_dict())
    without.load_state_dict(plain.state_dict())
    with torch.no_grad():
        reference = plain(images)[-1]
        torch.testing.assert_close(without(images)[-1], reference, rtol=0, atol=0)
        assert (model(images)[-1] - reference).abs().max() > 0.01


@pytest.mark.parametrize("depth", [18, 50])
def test_gradients_reach_every_parameter_that_is_not_frozen(depth, images):
    model = backbone(depth, frozen_stages=1, zero_init_residual=False)
    model.train()
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    sum(y.square().mean() for y in model(images)).backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith(("conv1.", "bn1.", "layer1."))
        assert parameter.requires_grad is not frozen, name
        assert frozen or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("depth", [18, 50])
def test_recomputed_blocks_give_the_same_gradients(depth, images):
    model = backbone(depth, zero_init_residual=False)
    again = backbone(depth, with_cp=True, zero_init_residual=False)
    again.load_state_dict(model.state_dict())
    for each in (model, again):
        each.train()
        sum(y.square().mean() for y in each(images)).backward()
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_deformable_convolutions_without_offsets_change_nothing(tmp_path):
    images = torch.randn(2, 3, 128, 128)
    network = detectors.imagenet_network(50, images)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    deformable = dict(dcn=dict(type="DCN"), stage_with_dcn=(False, True, True, True))
    model = backbone(50, tmp_path / "weights.pth", **deformable)
    assert model.layer4[0].conv2.conv_offset.weight.abs().sum() == 0
    with torch.no_grad():
        torch.testing.assert_close(
            model(images)[-1], stages(network, images)[-1], rtol=1e-3, atol=1e-3
        )


def test_other_arguments_of_mmdetections_resnet_work(images):
    plugins = [dict(cfg=dict(type="ContextBlock", ratio=1 / 16), position="after_conv3")]
    for options in (
        dict(depth=50, style="caffe", norm_cfg=dict(type="GN", num_groups=32)),
        dict(depth=50, plugins=plugins),
        dict(depth=18, deep_stem=True, avg_down=True),
    ):
        with torch.no_grad():
            assert all(y.isfinite().all() for y in backbone(**options)(images))
    maps = backbone(50, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=[2])(
        images
    )
    assert [tuple(y.shape) for y in maps] == [(2, 1024, 6, 4)]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_keep_the_attention(duplicate, images):
    model = backbone(18, zero_init_residual=False)
    with torch.no_grad():
        torch.testing.assert_close(duplicate(model)(images), model(images), rtol=0, atol=0)


def test_fusing_the_norms_is_refused_instead_of_computing_something_else(images):
    with pytest.raises(RuntimeError, match="do not fuse"):
        fuse_conv_bn(backbone(18))(images)


def without_a_norm(state):
    return {key: value for key, value in state.items() if key != "layer2.0.bn2.running_mean"}


@pytest.mark.parametrize(
    ("arch", "change", "message"),
    [
        ("resnet50", without_a_norm, r"1 missing \(layer2.0.bn2.running_mean\)$"),
        ("resnet50", lambda s: {f"model.{k}": v for k, v in s.items()}, r"265 missing \(conv1"),
        ("resnet101", as_weights, r"255 unexpected \(layer3.6.conv1.weight, .*, \.\.\.\)$"),
        ("resnet101", as_published, r"255 unexpected \(layer3.6"),
        ("resnext50_32x4d", as_weights, r"of another shape \(layer1.0.conv1.weight"),
    ],
)
def test_weights_that_do_not_fit_are_an_error(arch, change, message, tmp_path):
    torch.save(change(create_model(arch, "simam").state_dict()), tmp_path / "weights.pth")
    with pytest.raises(RuntimeError, match=f"the weights do not fit ResNetSimAM-50: .*{message}"):
        backbone(50, tmp_path / "weights.pth")


def test_a_stage_that_is_not_built_needs_no_weights(images, tmp_path):
    network = detectors.imagenet_network(50, images)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    three = dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=[2])
    with torch.no_grad():
        (features,) = backbone(50, tmp_path / "weights.pth", **three)(images)
        torch.testing.assert_close(features, stages(network, images)[2])


def test_a_part_of_a_detector_is_checked_too(tmp_path):
    detector = nn.ModuleDict(dict(backbone=backbone(18), neck=nn.Linear(2, 2)))
    torch.save(detector.state_dict(), tmp_path / "whole.pth")
    load_checkpoint(detector, str(tmp_path / "whole.pth"))
    torch.save(detector.neck.state_dict(prefix="neck."), tmp_path / "part.pth")
    with pytest.raises(RuntimeError, match="100 missing"):
        load_checkpoint(detector, str(tmp_path / "part.pth"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(attention_type="simm"), "unknown attention_type 'simm'; known: .*none, .*simam"),
        (dict(attention_type="se"), "SE stands after the last norm: mmdetection has room at depth"),
        (dict(attention_param=0), "attention_param .* must be positive, not 0"),
        (dict(attention_param=float("nan")), "attention_param .* must be positive, not nan"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        backbone(18, **options)
