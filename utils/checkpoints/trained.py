"""A checkpoint's network, ready to be used."""

import sys
from argparse import Namespace
from dataclasses import dataclass

import torch
from torch import nn

from ..config import Network, default_of
from ..data.normalise import Normalise
from ..data.preparation import Preparation
from .checkpoint import Checkpoint


@dataclass
class Trained:
    """A network in evaluation mode, on the CPU, and what is known of it.

    classes: a name for each output. preparation: of its images. assumed: of which entries of
    `network` the file says nothing, each with the reason for the value taken.
    """

    checkpoint: Checkpoint
    model: nn.Module
    network: Network
    classes: list[str]
    preparation: Preparation
    assumed: dict[str, str]

    @property
    def path(self) -> str:
        return self.checkpoint.path

    def normalise(self, device: torch.device) -> Normalise:
        """uint8 images, cut as `preparation` says -> the network's input on `device`."""
        return Normalise(device, self.preparation)


def load_trained(
    path: str, attention: str | None = None, param: float | None = None, size: int | None = None
) -> Trained:
    """The network in the file `path`, recognised, see `Checkpoint.recognise`.

    attention, param: the user's word for what the file does not say. size: of its images, in
    pixels a side; None for the training's. Raises UsageError for a file that can't be read or fits
    no network, and for words that don't fit it.
    """
    if attention:
        default_of(attention)  # a wrong name is told before the file is read
    checkpoint = Checkpoint(path)
    network, assumed = checkpoint.recognise(attention, param)
    model = checkpoint.build(network)
    return Trained(
        checkpoint,
        model.eval(),
        network,
        checkpoint.class_names(network.num_classes),
        checkpoint.preparation(network.arch).at(size),
        assumed,
    )


def load_and_tell(path: str, args: Namespace) -> Trained:
    """`load_trained` with what `args` say of it; a line on standard error says what was assumed."""
    trained = load_trained(path, args.attention_type, args.attention_param, args.image_size)
    if trained.assumed:
        print(f"note: {path}: {'; '.join(trained.assumed.values())}", file=sys.stderr)
    return trained
