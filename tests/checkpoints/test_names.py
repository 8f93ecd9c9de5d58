"""Files of others load: published-format networks (see published.py) must give our logits."""

import functools
import json

import pytest
import timm
import torch
from conftest import ROOT
from published import ARCHS, PUBLISHED, VARIANTS, images, our_network, published_network, real
from torch import nn

from networks import create_model, list_attentions
from networks.attentions import SE
from utils.checkpoints.names import names_simam, published_keys, remap_legacy_keys
from utils.checkpoints.trained import load_trained
from utils.config import Network
from utils.errors import UsageError

EVERY = [(arch, attention) for arch in ARCHS for attention in PUBLISHED]
OURS = (*ARCHS, "cifar_resnet20", "cifar_preresnet20", "cifar_mobilenet_v2")


@functools.cache
def states(arch: str, attention: str) -> tuple[dict, dict]:
    """A published network's state and ours, whose layers are registered in the same order."""
    return tuple(make(arch, attention).state_dict() for make in (published_network, our_network))


def assert_logits(theirs: nn.Module, ours: nn.Module) -> None:
    """Assert that `ours` computes what `theirs` does, with their weights under our names."""
    theirs = real(theirs)
    ours = ours.double().to_empty(device="cpu").eval()
    ours.load_state_dict(remap_legacy_keys(theirs.state_dict()))
    with torch.no_grad():
        expected, logits = theirs(images()), ours(images())
    assert expected.std() > 1e-3
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9 * expected.abs().max())


@pytest.mark.parametrize(("arch", "attention"), EVERY)
def test_a_published_file_gives_the_logits_of_its_network(arch, attention):
    assert_logits(published_network(arch, attention), our_network(arch, attention))


@pytest.mark.parametrize(("arch", "attention"), EVERY)
def test_every_wrapping_of_a_published_file_means_the_same(arch, attention):
    theirs, ours = states(arch, attention)
    for variant in VARIANTS.values():
        renamed = remap_legacy_keys(variant(theirs))
        assert list(renamed) == list(ours)
        assert all(a is b for a, b in zip(renamed.values(), theirs.values(), strict=True))
        assert names_simam(variant(theirs)) == (attention == "simam")


@pytest.mark.parametrize(("arch", "attention"), EVERY)
def test_published_keys_are_those_of_the_published_network(arch, attention):
    theirs, ours = states(arch, attention)
    named = published_keys(ours, attention)
    assert [(k, v.shape) for k, v in named.items()] == [(k, v.shape) for k, v in theirs.items()]


def test_only_published_attentions_have_published_names():
    with pytest.raises(UsageError, match="no published names for networks with 'eca'"):
        published_keys({}, "eca")


@pytest.mark.parametrize("arch", OURS)
def test_our_own_keys_stay_as_they_are(arch):
    for attention in list_attentions():
        state = our_network(arch, attention).state_dict()
        assert list(remap_legacy_keys(state)) == list(state)
        assert not names_simam(state)


@pytest.mark.parametrize(("arch", "attention"), [("resnet50d", "none"), ("resnet18", "se")])
def test_timms_networks_give_the_same_logits(arch, attention):
    options = {"block_args": {"attn_layer": SE}} if attention == "se" else {}
    with torch.device("meta"):
        theirs = timm.create_model(arch, **options)
    assert_logits(theirs, our_network(arch, attention))


def test_a_classifier_beside_a_backbone_comes_to_it():
    _, ours = states("resnet18", "none")
    split = {f"{'head' if k.startswith('fc.') else 'backbone'}.{k}": v for k, v in ours.items()}
    assert list(remap_legacy_keys(split)) == list(ours)


# for a key that shows the network: what its other keys become
CIFAR = {
    "linear.weight": {  # ResNet, and what the others have in common with it
        "linear.bias": "fc.bias",
        "layer1.0.conv2.0.weight": "layer1.0.conv2.weight",
        "layer1.0.bn2.0.bias": "layer1.0.bn2.bias",
        "layer1.0.bn2.1.fc.0.weight": "layer1.0.attn_block.fc.0.weight",
        "layer1.0.bn3.1.SpatialGate.spatial.bn.bias": "layer1.0.attn_block.spatial_gate.bn.bias",
    },
    "layer2.0.shortcut.1.weight": {"layer2.0.shortcut.0.weight": "layer2.0.downsample.0.weight"},
    "bn.weight": {  # PreResNet
        "layer2.0.shortcut.0.weight": "layer2.0.shortcut.weight",
        "layer1.0.conv2.0.weight": "layer1.0.conv2.weight",
        "layer1.0.conv2.1.fc.0.weight": "layer1.0.attn_block.fc.0.weight",
        "layer1.0.conv3.0.weight": "layer1.0.conv3.weight",
        "layer1.0.conv3.1.fc.0.weight": "layer1.0.attn_block.fc.0.weight",
    },
    "block1.layer.0.conv1.weight": {  # WideResNet
        "block2.layer.3.bn1.bias": "layer2.3.bn1.bias",
        "block1.layer.0.convShortcut.weight": "layer1.0.shortcut.weight",
        "block1.layer.0.conv2.1.fc.2.weight": "layer1.0.attn_block.fc.2.weight",
        "bn1.bias": "bn.bias",
        "fc.bias": "fc.bias",
    },
    "layers.0.conv1.weight": {  # MobileNetV2
        "conv1.weight": "features.0.0.weight",
        "bn2.bias": "features.18.1.bias",
        "layers.16.conv3.weight": "features.17.conv.2.weight",
        "layers.0.bn1.bias": "features.1.conv.0.1.bias",
        "layers.0.conv2.0.weight": "features.1.conv.1.0.weight",
        "layers.0.bn3.0.bias": "features.1.conv.3.bias",
        "layers.0.bn3.1.fc.0.weight": "features.1.attn_block.fc.0.weight",
        "fc.bias": "classifier.bias",
    },
}


@pytest.mark.parametrize("shown", CIFAR)
def test_the_authors_cifar_networks_have_names_of_their_own(shown):
    for theirs, ours in CIFAR[shown].items():
        for prefix in ("", "module."):
            found = remap_legacy_keys({f"{prefix}{shown}": None, f"{prefix}{theirs}": None})
            assert ours in found


RELEASED = ROOT.parent / "shared" / "data" / "published-cifar100"
needs_released = pytest.mark.skipif(not RELEASED.exists(), reason=f"needs {RELEASED}")
DEPTHS = {"wideresnet28x10": "wideresnet28_10", "mobilenetv2": "mobilenet_v2"}


@needs_released
def test_every_key_of_the_authors_cifar_networks_has_its_place():
    for name, shapes in json.loads((RELEASED / "keys.json").read_text()).items():
        arch, attention = name.split("-")
        with torch.device("meta"):
            theirs = {key: torch.empty(shape) for key, shape in shapes.items()}
            (classes,) = theirs["fc.bias" if "wide" in arch else "linear.bias"].shape
            network = create_model(f"cifar_{DEPTHS.get(arch, arch)}", attention, None, classes)
        renamed, ours = remap_legacy_keys(theirs), network.state_dict()
        assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in ours.items()}
        assert names_simam(theirs) == (attention == "simam"), name


@needs_released
def test_a_released_checkpoint_is_ready_to_use():
    trained = load_trained(str(RELEASED / "model_best_in_100_epochs.pth.tar"))
    assert trained.network == Network(arch="cifar_resnet20", attention="simam", num_classes=100)
    assert trained.assumed == {"attention_param": "lambda 0.0001 as published"}
