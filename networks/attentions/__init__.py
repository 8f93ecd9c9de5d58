"""The attention modules by name. A new one is a file beside this one and a row in `ATTENTIONS`."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from .cbam import CBAM
from .coordinate import CoordinateAttention
from .eca import ECA
from .ela import ELA
from .fused import FUSED, how_computed, simam_norm_act
from .gc import GC
from .multiscale import MultiScaleAttention
from .names import unknown_name
from .pfaam import PfAAM
from .se import SE
from .shuffle import ShuffleAttention
from .simam import SimAM, simam, simam_module
from .srm import SRM
from .sws import SWS
from .triplet import TripletAttention

__all__ = [
    "ATTENTIONS",
    "Attention",
    "CBAM",
    "CoordinateAttention",
    "ECA",
    "ELA",
    "FUSED",
    "GC",
    "MultiScaleAttention",
    "PfAAM",
    "SE",
    "SRM",
    "SWS",
    "ShuffleAttention",
    "SimAM",
    "Spec",
    "TripletAttention",
    "create_attention",
    "default_param",
    "how_computed",
    "list_attentions",
    "simam",
    "simam_module",
    "simam_norm_act",
]


# what a block calls to fill a slot: `create_attention` with everything but (channels, slot=) given
Attention = Callable[..., nn.Module]


class Spec(NamedTuple):
    """How a module enters a block.

    module: the class; its first argument is the number of channels, the others are given by name,
    and it takes `device` and `dtype` as PyTorch's own layers do, so that it also serves as timm's
    `attn_layer`.
    param: the argument that `attention_param` sets; None where there is none.
    slot: "conv" (between the block's 3x3 convolution and that convolution's norm) or
    "block" (after the branch's last norm).
    """

    module: type[nn.Module]
    param: str | None
    slot: str


ATTENTIONS = {
    "none": Spec(nn.Identity, param=None, slot="conv"),
    "simam": Spec(SimAM, param="e_lambda", slot="conv"),
    "se": Spec(SE, param="reduction", slot="block"),
    "cbam": Spec(CBAM, param="reduction", slot="block"),
    "eca": Spec(ECA, param="kernel_size", slot="block"),
    "srm": Spec(SRM, param=None, slot="block"),
    "gc": Spec(GC, param="reduction", slot="block"),
    "coordinate": Spec(CoordinateAttention, param="reduction", slot="block"),
    "triplet": Spec(TripletAttention, param=None, slot="block"),
    # EMA in its paper, as the moving average of the weights is called here
    "multiscale": Spec(MultiScaleAttention, param="factor", slot="block"),
    "ela": Spec(ELA, param="kernel_size", slot="block"),
    "shuffle": Spec(ShuffleAttention, param="groups", slot="block"),
    "sws": Spec(SWS, param="e_lambda", slot="conv"),
    "pfaam": Spec(PfAAM, param=None, slot="block"),
}


def list_attentions() -> list[str]:
    """Names that `create_attention` and `create_model` take, sorted."""
    return sorted(ATTENTIONS)


def _spec(name: str) -> Spec:
    if name not in ATTENTIONS:
        raise unknown_name("attention", name, ATTENTIONS)
    return ATTENTIONS[name]


def default_param(name: str) -> float | None:
    """The module's own default of the argument that `attention_param` sets; None without one."""
    spec = _spec(name)
    return spec.param and inspect.signature(spec.module).parameters[spec.param].default


def create_attention(
    name: str, channels: int, param: float | None = None, slot: str | None = None
) -> nn.Module:
    """The module `name` for maps of `channels` channels.

    param: the module's one setting (SimAM: e_lambda, SE: reduction); None keeps its default.
    slot: where the caller wants to put it; `nn.Identity` if the module belongs elsewhere.
    Raises ValueError for an unknown name, and for a param that the module does not take.
    """
    spec = _spec(name)
    if param is not None and spec.param is None:
        raise ValueError(f"attention {name!r} takes no attention parameter, but got {param:g}")
    if slot not in (None, spec.slot):
        return nn.Identity()
    return spec.module(channels, **({} if param is None else {spec.param: param}))
