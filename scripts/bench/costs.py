"""What a network's attention costs on any machine: counted, not timed."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Operations(TorchDispatchMode):
    """Counts PyTorch's operations that run inside, as they run one after another.

    arithmetic: the multiply-adds of convolutions and matrix products, and of all else one for each
    element of the largest tensor that is read or written. moved: bytes of all that is read and
    written. Views of a tensor cost nothing.
    """

    def __init__(self):
        super().__init__()
        self.arithmetic = self.moved = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.is_view:
            return out
        found = tree_leaves((args, kwargs, out))
        tensors = [each for each in found if isinstance(each, torch.Tensor)]
        self.moved += sum(each.nbytes for each in tensors)
        products = flop_registry.get(func._overloadpacket)
        if products:
            self.arithmetic += products(*args, **(kwargs or {}), out_val=out) // 2
        else:
            self.arithmetic += max((each.numel() for each in tensors), default=0)
        return out


@torch.no_grad()
def count_own(model: nn.Module, kind: type[nn.Module], images: torch.Tensor) -> Operations:
    """What the modules of a `kind` cost a `model` in evaluation of `images`."""
    counted = Operations()

    def count(module, inputs):
        with counted:
            module.forward(*inputs)

    modules = [module for module in model.eval().modules() if isinstance(module, kind)]
    hooks = [module.register_forward_pre_hook(count) for module in modules]
    model(images)
    for hook in hooks:
        hook.remove()
    return counted


def kept_for_backward(
    forward: Callable, x: torch.Tensor, weights: Iterable[torch.Tensor] = ()
) -> int:
    """Bytes of the distinct memory that autograd keeps of `forward(x)`, beside the weights."""
    kept = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # an output itself would hold the graph that holds it, for ever

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward(x)
    own = {weight.untyped_storage().data_ptr() for weight in weights}
    return sum(size for place, size in kept.items() if place not in own)
