"""What an eager step does: its operations, counted, and its copies from the CPU to the GPU."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def tensors_in(tree: Any) -> list[torch.Tensor]:
    return [each for each in tree_leaves(tree) if isinstance(each, torch.Tensor)]


class Operations(TorchDispatchMode):
    """Context that counts operations by name, and those that wait for a copy from the CPU.

    Under a `FakeTensorMode` that was entered before, tensors of a GPU that is not there count.
    """

    def __init__(self):
        super().__init__()
        self.counts, self.copies = Counter(), []

    def __torch_dispatch__(self, func: Callable, types, args=(), kwargs=None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.counts[name] += 1
        given, made = tensors_in((args, kwargs)), tensors_in(out)
        from_cpu = any(each.device.type == "cpu" and each.dim() for each in given)
        if from_cpu and any(each.device.type == "cuda" for each in made):
            self.copies.append(name)
        return out
