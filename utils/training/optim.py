"""Optimizers, and the moving average of the weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ..checkpoints.formats import CheckpointError, is_stored
from ..config import Optim
from .finetuning import backbone

# what each keeps of a weight
STATES = {
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
}


def make_optimizer(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """PyTorch's SGD or AdamW for `model`, which is in its place, updating all in one pass.

    momentum and nesterov are SGD's; AdamW keeps PyTorch's betas. Weights that need no gradient are
    left out. A group's "lr_scale", where it has one, is to be multiplied with its learning rate.
    """
    groups = _groups(model, optim)
    settings = {"lr": optim.lr, "weight_decay": optim.weight_decay, "fused": True}
    if optim.optimizer == "adamw":
        return torch.optim.AdamW(groups, **settings)
    settings |= {"momentum": optim.momentum, "nesterov": optim.nesterov}
    sgd = torch.optim.SGD(groups, **settings)
    _begin_momentum(sgd)
    return sgd


def _groups(model: nn.Module, optim: Optim) -> list[dict[str, Any]]:
    """The weights in groups that are updated alike, that of the first weight first.

    no_wd_norm_bias: biases and the weights of norms are all that has one dimension.
    """
    groups = {}
    slower = tuple(f"{name}." for name in backbone(model)) if optim.backbone_lr is not None else ()
    for name, each in model.named_parameters():
        if each.requires_grad:
            own = {"weight_decay": 0.0} if optim.no_wd_norm_bias and each.dim() <= 1 else {}
            if name.startswith(slower):
                own["lr_scale"] = optim.backbone_lr
            groups.setdefault(tuple(own.items()), {"params": [], **own})["params"].append(each)
    return list(groups.values())


def _begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give SGD's momentum the zeros that it otherwise has only after a first step.

    A fused first step that is skipped because of an overflow would leave whatever lay in memory.
    """
    for group in optimizer.param_groups:
        for each in group["params"] if group.get("momentum") else []:
            if optimizer.state[each].get("momentum_buffer") is None:
                optimizer.state[each]["momentum_buffer"] = torch.zeros_like(each)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Its state, with the learning rate as a plain number."""
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["lr"] = float(group["lr"])
    return state


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], path: str) -> None:
    """Load the state that `path` holds of such an optimizer; settings such as lr stay its own.

    Raises CheckpointError for the state of another kind, or of other groups of weights.
    """
    own = [dict(group) for group in optimizer.param_groups]
    saved, like = state["param_groups"], optimizer.state_dict()["param_groups"]
    if [(each.keys(), each["params"]) for each in saved] != [
        (each.keys(), each["params"]) for each in like
    ]:
        raise CheckpointError(
            f"checkpoint {path} was trained with another --optimizer, --no-wd-norm-bias, --freeze "
            "or --backbone-lr; go on with the same"
        )
    _check_state(optimizer, state, path)
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            # a fused update needs it to lie in memory as the weight does
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    _begin_momentum(optimizer)


def _check_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], path: str) -> None:
    """Raise CheckpointError for a value that a fused update would write beyond the end of."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    names = STATES[type(optimizer)]
    for index, values in state["state"].items():
        known = index in range(len(parameters)) and (not values or values.keys() == names)
        if not known or not all(_fits(*each, parameters[index]) for each in values.items()):
            raise CheckpointError(
                f"checkpoint {path} is damaged: its optimizer's state of weight {index} is no such "
                f"thing; to start a new training from its weights: --weights {path}"
            )


def _fits(name: str, value: Any, parameter: torch.Tensor) -> bool:
    if value is None:  # without momentum
        return name == "momentum_buffer"
    shape = () if name == "step" else parameter.shape
    return is_stored(value) and value.shape == shape and value.is_floating_point()


class MovingAverage(AveragedModel):
    """A copy of `model` whose weights and batch statistics follow it: decay * old + rest * new.

    The same numbers as PyTorch's class with `get_ema_multi_avg_fn`, but for integer buffers, which
    are the model's own; all in two calls, and the counter of updates stays on the CPU, where no
    update waits for it.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Follow `model`, of the same layout and on the same device; the first time copy it."""
        old, new = ([*each.parameters(), *each.buffers()] for each in (self.module, model))
        if self.n_averaged == 0:
            torch._foreach_copy_(old, new)
        else:
            pairs = list(zip(old, new, strict=True))
            floats = [pair for pair in pairs if pair[0].is_floating_point()]
            torch._foreach_lerp_(*zip(*floats, strict=True), 1 - self.decay)
            counters = [pair for pair in pairs if not pair[0].is_floating_point()]
            if counters:
                torch._foreach_copy_(*zip(*counters, strict=True))
        self.n_averaged += 1
