"""The processes of a run: devices, ranks, and what they exchange."""

import os
from typing import NamedTuple

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .errors import UsageError


class Dist(NamedTuple):
    """This process among all: `rank` of `world`, computing on `device`."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of every process's `tensor`, on every process; a copy, also for one."""
        tensor = tensor.clone()
        if self.world > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` on this process's device, with gradients averaged over the processes."""
        model = model.to(self.device)
        return DistributedDataParallel(model) if self.world > 1 else model


def choose_device(gpu: str | None) -> torch.device:
    """The device that `--gpu` names: "-1" is the CPU, None GPU 0 where there is one.

    Raises UsageError for what is no GPU number, and for a GPU that is not there.
    """
    present = torch.cuda.device_count()
    if gpu is None:
        return torch.device("cuda", 0) if present else torch.device("cpu")
    if gpu == "-1":
        return torch.device("cpu")
    if not gpu.isdecimal():
        raise UsageError(f"--gpu {gpu} is not a GPU number; give one such as 0, or -1 for the CPU")
    if int(gpu) >= present:
        have = (
            f"GPUs 0 to {present - 1}"
            if present > 1
            else "GPU 0 only"
            if present
            else "no CUDA GPU"
        )
        raise UsageError(f"--gpu {gpu}: this machine has {have}; --gpu -1 computes on the CPU")
    return torch.device("cuda", int(gpu))


def start(gpu: str | None) -> Dist:
    """Take this process's place: the only one, or the one that torchrun's environment says."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = choose_device(gpu)
    return Dist(rank, world, device)


def describe(device: torch.device) -> str:
    """The device in words, for a run's first line."""
    if device.type == "cuda":
        return f"cuda:{device.index} ({torch.cuda.get_device_name(device)})"
    return f"CPU ({torch.get_num_threads()} threads)"
