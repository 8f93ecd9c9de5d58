"""Checkpoints: their file formats, names and networks. Needs neither torchvision nor a GPU."""

from .checkpoint import Checkpoint, load_weights
from .formats import CheckpointError

__all__ = ["Checkpoint", "CheckpointError", "load_weights"]
