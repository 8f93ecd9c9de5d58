"""Whole detectors: what mmdetection saved, as the little that mmdetection 3 loads."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from networks import ATTENTIONS

from ..config import Network
from .checkpoint import Checkpoint, load_state
from .names import LEFTOVER
from .recognition import shapes_of, with_one_class

PREFIX = "backbone."
# what mmdetection's ResNet makes, and its ResNeXt
ARCHS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
ARCHS += ("resnext50_32x4d", "resnext101_32x8d")


def detector_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """What mmdetection 3 loads, {"state_dict", "meta"}, for the detector in `checkpoint`, of
    mmdetection 2 or 3.

    The backbone's published names become mmdetection 3's; every other part keeps its names, which 2
    and 3 share. Of the rest of the file only the names of the classes stay and the config of
    mmdetection 3, where they are such. Raises CheckpointError without a backbone, and for one that
    lacks a key of our ResNets or has another.
    """
    state = {
        key.removeprefix("module."): value
        for key, value in checkpoint.raw_weights.items()
        if not LEFTOVER.search(key)
    }
    published = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
    if not published:
        raise checkpoint.refusal(
            f"holds no detector: no key begins with {PREFIX}; "
            "a network alone is converted with --to mmdet"
        )
    backbone = Checkpoint(checkpoint.path, published)
    _check(backbone)
    meta = _entry(checkpoint.content, "meta")
    classes, config = _class_names(meta), _entry(meta, "cfg")
    return {
        "meta": ({"dataset_meta": {"classes": classes}} if classes else {})
        | ({"cfg": config} if isinstance(config, str) else {}),
        "state_dict": {PREFIX + key: value for key, value in backbone.weights.items()}
        | {key: value for key, value in state.items() if not key.startswith(PREFIX)},
    }


def _class_names(meta: Any) -> tuple[str, ...]:
    """As mmdetection 2 or 3 keeps them in a file, which may hold anything in their place."""
    for names in (_entry(meta, "CLASSES"), _entry(_entry(meta, "dataset_meta"), "classes")):
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            return tuple(names)
    return ()


def _entry(mapping: Any, key: str) -> Any:
    return mapping.get(key) if isinstance(mapping, Mapping) else None


def _check(backbone: Checkpoint) -> None:
    """Load it into the network whose keys and shapes are closest, as strictly as any of ours."""
    given = set(shapes_of(backbone.weights).items())
    bare = {(key, shape) for key, shape in given if ".attn_" not in key}
    arch = min(ARCHS, key=lambda arch: len(_trunk(arch, "none") ^ bare))
    attention = min(ATTENTIONS, key=lambda name: len(_trunk(arch, name) ^ given))
    network = Network(arch=arch, attention=attention)
    model = network.build()
    model.fc = nn.Identity()
    load_state(model, backbone.weights, f"{backbone.path} (its backbone, as {network.label})")


def _trunk(arch: str, attention: str) -> set:
    """Keys and shapes of all but the classifier."""
    shapes = with_one_class(arch, attention)
    return {(key, shape) for key, shape in shapes.items() if not key.startswith("fc.")}
