"""Initialisation shared by the networks."""

from torch import nn


def init_weights(model: nn.Module) -> None:
    """As the published code: convolutions kaiming-normal (fan-out), norms 1 and 0, no other."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
