"""Runs in this process: stopped at a chosen moment, and compared."""

import os

import torch
from torch.nn.modules.module import register_module_forward_pre_hook


class SignalAtForward:
    """Send a real signal to this process when a `network`'s forward pass number `count` begins."""

    def __init__(self, network: type, count: int, signum: int):
        self.network, self.left, self.signum = network, count, signum

    def __enter__(self):
        self.handle = register_module_forward_pre_hook(self.hook)

    def hook(self, module, _inputs):
        # the header counts FLOPs with one forward pass of its own, in evaluation mode
        if isinstance(module, self.network):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.signum)

    def __exit__(self, *_exception):
        self.handle.remove()


def assert_equal(one, other, where: str) -> None:
    """Assert that two checkpoints, or parts of them, are the same bit for bit."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{where}[{index}]")
    else:
        assert one == other, where
