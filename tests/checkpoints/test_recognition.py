"""A network is recognised by its weights, and only where they fit."""

import pytest
import torch
from conftest import STATELESS

from networks import create_model, list_attentions, list_models
from utils.checkpoints.recognition import identify, is_of


def weights(arch: str, attention: str, **options) -> dict:
    with torch.device("meta"):
        return create_model(arch, attention, **options).state_dict()


@pytest.mark.parametrize("arch", list_models())
def test_every_network_is_recognised(arch):
    for attention in list_attentions():
        # modules without weights can't be told from one another
        twins = sorted(STATELESS) if attention in STATELESS else [attention]
        fits = identify(weights(arch, attention, num_classes=10))
        assert sorted(fits) == [(arch, twin, 10) for twin in twins]


def test_order_and_batch_counters_do_not_matter():
    given = weights("resnet18", "se")
    shuffled = {key: given[key] for key in sorted(given) if "num_batches_tracked" not in key}
    assert identify(shuffled) == [("resnet18", "se", 1000)]


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
    given = weights("resnet18", "none")
    change(given)
    assert identify(given) == []


def test_another_reduction_is_not_taken_for_the_default():
    assert identify(weights("resnet18", "se", attention_param=8)) == []


def test_a_named_network_is_checked_with_its_parameter():
    network = {"arch": "resnet18", "attention": "se", "attention_param": 8, "num_classes": 10}
    state = weights(**network)
    assert is_of(state, network)
    for change in (
        {"arch": "resnet34"},
        {"arch": "none such"},
        {"attention": "none", "attention_param": None},
        {"attention_param": 16},
        {"num_classes": 11},
        {"num_classes": 10**12},
    ):
        assert not is_of(state, network | change)
