"""Attention behind the convolutions of any network, whose weights keep their names.

A convolution becomes one of a subclass of its own class, which calls the attention on what it has
computed: so its weights, hooks and name stay, tracers see both, and what folds a batch norm into a
convolution does not take it for a plain one, or is stopped.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from types import FunctionType

import torch
from torch import nn

from .attentions import ATTENTIONS, create_attention

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# residual blocks by the names of their classes, which torchvision, timm and what builds on them use
BLOCKS = {
    "BasicBlock",
    "Bottleneck",
    "BottleneckBlock",
    "CNBlock",
    "ConvNeXtBlock",
    "DepthwiseSeparableConv",
    "EdgeResidual",
    "FusedMBConv",
    "InvertedResidual",
    "MBConv",
    "MBConvBlock",
    "PreBasicBlock",
    "PreBottleneck",
    "ResBottleneckBlock",
    "UniversalInvertedResidual",
}
MODULES = tuple(spec.module for name, spec in ATTENTIONS.items() if name != "none")


class Attended:
    """What is mixed into a convolution's class: the attention module behind it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # one image (C, H, W), which the convolution takes, would be N sequences to the attention
        torch._assert(x.dim() == self.weight.dim(), "attention needs a batch: give x[None]")
        return self.attention(self.convolve(x))

    def __setattr__(self, name, value):
        if name == "bias" and self.bias is None and value is not None:
            between = type(self.attention).__name__
            raise RuntimeError(f"no norm can be folded into this convolution: {between} is between")
        super().__setattr__(name, value)

    def __reduce__(self):  # its class has no name that pickle could find
        return _blank, (self.plain,), self.__dict__


@cache
def _attended(plain: type[nn.Module]) -> type[nn.Module]:
    """The class `plain` with an attention behind its forward."""
    # torch.jit.script understands no super(), and calls a function by the name that it bears
    body = plain.forward
    convolve = FunctionType(
        body.__code__, body.__globals__, "convolve", body.__defaults__, body.__closure__
    )
    namespace = {"plain": plain, "convolve": convolve, "forward": Attended.forward}
    return type(f"Attended{plain.__name__}", (Attended, plain), namespace)


def _blank(plain: type[nn.Module]) -> nn.Module:
    """An object that pickle and deepcopy fill."""
    made = _attended(plain)
    return made.__new__(made)


def _convolutions(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, each in module.named_modules(prefix=prefix):
        if isinstance(each, CONVOLUTIONS):
            yield name, each


def _papers_places(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The last spatial convolution of each residual block's branch."""
    for prefix, block in model.named_modules():
        if BLOCKS.isdisjoint(each.__name__ for each in type(block).__mro__):
            continue
        spatial = [
            (name, conv)
            for name, conv in _convolutions(block, prefix)
            if max(conv.kernel_size) > 1 and not name.startswith(f"{prefix}.downsample")
        ]
        if spatial:
            yield spatial[-1]


def insert(
    model: nn.Module,
    attention: str = "simam",
    attention_param: float | None = None,
    after: str | None = None,
) -> list[str]:
    """Put a module behind convolutions of `model`, in place; returns their names.

    attention, attention_param: see `create_attention`. after: a glob of the convolutions' names,
    such as "layer4.*.conv2" or "*.dwconv"; None takes the paper's place in each residual block of
    torchvision's and timm's kind: behind its last spatial convolution (in inverted residuals the
    depthwise one), before that convolution's norm. The names of the network's own weights stay.
    A convolution alone also takes one image (C, H, W); with attention behind it, that is an
    AssertionError: give a batch.
    Raises ValueError, and changes nothing, where there is no such place, where one has an
    attention module already, and for an attention or a parameter that does not exist.
    """
    if after is None:
        places = dict(_papers_places(model))
    else:
        places = {name: c for name, c in _convolutions(model) if fnmatchcase(name, after)}
    if not places:
        where = "residual block that is known" if after is None else f"convolution {after!r}"
        names = [name for name, _ in _convolutions(model)]
        some = ", ".join(names[:3] + ["..."] * (len(names) > 3)) or "none"
        raise ValueError(f"no {where} in {type(model).__name__}: give after=, a glob of {some}")
    for name, conv in places.items():
        block = model.get_submodule(name.rpartition(".")[0]) if after is None else conv
        if any(isinstance(each, MODULES) for each in block.modules()):
            raise ValueError(f"{name} of {type(model).__name__} has an attention module already")
    made = [create_attention(attention, c.out_channels, attention_param) for c in places.values()]
    for conv, module in zip(places.values(), made, strict=True):
        weight = conv.weight
        conv.attention = module.to(weight.device, weight.dtype).train(conv.training)
        conv.__class__ = _attended(type(conv))
    return list(places)
