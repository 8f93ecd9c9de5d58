"""What a log begins with: who made the run, when, where and with what; the network."""

import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from networks.attentions import how_computed

from ..config import Network
from ..errors import one_line
from ..processes.dist import Dist, devices_in_words
from .complexity import count_flops, count_parameters

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """How a run was begun, or gone on with.

    revision: git's of this checkout, "-dirty" where files are not those; None without git.
    cuda: that PyTorch was built with. changed: options that are not those before, by name: what
    they were, what they are.
    """

    command: str
    date: str
    host: str
    revision: str | None
    python: str
    torch: str
    cuda: str | None
    changed: Mapping[str, tuple[Any, Any]]

    @classmethod
    def now(cls, changed: Mapping[str, tuple[Any, Any]]) -> "Origin":
        """That of this process."""
        return cls(
            command=f"python {shlex.join(sys.argv)}",
            date=datetime.now().astimezone().isoformat(timespec="seconds"),
            host=socket.gethostname(),
            revision=_revision(),
            python=platform.python_version(),
            torch=torch.__version__,
            cuda=torch.version.cuda,
            changed=changed,
        )

    @property
    def lines(self) -> list[str]:
        """For the log."""
        return [
            one_line(f"command     {self.command}"),
            f"started     {self.date} on {self.host}, revision {self.revision}, Python "
            f"{self.python}, torch {self.torch}, CUDA {self.cuda}",
        ]

    @property
    def changes(self) -> list[str]:
        """A line for the log on the options that changed, if any did."""
        said = [
            f"--{name.replace('_', '-')} {new} (was {old})"
            for name, (old, new) in self.changed.items()
        ]
        return [one_line(f"changed     {', '.join(said)}")] if said else []


def _revision() -> str | None:
    describe = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12"]
    with suppress(OSError):
        done = subprocess.run(describe, capture_output=True, text=True)
        return done.stdout.strip() or None


def header(model: nn.Module, network: Network, dist: Dist, size: int) -> list[str]:
    """The lines that every run begins with; size: of its images, in pixels a side."""
    param = network.attention_param
    attention = network.attention + ("" if param is None else f" (parameter {param:g})")
    try:
        flops = f"{count_flops(model, size) / 1e9:.2f} G (multiply-adds at {size}x{size}, thop)"
    except ImportError as error:
        flops = f"not counted, without thop ({error})"
    simam = [f"SimAM       {how_computed(dist.device)}"]
    lone = " alone: every answer is right" if network.num_classes == 1 else ""
    return [
        f"device      {devices_in_words(dist)}",
        f"network     {network.arch}, attention {attention}, {network.num_classes} classes{lone}",
        *(simam if network.attention == "simam" else []),
        f"parameters  {count_parameters(model) / 1e6:.2f} M",
        f"FLOPs       {flops}",
    ]
