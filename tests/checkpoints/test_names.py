"""Files of others load: published-format networks (see published.py) must give our logits."""

import functools

import pytest
import timm
import torch
from published import (
    ARCHS,
    PUBLISHED,
    VARIANTS,
    images,
    our_network,
    prefixed,
    published_network,
    real,
    with_leftovers,
)
from torch import nn

import utils.checkpoints.names as legacy
from networks import list_attentions, list_models
from networks.attentions import SE
from utils.checkpoints.names import names_simam, published_keys, remap_legacy_keys


def loaded(net: nn.Module, file: dict) -> nn.Module:
    net = net.double().to_empty(device="cpu").eval()
    net.load_state_dict(remap_legacy_keys(file))
    return net


@pytest.mark.parametrize("attention", PUBLISHED)
@pytest.mark.parametrize("arch", ARCHS)
def test_published_file_gives_the_logits_of_its_network(arch, attention):
    theirs = real(published_network(arch, attention))
    ours = loaded(our_network(arch, attention), theirs.state_dict())
    with torch.no_grad():
        expected, logits = theirs(images()), ours(images())
    assert expected.std() > 1e-3
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9 * expected.abs().max())


@pytest.mark.parametrize("attention", PUBLISHED)
@pytest.mark.parametrize("arch", ARCHS)
def test_our_weights_in_a_published_file_give_identical_logits(arch, attention):
    source = real(our_network(arch, attention))
    # both networks register their layers in the same order: position renames without any rule
    keys = published_network(arch, attention).state_dict()
    file = dict(zip(keys, source.state_dict().values(), strict=True))
    target = loaded(our_network(arch, attention), prefixed("module.", with_leftovers(file)))
    with torch.no_grad():
        assert torch.equal(target(images()), source(images()))


@pytest.mark.parametrize("attention", PUBLISHED)
@pytest.mark.parametrize("arch", ARCHS)
def test_every_wrapping_of_a_published_file_means_the_same(arch, attention):
    theirs = published_network(arch, attention).state_dict()
    ours = our_network(arch, attention).state_dict()
    for variant in VARIANTS.values():
        renamed = remap_legacy_keys(variant(theirs))
        assert list(renamed) == list(ours)
        # registration order again, and each tensor is the file's own
        assert all(a is b for a, b in zip(renamed.values(), theirs.values(), strict=True))


@pytest.mark.parametrize("attention", PUBLISHED)
@pytest.mark.parametrize("arch", ARCHS)
def test_published_keys_are_those_of_the_published_network(arch, attention):
    theirs = published_network(arch, attention).state_dict()
    ours = our_network(arch, attention).state_dict()
    named = published_keys(ours, attention)
    assert {k: v.shape for k, v in named.items()} == {k: v.shape for k, v in theirs.items()}
    back = remap_legacy_keys(named)
    assert list(back) == list(ours)
    assert all(a is b for a, b in zip(back.values(), ours.values(), strict=True))


def test_only_published_attentions_have_published_names():
    with pytest.raises(ValueError, match="no published names for networks with 'eca'"):
        published_keys(our_network("resnet18", "eca").state_dict(), "eca")


@pytest.mark.parametrize("arch", list_models())
def test_our_own_keys_stay_as_they_are(arch):
    for attention in list_attentions():
        state_dict = our_network(arch, attention).state_dict()
        assert list(remap_legacy_keys(state_dict)) == list(state_dict)
        assert not names_simam(state_dict)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2"])
def test_simam_shows_in_published_keys_only(arch, variant):
    found = {a: names_simam(variant(published_network(arch, a).state_dict())) for a in PUBLISHED}
    assert found == {"none": False, "simam": True, "se": False, "cbam": False}


def test_two_names_for_one_tensor_are_an_error():
    with pytest.raises(ValueError, match="both fc.bias and module.fc.bias mean fc.bias"):
        remap_legacy_keys({"fc.bias": torch.zeros(1), "module.fc.bias": torch.ones(1)})


def test_files_without_batch_counters_load():
    """As PyTorch wrote them before 0.4.1, torchvision's oldest among them."""
    theirs = real(published_network("resnet18", "simam"))
    file = {k: v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}
    ours = loaded(our_network("resnet18", "simam"), file)
    with torch.no_grad():
        torch.testing.assert_close(ours(images()), theirs(images()))


def timm_network(arch: str, **options) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(arch, **options)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50d", "resnext50_32x4d"])
def test_timm_network_gives_the_same_logits(arch):
    theirs = real(timm_network(arch))
    ours = loaded(our_network(arch, "none"), theirs.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(images()), theirs(images()))


def test_timm_network_with_our_se_gives_the_same_logits():
    theirs = real(timm_network("resnet18", block_args={"attn_layer": SE}))
    ours = loaded(our_network("resnet18", "se"), theirs.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(images()), theirs(images()))


def test_classifier_beside_a_backbone():
    ours = our_network("resnet18", "none").state_dict()
    split = {f"{'head' if k.startswith('fc.') else 'backbone'}.{k}": v for k, v in ours.items()}
    assert list(remap_legacy_keys(split)) == list(ours)


@functools.cache
def files_and_our_keys() -> list[tuple[dict, list[str]]]:
    """Keys of files, of every kind tested above, and what they are to become."""
    pairs = [
        (variant(published_network(arch, attention).state_dict()), our_network(arch, attention))
        for arch in ("resnet18", "mobilenet_v2")
        for attention in PUBLISHED
        for variant in VARIANTS.values()
    ]
    timm_files = [
        (timm_network("resnet50d").state_dict(), our_network("resnet50d", "none")),
        (
            timm_network("resnet18", block_args={"attn_layer": SE}).state_dict(),
            our_network("resnet18", "se"),
        ),
    ]
    keys = [(file, list(net.state_dict())) for file, net in pairs + timm_files]
    return [*keys, ({"head.fc.weight": None}, ["fc.weight"])]


def test_every_kind_of_file_gets_our_keys():
    assert all(list(remap_legacy_keys(file)) == ours for file, ours in files_and_our_keys())


@pytest.mark.parametrize(
    ("table", "index"),
    [
        (table, i)
        for table in ("RULES", "IDLE_POOL_RULES")
        for i in range(len(getattr(legacy, table)))
    ],
)
def test_no_rule_is_idle(monkeypatch, table, index):
    """Without any single rule, some file of the test above does not get our keys."""
    kept = [rule for i, rule in enumerate(getattr(legacy, table)) if i != index]
    monkeypatch.setattr(legacy, table, kept)

    def wrong(file, ours):
        try:
            return list(remap_legacy_keys(file)) != ours
        except ValueError:  # two keys became one
            return True

    assert any(wrong(file, ours) for file, ours in files_and_our_keys())
