"""CUDA graphs of a CPU: PyTorch's operators are noted, and done again on the tensors of then."""

from collections.abc import Callable
from typing import Any

import torch
from operations import tensors_in
from torch.utils._python_dispatch import TorchDispatchMode

# Python reads or writes what is in a tensor, or its shape depends on that: on a GPU each waits
REFUSED = "_local_scalar_dense", "lift_fresh", "nonzero", "masked_select", "is_nonzero", "equal"


class Noted(TorchDispatchMode):
    """A graph, and the context that fills it; what can't be recorded is refused.

    As of a GPU's, when it is filled everything is as if nothing had been done.
    """

    def __init__(self):
        super().__init__()
        self.done, self.before = [], []

    def __torch_dispatch__(self, func: Callable, types, args=(), kwargs=None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in REFUSED, f"{name} can't be recorded"
        given = args, kwargs or {}
        self.before += [(each, each.clone()) for each in tensors_in(given)]
        out = func(*args, **(kwargs or {}))
        self.done.append((func, *given, tensors_in(out)))
        return out

    @torch.no_grad()
    def __exit__(self, *exception) -> None:
        super().__exit__(*exception)
        for tensor, value in reversed(self.before):
            if not torch.equal(tensor, value):
                tensor.copy_(value)
        self.before.clear()

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, results in self.done:
            for old, new in zip(results, tensors_in(func(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def new_graph(_arguments: tuple) -> tuple[Noted, Noted]:
    """For `utils.recording.new_graph`."""
    noted = Noted()
    return noted, noted
