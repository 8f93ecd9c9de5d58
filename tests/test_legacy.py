"""Files of others load: published-format networks are built here as the paper's code built them,
from torchvision's own networks with the module put beside a layer, and must give our logits."""

import functools
import math

import pytest
import timm
import torch
import torchvision
from torch import nn

import networks.legacy as legacy
from networks import create_model, list_attentions, list_models
from networks.attentions import SE
from networks.legacy import names_simam, published_keys, remap_legacy_keys

ARCHS = ("resnet18", "resnet50", "resnet50d", "resnext50_32x4d", "mobilenet_v2")
PUBLISHED = ("none", "simam", "se", "cbam")
E_LAMBDA = 0.1


class PublishedSimAM(nn.Module):
    def forward(self, x):
        n = x.shape[2] * x.shape[3] - 1
        d = (x - x.mean((2, 3), keepdim=True)) ** 2
        return x * torch.sigmoid(d / (4 * (d.sum((2, 3), keepdim=True) / n + E_LAMBDA)) + 0.5)


class PublishedSE(nn.Module):
    def __init__(self, channels):
        super().__init__()
        hidden = channels // 16
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return x * self.fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))[..., None, None]


class PublishedCBAM(nn.Module):
    def __init__(self, channels):
        super().__init__()
        hidden = channels // 16
        self.ChannelGate = nn.Module()
        self.ChannelGate.mlp = nn.Sequential(
            nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        self.SpatialGate = nn.Module()
        self.SpatialGate.spatial = nn.Module()
        self.SpatialGate.spatial.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.SpatialGate.spatial.bn = nn.BatchNorm2d(1)

    def forward(self, x):
        mlp, spatial = self.ChannelGate.mlp, self.SpatialGate.spatial
        mean = nn.functional.adaptive_avg_pool2d(x, 1)
        peak = nn.functional.adaptive_max_pool2d(x, 1)
        x = x * torch.sigmoid(mlp(mean) + mlp(peak))[..., None, None]
        pooled = torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], 1)
        return x * torch.sigmoid(spatial.bn(spatial.conv(pooled)))


MODULES = {"se": PublishedSE, "cbam": PublishedCBAM}


def deepen(net: nn.Module) -> None:
    """torchvision's ResNet-50 -> ResNet-50-D."""
    net.conv1 = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, 1, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, 1, 1, bias=False),
    )
    for layer in (net.layer2, net.layer3, net.layer4):
        conv, norm = layer[0].downsample
        conv.stride = (1, 1)
        pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
        layer[0].downsample = nn.Sequential(pool, conv, norm)


def publish_resnet(net: nn.Module, attention: str) -> None:
    blocks = [b for stage in (net.layer1, net.layer2, net.layer3, net.layer4) for b in stage]
    for block in blocks:
        if attention == "simam":
            block.conv2 = nn.Sequential(block.conv2, PublishedSimAM())
        elif attention in MODULES:
            last = "bn3" if hasattr(block, "bn3") else "bn2"
            norm = getattr(block, last)
            setattr(block, last, nn.Sequential(norm, MODULES[attention](norm.num_features)))


def publish_mobilenet(net: nn.Module, attention: str) -> None:
    net.classifier = nn.Sequential(net.classifier[1])
    for block in list(net.features)[1:-1]:
        if attention == "simam":
            depthwise = 0 if block is net.features[1] else 1
            conv, norm, act = block.conv[depthwise]
            block.conv[depthwise] = nn.Sequential(conv, PublishedSimAM(), norm, act)
        elif attention in MODULES:
            block.conv.append(MODULES[attention](block.conv[-1].num_features))


def published_network(arch: str, attention: str) -> nn.Module:
    """The network as it was published, without storage."""
    with torch.device("meta"):
        net = torchvision.models.get_model("resnet50" if arch == "resnet50d" else arch)
        if arch == "resnet50d":
            deepen(net)
        (publish_mobilenet if arch == "mobilenet_v2" else publish_resnet)(net, attention)
    return net


def our_network(arch: str, attention: str) -> nn.Module:
    with torch.device("meta"):
        return create_model(arch, attention, E_LAMBDA if attention == "simam" else None)


def real(net: nn.Module) -> nn.Module:
    """`net` in float64 with every tensor of its state random, so that no two can be mistaken."""
    net = net.double().to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for name, value in net.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if value.dim() > 1:
            value.copy_(noise * math.sqrt(2 / value[0].numel()))
        elif name.endswith(("running_var", "weight")):
            value.copy_(0.5 + noise.abs())
        else:
            value.copy_(noise)
    return net


def loaded(net: nn.Module, file: dict) -> nn.Module:
    net = net.double().to_empty(device="cpu").eval()
    net.load_state_dict(remap_legacy_keys(file))
    return net


def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double()


def with_leftovers(state_dict: dict) -> dict:
    """As thop leaves it: two buffers in every module that has weights, and in the network."""
    modules = {key.rpartition(".")[0] for key in state_dict} | {""}
    buffers = [f"{m}.{b}".lstrip(".") for m in modules for b in ("total_ops", "total_params")]
    return {**state_dict, **{key: torch.ones(1) for key in buffers}}


def prefixed(prefix: str, state_dict: dict) -> dict:
    return {prefix + key: value for key, value in state_dict.items()}


VARIANTS = {
    "bare": lambda s: s,
    "module.": lambda s: prefixed("module.", s),
    "leftovers": with_leftovers,
    "module. and leftovers": lambda s: prefixed("module.", with_leftovers(s)),
    "compiled before DDP": lambda s: prefixed("module._orig_mod.", s),
    "compiled after DDP": lambda s: prefixed("_orig_mod.module.", s),
    "backbone.": lambda s: prefixed("backbone.", s),
    "parts compiled": lambda s: {
        k.replace("layer2.0.", "layer2.0._orig_mod.").replace("conv.0", "conv._orig_mod.0"): v
        for k, v in s.items()
    },
}


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
    assert any(list(remap_legacy_keys(file)) != ours for file, ours in files_and_our_keys())
