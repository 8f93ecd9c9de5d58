"""Initialisation shared by the networks."""

from torch import nn


def init_weights(model: nn.Module) -> None:
    """As the published code: convolutions kaiming-normal (fan-out), norms 1 and 0, no other."""
    if next(model.parameters()).is_meta:
        return  # PyTorch would take seconds to draw nothing
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def zero_init_residual(model: nn.Module) -> int:
    """Let every residual branch that ends in a norm begin at zero (Goyal et al., 2017, 5.1).

    Returns how many there are: blocks whose `last_norm` is the name of that norm.
    """
    blocks = [module for module in model.modules() if getattr(module, "last_norm", None)]
    for block in blocks:
        nn.init.zeros_(block.get_submodule(block.last_norm).weight)
    return len(blocks)
