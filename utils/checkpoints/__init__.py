"""Checkpoints: files, whose network they hold, names of their weights."""

from .checkpoint import load_weights

__all__ = ["load_weights"]
