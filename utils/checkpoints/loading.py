"""A checkpoint file as a network that is ready to use, with names for its classes."""

import re
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torchvision.models import ResNet18_Weights

from networks import create_model, default_param

from ..data.loader import Normalise
from ..data.preparation import Preparation, preparation_of
from ..errors import UsageError
from .checkpoint import load_state, recognise, state_dict_of
from .files import read_file


class Loaded(NamedTuple):
    """A network in evaluation mode, on the CPU, and what is known of it.

    network: as `create_model` takes it. classes: a name for each output. preparation: of images.
    assumed: of which entries of `network` the file at `path` says nothing, each with the reason for
    the value taken.
    """

    path: str
    model: nn.Module
    network: dict[str, Any]
    classes: list[str]
    preparation: Preparation
    assumed: dict[str, str]

    @property
    def label(self) -> str:
        """Network, attention and its setting, in a few words."""
        arch, attention, param = (
            self.network[name] for name in ("arch", "attention", "attention_param")
        )
        if attention == "none":
            return arch
        return f"{arch} + {attention}" + ("" if param is None else f" {param:g}")

    def tell_assumed(self) -> None:
        """A line on standard error, where something was assumed."""
        if self.assumed:
            print(f"note: {self.path}: {'; '.join(self.assumed.values())}", file=sys.stderr)

    def check_finite(self, outputs: torch.Tensor) -> None:
        """Raise UsageError where `outputs` of the model are NaN or infinite."""
        if not outputs.isfinite().all():
            raise UsageError(f"checkpoint {self.path}: the network's outputs are not finite")

    def normalise(self, device: torch.device) -> Normalise:
        """uint8 images, cut as `preparation` says -> the network's input on `device`."""
        return Normalise(device, torch.float32, self.preparation.mean, self.preparation.std)


def load_network(
    path: str, attention: str | None = None, param: float | None = None, size: int | None = None
) -> Loaded:
    """The network in the file `path`, recognised, see `recognise`.

    attention, param: the user's word for what the file does not say. size: of its images, in
    pixels a side; None for the training's. Raises UsageError for a file that can't be read or fits
    no network, and for words that don't fit it.
    """
    check_attention(attention)
    content = read_file(path)
    network, assumed = recognise(content, path, attention, param)
    try:
        model = create_model(**network)
    except ValueError as error:
        raise UsageError(f"checkpoint {path}: {error}") from None
    load_state(model, state_dict_of(content, path), path)
    classes = class_names(content, network["num_classes"])
    preparation = preparation_of(content, network["arch"]).at(size)
    return Loaded(path, model.eval(), network, classes, preparation, assumed)


def check_attention(name: str | None) -> None:
    """Raise UsageError, with the known names, where `name` is no attention module."""
    if name:
        try:
            default_param(name)
        except ValueError as error:
            raise UsageError(str(error)) from None


def class_names(content: Any, num_classes: int) -> list[str]:
    """Names for the outputs of the network in `content`, which `read_file` returned.

    The class folders that it was trained on, where the file says them; ImageNet's names for 1,000
    classes, also in place of WordNet's numbers; the index for what is left.
    """
    said = content.get("classes") if isinstance(content, Mapping) else None
    if not isinstance(said, list) or not all(isinstance(name, str) for name in said):
        said = []
    if num_classes == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in said):
        return ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    return said[:num_classes] + [str(index) for index in range(len(said), num_classes)]
