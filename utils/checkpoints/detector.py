"""Whole detectors: what mmdetection 2 saved, in the form that mmdetection 3 loads."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

from networks import create_model

from .checkpoint import Checkpoint, load_state
from .names import LEFTOVER

PREFIX = "backbone."
# the depths of mmdetection's ResNet
ARCHS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


def detector_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """What mmdetection 3 loads, {"state_dict", "meta"}, for the detector in `checkpoint`.

    The backbone's published names become mmdetection's; every other part keeps its names, which
    mmdetection 2 and 3 share. Of the rest of the file only the names of the classes stay, where
    they are such. Raises CheckpointError without a backbone, and for one that lacks a key of our
    ResNets or has another.
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
    classes = _class_names(checkpoint.content)
    return {
        "meta": {"dataset_meta": {"classes": classes}} if classes else {},
        "state_dict": {PREFIX + key: value for key, value in backbone.weights.items()}
        | {key: value for key, value in state.items() if not key.startswith(PREFIX)},
    }


def _class_names(content: Any) -> tuple[str, ...]:
    """As mmdetection 2 or 3 keeps them in a file, which may hold anything in their place."""
    meta = _entry(content, "meta")
    for names in (_entry(meta, "CLASSES"), _entry(_entry(meta, "dataset_meta"), "classes")):
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            return tuple(names)
    return ()


def _entry(mapping: Any, key: str) -> Any:
    return mapping.get(key) if isinstance(mapping, Mapping) else None


def _check(backbone: Checkpoint) -> None:
    """Load it into the ResNet whose keys are closest, as strictly as any network of ours."""
    arch = min(ARCHS, key=lambda arch: len(_keys(arch) ^ backbone.weights.keys()))
    trunk = create_model(arch)
    trunk.fc = nn.Identity()
    load_state(trunk, backbone.weights, f"{backbone.path} (its backbone, as {arch})")


@cache
def _keys(arch: str) -> frozenset[str]:
    with torch.device("meta"):
        return frozenset(create_model(arch).state_dict())
