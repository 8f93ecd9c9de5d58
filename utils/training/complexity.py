"""Parameters and FLOPs of a network."""

import copy

import torch
from torch import nn


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _count_batch_norm(module: nn.BatchNorm2d, inputs: tuple[torch.Tensor], _) -> None:
    module.total_ops += 2 * inputs[0].numel()


def count_flops(model: nn.Module, image_size: int = 224) -> int:
    """Multiply-adds for one image of `image_size` x `image_size`, as the paper counted them.

    thop's count with the rule it had in 2020, two operations per batch-norm element (today's
    has four); attention modules without layers of their own count nothing. Works on a copy,
    because thop leaves buffers behind; the copy, and the image, are on the CPU. Raises ImportError
    without thop.
    """
    import thop  # not at the top: a training goes without it

    model = copy.deepcopy(model).float().cpu()
    image = torch.zeros(1, 3, image_size, image_size)
    rules = {nn.BatchNorm2d: _count_batch_norm}
    flops, _ = thop.profile(model, (image,), custom_ops=rules, verbose=False)
    return int(flops)
