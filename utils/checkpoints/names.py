"""State-dict keys of others' files for our networks, and the way back to the published ones."""

import re
from collections.abc import Callable, Iterable

import torch

from ..errors import UsageError

StateDict = dict[str, torch.Tensor]
Rule = tuple[str, str | Callable[[re.Match], str]]

# what thop leaves in a network whose operations it counted, AveragedModel beside one, and MoCo
LEFTOVER = re.compile(
    r"(^|\.)(total_ops|total_params|n_averaged|queue|queue_ptr)$|^(module\.)?encoder_k\."
)

# torch.compile, of the network or of a part of it; DataParallel and DDP
WRAPPINGS = ((r"_orig_mod\.", ""), (r"^(module\.)+", ""))
# the first weight of a network, below what it is a part of: model., encoder., backbone.
STEM = re.compile(r"((?:[a-z_]+\.)*)(?:conv1(?:\.0)?|features\.0\.0)\.weight")

# in the published SimAM networks, SimAM makes a pair of the convolution before it (ResNet) or
# takes an index of its own before the depthwise norm (MobileNetV2)
SIMAM_RULES = (
    (r"^(layer\d\.\d+\.conv2)\.0\.", r"\1."),
    (r"^(features\.\d+\.conv\.[01])\.2\.", r"\1.1."),
)
# every rule is tried on every key, in this order; none matches one of our own keys
RULES = (
    (r"^head\.fc\.", "fc."),  # the classifier beside a detector's backbone
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
# the authors' networks for CIFAR, and timm's ResNet-D: a key that one of them alone has, and rules
# for those before `RULES`
FAMILIES = {
    "linear.weight": ((r"^linear\.", "fc."),),
    # timm counts a pool also where the stride is 1; ours has no entry for it there
    "layer1.0.downsample.2.weight": (
        (r"^layer1\.0\.downsample\.1\.", "layer1.0.downsample.0."),
        (r"^layer1\.0\.downsample\.2\.", "layer1.0.downsample.1."),
    ),
    "layer2.0.shortcut.1.weight": ((r"^(layer\d\.0)\.shortcut\.", r"\1.downsample."),),
    # pre-activation networks: SE and CBAM are a pair with the last convolution
    "bn.weight": (
        (r"^(layer\d\.0\.shortcut)\.0\.", r"\1."),
        (r"^(layer\d\.\d+)\.conv[23]\.1\.", r"\1.attn_block."),
        (r"^(layer\d\.\d+\.conv3)\.0\.", r"\1."),
    ),
    "block1.layer.0.conv1.weight": (
        (r"^block(\d)\.layer\.", r"layer\1."),
        (r"^(layer\d\.0)\.convShortcut\.", r"\1.shortcut."),
        (r"^(layer\d\.\d+)\.conv2\.1\.", r"\1.attn_block."),
        (r"^bn1\.", "bn."),
    ),
    "layers.0.conv1.weight": (
        (r"^conv1\.", "features.0.0."),
        (r"^bn1\.", "features.0.1."),
        (r"^conv2\.", "features.18.0."),
        (r"^bn2\.", "features.18.1."),
        (r"^fc\.", "classifier."),
        (r"^layers\.(\d+)\.", lambda found: f"features.{int(found[1]) + 1}."),
        (r"^(features\.\d+)\.bn3\.1\.", r"\1.attn_block."),
        (r"^(features\.\d+)\.bn3\.(0\.)?", r"\1.conv.3."),
        (r"^(features\.\d+)\.conv3\.", r"\1.conv.2."),
        (r"^(features\.\d+)\.conv2\.(0\.)?", r"\1.conv.1.0."),
        (r"^(features\.\d+)\.bn2\.", r"\1.conv.1.1."),
        (r"^(features\.\d+)\.conv1\.", r"\1.conv.0.0."),
        (r"^(features\.\d+)\.bn1\.", r"\1.conv.0.1."),
    ),
}


def remap_legacy_keys(state_dict: StateDict) -> StateDict:
    """A new dict with the same tensors under our keys.

    Knows the published SimAM, SE and CBAM networks for ImageNet and CIFAR, torchvision's, timm's
    ResNets, mmdetection's backbones, the prefixes of DataParallel, DDP and torch.compile, and any
    that the first convolution has. A key that nothing is known of stays as it is. Raises ValueError
    when two keys become the same.
    """
    bare = _bare_names(state_dict)
    rules = _rules_for(bare.values())
    renamed, origin = {}, {}
    for key, name in bare.items():
        name = _apply(rules, name)
        if name in renamed:
            raise ValueError(f"both {origin[name]} and {key} mean {name}")
        renamed[name], origin[name] = state_dict[key], key
    return renamed


def _bare_names(keys: Iterable[str]) -> dict[str, str]:
    """The keys of a network's weights, each with its name in the network alone."""
    names = {key: _apply(WRAPPINGS, key) for key in keys if not LEFTOVER.search(key)}
    stems = filter(None, map(STEM.fullmatch, names.values()))
    prefix = min((stem[1] for stem in stems), key=len, default="")
    return {key: name.removeprefix(prefix) for key, name in names.items()}


def _rules_for(keys: Iterable[str]) -> list[Rule]:
    known = set(keys)
    return [rule for key, own in FAMILIES.items() if key in known for rule in own] + [*RULES]


def published_keys(state_dict: StateDict, attention: str) -> StateDict:
    """The inverse of `remap_legacy_keys`: our keys -> those of the published networks.

    Raises UsageError for an attention that was not published: others than SimAM, SE and CBAM.
    """
    if attention not in ("none", "simam", "se", "cbam"):
        raise UsageError(f"there are no published names for networks with {attention!r}")
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
    """Whether these are keys of a published network with SimAM, which our own keys do not show.

    Where its place holds another module's weights, the pair is that one's.
    """
    bare = _bare_names(keys).values()
    rules = [rule for rule in _rules_for(bare) if rule not in SIMAM_RULES]
    named = [_apply(rules, key) for key in bare]
    patterns = [pattern for pattern, _ in SIMAM_RULES]
    shown = any(re.search(pattern, key) for key in named for pattern in patterns)
    shown |= any(re.match(r"layers\.\d+\.conv2\.0\.", key) for key in bare)
    return shown and not any(".attn_block." in key for key in named)


def _apply(rules: Iterable[Rule], key: str) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key
