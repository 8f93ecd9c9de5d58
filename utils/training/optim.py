"""Optimizers, and the moving average of the weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..checkpoints.files import CheckpointError


def make_optimizer(
    model: nn.Module,
    name: str = "sgd",
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    nesterov: bool = False,
    decay_all: bool = True,
) -> torch.optim.Optimizer:
    """PyTorch's "sgd" or "adamw" for `model`, which is in its place, updating all in one pass.

    momentum, nesterov: of sgd; adamw keeps PyTorch's betas. decay_all: False leaves biases and
    the weights of norms, all that has one dimension, without weight decay.
    """
    groups = [{"params": list(model.parameters())}]
    if not decay_all:
        flat = [each for each in model.parameters() if each.dim() <= 1]
        others = [each for each in model.parameters() if each.dim() > 1]
        groups = [{"params": others}, {"params": flat, "weight_decay": 0.0}]
    settings = {"lr": lr, "weight_decay": weight_decay, "fused": True}
    if name == "adamw":
        return torch.optim.AdamW(groups, **settings)
    sgd = torch.optim.SGD(groups, momentum=momentum, nesterov=nesterov, **settings)
    _begin_momentum(sgd)
    return sgd


def _begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give SGD's momentum the zeros that it otherwise has only after a first step.

    A fused first step that is skipped because of an overflow would leave whatever lay in memory.
    """
    for group in optimizer.param_groups:
        for each in group["params"] if group.get("momentum") else []:
            if optimizer.state[each].get("momentum_buffer") is None:
                optimizer.state[each]["momentum_buffer"] = torch.zeros_like(each)


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], path: str) -> None:
    """Load the state that `path` holds of such an optimizer; settings such as lr stay its own.

    Raises CheckpointError for the state of another kind, or of other groups of weights.
    """
    own = [dict(group) for group in optimizer.param_groups]
    saved = state["param_groups"]
    if [(len(g["params"]), *sorted(g)) for g in saved] != [
        (len(g["params"]), *sorted(g)) for g in own
    ]:
        raise CheckpointError(
            f"checkpoint {path} was trained with another --optimizer or --no-wd-norm-bias; "
            "go on with the same"
        )
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            # a fused update needs it to lie in memory as the weight does
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    _begin_momentum(optimizer)


class MovingAverage(AveragedModel):
    """A copy of `model` whose weights and batch statistics follow it: decay * old + rest * new.

    The same numbers as PyTorch's class with `get_ema_multi_avg_fn`, whose every update copies its
    counter to the device and waits for that copy; here the counter stays on the CPU.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Follow `model`, of the same layout and on the same device; the first time copy it."""
        old, new = ([*each.parameters(), *each.buffers()] for each in (self.module, model))
        if self.n_averaged == 0:
            torch._foreach_copy_(old, new)
        else:
            for dtype in {tensor.dtype for tensor in old}:
                pairs = [pair for pair in zip(old, new, strict=True) if pair[0].dtype == dtype]
                self.multi_avg_fn(*map(list, zip(*pairs, strict=True)), self.n_averaged)
        self.n_averaged += 1
