"""The backbone: its features are our ImageNet networks', and mmdetection's tools work with it."""

import copy
import pickle
import re

import detectors
import pytest
import torch
from mmcv.cnn import fuse_conv_bn
from mmdet.registry import MODELS
from mmengine.runner.checkpoint import load_checkpoint
from torch import nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import prepare_fx
from torch.fx.experimental.optimization import fuse

from mmdetection.mmdet.models.backbones import resnet_simam
from networks import create_model
from scripts.bench.costs import kept_for_backward
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


@pytest.mark.parametrize(
    ("depth", "file"), [*((depth, as_weights) for depth in DEPTHS), (50, as_published)]
)
def test_features_are_those_of_the_imagenet_network(depth, file, images, tmp_path):
    network = detectors.imagenet_network(depth, images)
    torch.save(file(network.state_dict()), tmp_path / "weights.pth")
    model = backbone(depth, tmp_path / "weights.pth")
    with torch.no_grad():
        ours, theirs = model(images), stages(network, images)
    assert [tuple(y.shape[2:]) for y in ours] == [(24, 16), (12, 8), (6, 4), (3, 2)]
    for y, reference in zip(ours, theirs, strict=True):
        assert (y - reference).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("arch", "attention", "options"),
    [
        ("resnet18", "se", {}),
        ("resnet50", "se", {}),
        ("resnet50", "cbam", dict(attention_param=8)),
        ("resnet50", "eca", {}),
        ("resnext50_32x4d", "simam", dict(groups=32, width_per_group=4)),
    ],
)
def test_other_attentions_and_groups_are_the_imagenet_networks(
    arch, attention, options, images, tmp_path
):
    param = options.get("attention_param", 0.1 if attention == "simam" else None)
    network = detectors.with_statistics(create_model(arch, attention, param), images)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    depth = 18 if arch == "resnet18" else 50
    model = backbone(depth, tmp_path / "weights.pth", attention_type=attention, **options)
    with torch.no_grad():
        for y, reference in zip(model(images), stages(network, images), strict=True):
            assert (y - reference).abs().max() < 1e-5


def test_the_weights_of_an_attention_module_must_be_there(tmp_path):
    state = create_model("resnet18", "se").state_dict()
    del state["layer2.0.attn_block.fc.0.weight"]
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(RuntimeError, match=r"1 missing \(layer2.0.attn_block.fc.0.weight\)$"):
        backbone(18, tmp_path / "weights.pth", attention_type="se")


def test_the_published_name_has_no_attention_unless_told(images):
    simam = dict(attention_type="simam", attention_param=0.1)
    pairs = [
        (backbone(18, name="ResNetAM"), backbone(18, attention_type="none")),
        (backbone(18, name="ResNetAM", **simam), backbone(18, **simam)),
    ]
    with torch.no_grad():
        for published, ours in pairs:
            published.load_state_dict(ours.state_dict())
            torch.testing.assert_close(published(images)[-1], ours(images)[-1], rtol=0, atol=0)


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


@pytest.mark.parametrize(
    ("depth", "attention_type"), [(18, "simam"), (50, "simam"), (50, "none"), (18, "se")]
)
def test_fused_by_torch_fx_it_computes_the_same(depth, attention_type, images):
    model = detectors.with_statistics(backbone(depth, attention_type=attention_type), images)
    fused = fuse(model)
    assert sum(isinstance(each, nn.BatchNorm2d) for each in fused.modules()) < 20
    with torch.no_grad():
        for y, reference in zip(fused(images), model(images), strict=True):
            torch.testing.assert_close(y, reference, rtol=1e-3, atol=1e-3)


def test_fx_quantisation_keeps_simam_before_its_norm(images):
    prepared = prepare_fx(backbone(18), get_default_qconfig_mapping("x86"), images)
    called = [node.target for node in prepared.graph.nodes if node.op == "call_module"]
    assert "layer1.0.bn2" in called
    assert "layer1.0.bn1" not in called


def test_mmcvs_fusing_is_refused_with_simam_and_right_without(images):
    with pytest.raises(RuntimeError, match="do not fuse"):
        fuse_conv_bn(backbone(18))(images)
    model = detectors.with_statistics(backbone(18, attention_type="se"), images)
    with torch.no_grad():
        reference = model(images)[-1]
        torch.testing.assert_close(fuse_conv_bn(model)(images)[-1], reference, rtol=1e-3, atol=1e-3)


def without_a_norm(state):
    return {key: value for key, value in state.items() if key != "layer2.0.bn2.running_mean"}


@pytest.mark.parametrize(
    ("arch", "change", "message"),
    [
        ("resnet50", without_a_norm, r"1 missing \(layer2.0.bn2.running_mean\)$"),
        ("resnet50", lambda s: {f"model.{k}": v for k, v in s.items()}, r"265 missing \(conv1"),
        ("resnet101", as_weights, r"255 unexpected \(layer3.6.conv1.weight, .*, \.\.\.\)$"),
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
        (dict(attention_type="sa"), "unknown attention 'sa'"),
        (dict(attention_param=0), "e_lambda must be positive, not 0"),
        (dict(attention_param=float("nan")), "e_lambda must be positive, not nan"),
        (dict(attention_type="se", attention_param=0.5), "reduction must be a whole number"),
        (dict(groups=32), "groups 32: blocks of ResNet-18 have no groups"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        backbone(18, **options)


def test_the_memory_that_the_readme_names():
    """A sixteenth of the pixels, so a sixteenth of what two images of 800x1344 take."""
    model = backbone(50, frozen_stages=1)
    model.train()
    images, weights = torch.randn(2, 3, 200, 336), [*model.state_dict().values()]
    found = [kept_for_backward(model, images, weights)]
    for block in model.modules():
        if hasattr(block, "attn_conv"):
            block.attn_conv = resnet_simam.SimAM(0.1)
    found.insert(0, kept_for_backward(model, images, weights))
    said = [f"{16 * size / 2**30:.2f} GiB" for size in found]
    page = (detectors.ROOT / "mmdetection" / "README.md").read_text()
    assert re.findall(r"\d\.\d\d GiB", page) == said
