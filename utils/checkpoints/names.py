"""State-dict keys of others' files for our networks, and the way back to the published ones."""

import re
from collections.abc import Iterable

import torch

StateDict = dict[str, torch.Tensor]

# what thop leaves in a network whose operations it counted
LEFTOVERS = ("total_ops", "total_params")

# in the published SimAM networks, SimAM makes a pair of the convolution before it (ResNet) or
# takes an index of its own before the depthwise norm (MobileNetV2)
SIMAM_RULES = (
    (r"^(layer\d\.\d+\.conv2)\.0\.", r"\1."),
    (r"^(features\.\d+\.conv\.[01])\.2\.", r"\1.1."),
)
# every rule is tried on every key, in this order; none matches one of our own keys
RULES = (
    (r"_orig_mod\.", ""),  # torch.compile, of the network or of a part of it
    (r"^((module|backbone)\.)+", ""),  # DataParallel and DDP, a detector
    (r"^head\.fc\.", "fc."),  # the classifier beside such a backbone
    *SIMAM_RULES,
    # published SE and CBAM: a pair with the last norm, or one more entry of the sequence
    (r"^(layer\d\.\d+\.bn[23])\.0\.", r"\1."),
    (r"^(layer\d\.\d+)\.bn[23]\.1\.", r"\1.attn_block."),
    # (the last norm of our CIFAR MobileNetV2 is features.1.conv.3, too)
    (r"^features\.1\.conv\.3\.(fc|ChannelGate|SpatialGate)\.", r"features.1.attn_block.\1."),
    (r"^(features\.\d+)\.conv\.4\.", r"\1.attn_block."),
    (r"\.attn_block\.ChannelGate\.", ".attn_block.channel_gate."),
    (r"\.attn_block\.SpatialGate\.spatial\.", ".attn_block.spatial_gate."),
    (r"^classifier\.0\.", "classifier.1."),  # published MobileNetV2: no dropout
    (r"^(layer\d\.\d+)\.se\.", r"\1.attn_block."),  # timm's place for its `attn_layer`
)
# timm's ResNet-D counts a pool also where the stride is 1; ours has no entry for it there
IDLE_POOL_RULES = (
    (r"^layer1\.0\.downsample\.1\.", "layer1.0.downsample.0."),
    (r"^layer1\.0\.downsample\.2\.", "layer1.0.downsample.1."),
)


def remap_legacy_keys(state_dict: StateDict) -> StateDict:
    """A new dict with the same tensors under our keys.

    Knows the published SimAM, SE and CBAM networks, torchvision's, timm's ResNets, mmdetection's
    backbones, and the prefixes of DataParallel, DDP and torch.compile. A key that nothing is
    known of stays as it is. Raises ValueError when two keys become the same.
    """
    idle_pool = any(key.endswith("layer1.0.downsample.2.weight") for key in state_dict)
    rules = (*RULES, *IDLE_POOL_RULES) if idle_pool else RULES
    renamed, origin = {}, {}
    for key, value in state_dict.items():
        if key.rpartition(".")[2] in LEFTOVERS:
            continue
        name = _apply(rules, key)
        if name in renamed:
            raise ValueError(f"both {origin[name]} and {key} mean {name}")
        renamed[name], origin[name] = value, key
    return renamed


def published_keys(state_dict: StateDict, attention: str) -> StateDict:
    """The inverse of `remap_legacy_keys`: our keys -> those of the published networks.

    Raises ValueError for an attention that was not published: others than SimAM, SE and CBAM.
    """
    if attention not in ("none", "simam", "se", "cbam"):
        raise ValueError(f"there are no published names for networks with {attention!r}")
    last_norm = "bn3" if "layer1.0.bn3.weight" in state_dict else "bn2"
    paired_norm = (
        (rf"^(layer\d\.\d+\.{last_norm})\.", r"\1.0."),
        (r"^(layer\d\.\d+)\.attn_block\.", rf"\1.{last_norm}.1."),
        (r"^features\.1\.attn_block\.", "features.1.conv.3."),
        (r"^(features\.\d+)\.attn_block\.", r"\1.conv.4."),
        (r"\.channel_gate\.", ".ChannelGate."),
        (r"\.spatial_gate\.", ".SpatialGate.spatial."),
    )
    paired_convolution = (
        (r"^(layer\d\.\d+\.conv2)\.", r"\1.0."),
        (r"^(features\.1\.conv\.0|features\.\d+\.conv\.1)\.1\.", r"\1.2."),
    )
    by_attention = {"simam": paired_convolution, "se": paired_norm, "cbam": paired_norm}
    rules = (*by_attention.get(attention, ()), (r"^classifier\.1\.", "classifier.0."))
    return {_apply(rules, key): value for key, value in state_dict.items()}


def names_simam(keys: Iterable[str]) -> bool:
    """Whether these are keys of a published network with SimAM, which our own keys do not show."""
    rules = [rule for rule in RULES if rule not in SIMAM_RULES]
    bare = [_apply(rules, key) for key in keys]
    return any(re.search(pattern, key) for key in bare for pattern, _ in SIMAM_RULES)


def _apply(rules: Iterable[tuple[str, str]], key: str) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key
