"""Networks as they were published, written from the description of the released weights:
torchvision's own networks with a module put beside a layer. Nothing here knows our keys."""

import math

import torch
import torchvision
from torch import nn

from networks import create_model

ARCHS = ("resnet18", "resnet50d", "mobilenet_v2")
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
