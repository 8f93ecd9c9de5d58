"""Networks with attention slots. Imports torch alone, so that a detector can use it as it is."""

from torch import nn

from .attentions import (
    ATTENTIONS,
    SimAM,
    create_attention,
    default_param,
    list_attentions,
    simam,
    simam_module,
)
from .attentions.names import unknown_name
from .cifar import CIFAR
from .copies import check
from .insert import insert
from .mobilenetv2 import MobileNetV2
from .resnet import RESNETS

__all__ = [
    "ATTENTIONS",
    "MODELS",
    "SimAM",
    "check",
    "create_attention",
    "create_model",
    "default_param",
    "insert",
    "list_attentions",
    "list_models",
    "simam",
    "simam_module",
]

MODELS = {**RESNETS, "mobilenet_v2": MobileNetV2, **CIFAR}


def list_models() -> list[str]:
    """Names that `create_model` takes, sorted."""
    return sorted(MODELS)


def create_model(
    arch: str,
    attention: str = "none",
    attention_param: float | None = None,
    num_classes: int = 1000,
) -> nn.Module:
    """The network `arch` with the module `attention` in every block, freshly initialised.

    attention_param: the module's one setting (SimAM: e_lambda, SE: reduction); None keeps the
    module's default. Raises ValueError for an unknown name, with the known ones, closest first,
    and for a parameter that the module refuses.
    """
    if arch not in MODELS:
        raise unknown_name("arch", arch, MODELS)
    return MODELS[arch](
        attention=attention, attention_param=attention_param, num_classes=num_classes
    )
