"""A small training by the command: started in this process, stopped at a moment, compared."""

import json
import os
import resource
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

NAME = "imagenet-cifar_resnet20-simam-param0.1-seed3"
STEPS = 4  # of an epoch of `digits`, 24 images in batches of 6


def command(data: Path, root: Path, *more) -> list[str]:
    """Arguments of a training on the CPU that says something at every step."""
    words = f"{data} --ckpt {root} -a cifar_resnet20 --attention-type simam --attention-param 0.1 "
    words += "--gpu=-1 --image-size 32 -b 6 -j 0 --lr 0.006 --seed 3 -p 1"
    return [*words.split(), *map(str, more)]


def run(data: Path, root: Path, *more) -> int:
    from main_imagenet import main  # here: this file is imported without its packages too

    return main(command(data, root, *more))


def path(root: Path, name: str = "checkpoint.pth.tar") -> Path:
    """A file of the only run under `root`."""
    (folder,) = root.iterdir()
    return folder / name


def load(root: Path, name: str = "checkpoint.pth.tar") -> dict[str, Any]:
    return torch.load(path(root, name), weights_only=True)


def metrics(root: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path(root, "metrics.jsonl").read_text().splitlines()]


class SignalAtForward:
    """Send a real signal to this process when a `network`'s forward pass number `count` begins."""

    def __init__(self, network: type, count: int, signum: int):
        # the header counts FLOPs with one pass of its own, in evaluation mode, where thop is there
        left = count if find_spec("thop") else count - 1
        self.network, self.left, self.signum = network, left, signum

    def __enter__(self):
        forward = self.forward = self.network.forward

        # in place of a hook on all modules, with which blocks compute, and round, otherwise
        def counted(module, *inputs):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.signum)
            return forward(module, *inputs)

        self.network.forward = counted

    def __exit__(self, *_exception):
        self.network.forward = self.forward


@contextmanager
def full_disk(size: int):
    """In which no file of this process grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


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


def assert_same_run(root: Path, reference: Path) -> None:
    """Assert that two runs ended with the same checkpoints and the same curves."""
    for name in ("checkpoint.pth.tar", "model_best.pth.tar"):
        assert_equal(load(root, name), load(reference, name), name)
    timing = {"images_per_s", "seconds"}
    one, other = (
        [{key: line[key] for key in line.keys() - timing} for line in metrics(each)]
        for each in (root, reference)
    )
    assert_equal(one, other, "metrics.jsonl")
