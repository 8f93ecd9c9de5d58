"""Recognise a network by the keys and shapes of its weights."""

from dataclasses import asdict
from functools import cache

import torch

from networks import ATTENTIONS, create_model, list_models

from ..config import Network
from .names import StateDict

Shapes = dict[str, tuple[int, ...]]


def identify(state_dict: StateDict) -> list[Network]:
    """Every network that has just these keys and shapes.

    state_dict: under our keys (see `remap_legacy_keys`). Modules are tried with their default
    parameter. One without weights leaves no trace, so where "none" fits, "simam" does too. Batch
    counters may be missing, as in files older than PyTorch 0.4.1.
    """
    head = classifier_of(state_dict)
    num_classes = len(state_dict[f"{head}weight"]) if head else 0
    if not num_classes:
        return []

    def expected(arch: str, attention: str) -> Shapes:
        return {
            key: (num_classes, *shape[1:]) if key.startswith(head) else shape
            for key, shape in with_one_class(arch, attention).items()
        }

    given = shapes_of(state_dict)
    trunk = {key: shape for key, shape in given.items() if ".attn_" not in key}
    return [
        Network(arch=arch, attention=attention, num_classes=num_classes)
        for arch in list_models()
        if trunk == expected(arch, "none")
        for attention in ATTENTIONS
        if given == expected(arch, attention)
    ]


def is_of(state_dict: StateDict, network: Network) -> bool:
    """Whether there is such a network, with just these keys and shapes.

    It is not made for the answer, so a file may ask for one of any size.
    """
    try:
        with torch.device("meta"):
            expected = create_model(**asdict(network)).state_dict()
    except Exception:  # where a file asks for classes or a parameter that no layer takes
        return False
    return shapes_of(state_dict) == shapes_of(expected)


def classifier_of(state_dict: StateDict) -> str | None:
    """The prefix of the classifier's keys, with its dot: the one linear layer in no attention."""
    for key, value in state_dict.items():
        if value.dim() == 2 and key.endswith(".weight") and ".attn_" not in key:
            return key.removesuffix("weight")
    return None


@cache
def with_one_class(arch: str, attention: str) -> Shapes:
    """Keys and shapes of such a network with a single class."""
    with torch.device("meta"):
        return shapes_of(create_model(arch, attention, num_classes=1).state_dict())


def shapes_of(state_dict: StateDict) -> Shapes:
    """Its keys and shapes, without the batch counters."""
    return {
        key: tuple(value.shape)
        for key, value in state_dict.items()
        if not key.endswith("num_batches_tracked")
    }
