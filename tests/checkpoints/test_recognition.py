"""A network is recognised by its weights, and only where they fit."""

from dataclasses import asdict, replace

import pytest
import torch
from conftest import STATELESS

from networks import ATTENTIONS, create_model, list_attentions
from utils.checkpoints.recognition import identify, is_of
from utils.config import Network

SMALL = ("resnet18", "mobilenet_v2", "cifar_resnet20")


def weights(arch: str, attention: str = "none", **options) -> dict:
    with torch.device("meta"):
        return create_model(arch, attention, **options).state_dict()


@pytest.mark.parametrize(
    "arch", [*SMALL, "resnet50d", "cifar_preresnet20", "cifar_wideresnet28_10"]
)
def test_modules_without_weights_have_the_same_keys(arch):
    for attention in STATELESS:
        fits = [Network(arch=arch, attention=name, num_classes=10) for name in STATELESS]
        assert identify(weights(arch, attention, num_classes=10)) == fits


@pytest.mark.parametrize(
    ("arch", "attention"),
    [(arch, "se") for arch in SMALL]
    + [("cifar_resnet20", name) for name in sorted(ATTENTIONS.keys() - {"se", *STATELESS})],
)
def test_an_attention_with_weights_is_told_from_the_others(arch, attention):
    network = Network(arch=arch, attention=attention, num_classes=10)
    assert identify(weights(arch, attention, num_classes=10)) == [network]


def test_order_and_batch_counters_do_not_matter():
    given = weights("resnet18", "se")
    shuffled = {key: given[key] for key in sorted(given) if "num_batches_tracked" not in key}
    assert identify(shuffled) == [Network(arch="resnet18", attention="se")]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("conv1.weight"),
        lambda s: s.pop("fc.bias"),
        lambda s: s.update(extra=torch.zeros(1)),
        lambda s: s.update({"conv1.weight": torch.zeros(64, 3, 3, 3)}),
        lambda s: s.update({"fc.bias": torch.zeros(10)}),
        lambda s: s.update({"fc.bias": torch.zeros(())}),
        lambda s: s.clear(),
    ],
    ids=["missing", "no classifier", "extra", "shape", "classes disagree", "scalar", "empty"],
)
def test_nothing_fits_a_network_that_is_not_ours(change):
    given = weights("resnet18")
    change(given)
    assert identify(given) == []


def test_another_reduction_is_not_taken_for_the_default():
    assert identify(weights("resnet18", "se", attention_param=8)) == []


def test_a_named_network_is_checked_with_its_parameter():
    network = Network(arch="resnet18", attention="se", attention_param=8, num_classes=10)
    state = weights(**asdict(network))
    assert is_of(state, network)
    for change in (
        {"arch": "resnet34"},
        {"arch": "none such"},
        {"attention": "none", "attention_param": None},
        *({"attention_param": param} for param in (16, 0, -1, 0.5, 1e308, float("nan"))),
        *({"num_classes": count} for count in (11, 10**12, 10**30, 0, -1)),
    ):
        assert not is_of(state, replace(network, **change)), change


@pytest.mark.parametrize("attention", list_attentions())
def test_no_parameter_is_too_strange(attention):
    for param in (True, -3, 1e-400, 10**30, float("inf"), float("nan")):
        network = Network(arch="cifar_resnet20", attention=attention, attention_param=param)
        assert not is_of({}, network)
