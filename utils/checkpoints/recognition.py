"""Recognise a network by the keys and shapes of its weights."""

import functools
from collections.abc import Mapping
from dataclasses import asdict

import torch

from networks import ATTENTIONS, create_model, list_models

from ..config import Network

Shapes = dict[str, tuple[int, ...]]


def identify(state_dict: dict[str, torch.Tensor]) -> list[tuple[str, str, int]]:
    """Every (arch, attention, num_classes) whose network has just these keys and shapes.

    state_dict: under our keys (see `remap_legacy_keys`). Modules are tried with their default
    parameter. One without weights leaves no trace, so where "none" fits, "simam" does too. Batch
    counters may be missing, as in files older than PyTorch 0.4.1.
    """
    given = _without_counters(state_dict)
    trunk = {key: shape for key, shape in given.items() if ".attn_" not in key}
    fits = []
    for arch in list_models():
        num_classes = _num_classes(arch, given)
        if num_classes and trunk == _shapes(arch, "none", num_classes):
            fits += [
                (arch, attention, num_classes)
                for attention in ATTENTIONS
                if given == _shapes(arch, attention, num_classes)
            ]
    return fits


def is_of(state_dict: dict[str, torch.Tensor], network: Network) -> bool:
    """Whether there is such a network, with just these keys and shapes.

    It is not made for the answer, so a file may ask for one of any size.
    """
    try:
        with torch.device("meta"):
            expected = create_model(**asdict(network)).state_dict()
    except Exception:  # where a file asks for classes or a parameter that no layer takes
        return False
    return _without_counters(state_dict) == _without_counters(expected)


@functools.cache
def _blank(arch: str, attention: str) -> Shapes:
    """Keys and shapes of a network with one class."""
    with torch.device("meta"):
        return _without_counters(create_model(arch, attention, num_classes=1).state_dict())


def _without_counters(state_dict: Mapping[str, torch.Tensor]) -> Shapes:
    return {
        key: tuple(value.shape)
        for key, value in state_dict.items()
        if not key.endswith("num_batches_tracked")
    }


def _classifier(arch: str) -> str:
    """Prefix of the classifier's keys: it is the last layer of every network."""
    return next(reversed(_blank(arch, "none"))).removesuffix("bias")


def _num_classes(arch: str, shapes: Shapes) -> int | None:
    bias = shapes.get(f"{_classifier(arch)}bias")
    return bias[0] if bias else None


def _shapes(arch: str, attention: str, num_classes: int) -> Shapes:
    head = _classifier(arch)
    return {
        key: (num_classes, *shape[1:]) if key.startswith(head) else shape
        for key, shape in _blank(arch, attention).items()
    }
