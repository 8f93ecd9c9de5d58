"""Modules put into networks of others: where, under which names, and equal to networks of ours."""

import copy
import pickle

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import fuse_conv_bn_eval

from networks import SimAM, create_model, insert
from networks.attentions import SE, fused


def vision(name: str) -> nn.Module:
    return torchvision.models.get_model(name)


def image_models(name: str) -> nn.Module:
    """timm's, whose blocks would begin as the identity, which shows no difference."""
    return timm.create_model(name, zero_init_last=False)


@pytest.fixture(autouse=True)
def _each_module_alone(monkeypatch):
    """The blocks' joint operator rounds otherwise than its modules one after another."""
    monkeypatch.setattr(fused, "FUSED", set())


@pytest.mark.parametrize(
    ("make", "name", "arch"),
    [
        (vision, "resnet18", "resnet18"),
        (vision, "resnet50", "resnet50"),
        (vision, "mobilenet_v2", "mobilenet_v2"),
        (image_models, "resnet18", "resnet18"),
        (image_models, "resnet50", "resnet50"),
    ],
)
def test_equals_the_network_made_with_it(make, name, arch):
    theirs = make(name).eval()
    keys = list(theirs.state_dict())
    plain = copy.deepcopy(theirs)
    places = insert(theirs, "simam", 0.1)
    assert list(theirs.state_dict()) == keys
    ours = create_model(arch, "simam", 0.1).eval()
    ours.load_state_dict(theirs.state_dict())
    assert len(places) == sum(isinstance(m, SimAM) for m in ours.modules())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(theirs(x), ours(x))
    assert not torch.equal(theirs(x), plain(x))
    theirs.load_state_dict(plain.state_dict())


PLACES = [
    (vision, "resnext50_32x4d", 16, "layer1.0.conv2"),
    (vision, "mobilenet_v3_small", 11, "features.1.block.0.0"),
    (vision, "efficientnet_b0", 16, "features.1.0.block.0.0"),
    (vision, "efficientnet_v2_s", 40, "features.1.0.block.0.0"),
    (vision, "convnext_tiny", 18, "features.1.0.block.0"),
    (vision, "regnet_y_400mf", 16, "trunk_output.block1.block1-0.f.b.0"),
    (timm.create_model, "resnext50_32x4d", 16, "layer1.0.conv2"),
    (timm.create_model, "mobilenetv2_100", 17, "blocks.0.0.conv_dw"),
    (timm.create_model, "mobilenetv3_small_100", 11, "blocks.0.0.conv_dw"),
    (timm.create_model, "efficientnet_b0", 16, "blocks.0.0.conv_dw"),
    (timm.create_model, "convnext_tiny", 18, "stages.0.blocks.0.conv_dw"),
    (timm.create_model, "regnety_004", 16, "s1.b1.conv2.conv"),
    (timm.create_model, "gernet_s", 14, "stages.0.0.conv2_kxk.conv"),
]


@pytest.mark.parametrize(("make", "name", "count", "first"), PLACES)
def test_finds_the_place_in_every_block(make, name, count, first):
    model = make(name).eval().to("meta")
    keys = list(model.state_dict())
    places = insert(model)
    assert (len(places), places[0]) == (count, first)
    assert list(model.state_dict()) == keys
    assert model(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 1000)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3)
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, x):
        return self.body(self.first(x))


def test_any_network_takes_it_where_it_is_told():
    model = Net().eval()
    plain = copy.deepcopy(model)
    assert insert(model, attention_param=0.1, after="body.*") == ["body.0"]
    x = torch.randn(2, 3, 12, 10)
    _, norm, act = plain.body
    assert torch.equal(model(x), act(norm(SimAM(0.1)(plain.body[0](plain.first(x))))))
    assert insert(model, "se", 4, after="first") == ["first"]
    assert isinstance(model.first.attention, SE)
    assert set(plain.state_dict()) < set(model.state_dict())


@pytest.mark.parametrize("conv", [nn.Conv1d, nn.Conv3d])
def test_signals_and_volumes(conv):
    x = torch.randn(2, 3, *[6] * (1 if conv is nn.Conv1d else 3))
    model = nn.Sequential(conv(3, 4, 3, padding=1))
    expected = SimAM()(model(x))
    assert insert(model, after="0") == ["0"]
    assert torch.equal(model(x), expected)


def test_one_image_without_a_batch_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert model(torch.randn(3, 8, 8)).shape == (4, 6, 6)
    insert(model, after="0")
    for used in (model, torch.fx.symbolic_trace(model)):
        with pytest.raises(AssertionError, match=r"needs a batch: give x\[None\]"):
            used(torch.randn(3, 8, 8))


def test_twice_is_refused_and_changes_nothing():
    model = vision("resnet18")
    insert(model, after="layer2.0.conv2")
    before = repr(model)
    for after in (None, "layer*.conv2"):
        with pytest.raises(ValueError, match=r"layer2.0.conv2 of ResNet has an attention module"):
            insert(model, after=after)
    assert repr(model) == before
    with pytest.raises(ValueError, match="has an attention module already"):
        insert(create_model("resnet18", "simam"))


def test_no_place_says_what_to_give():
    with pytest.raises(ValueError, match=r"no residual block .*give after=, a glob of first, body"):
        insert(Net())
    with torch.device("meta"):
        transformer = timm.create_model("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match="in VisionTransformer: give .* of patch_embed.proj$"):
        insert(transformer)
    with pytest.raises(ValueError, match="no convolution 'conv9' in Net: give after="):
        insert(Net(), after="conv9")
    with pytest.raises(ValueError, match="unknown attention 'sinam'"):
        insert(Net(), "sinam", after="first")
    with pytest.raises(ValueError, match="e_lambda must be positive"):
        insert(Net(), "simam", -1.0, after="first")


def test_no_norm_is_folded_into_the_convolution_before():
    """By torch, as by ultralytics and mmcv; its optimiser for fx leaves such pairs alone."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)).eval()
    insert(model, after="0")
    with pytest.raises(RuntimeError, match="no norm can be folded .*: SimAM is between"):
        fuse_conv_bn_eval(*model)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(fuse(model)(x), model(x))


def test_a_copy_has_attention_and_weights_of_its_own():
    model = Net()
    insert(model, after="body.0")
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert isinstance(twin.body[0], nn.Conv2d)
    assert isinstance(twin.body[0].attention, SimAM)
    assert twin.body[0].weight is not model.body[0].weight
    with pytest.raises(ValueError, match="already"):
        insert(twin, after="body.0")


def test_distributed_training():
    model = Net()
    insert(model, after="*")
    twin, x = copy.deepcopy(model), torch.randn(2, 3, 12, 10)
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        DistributedDataParallel(model)(x).square().mean().backward()
    finally:
        torch.distributed.destroy_process_group()
    twin(x).square().mean().backward()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
