"""How long the parts of a step take."""

import time
from collections.abc import Iterable, Iterator
from itertools import pairwise

import torch
from torch import nn

PARTS = ("data", "forward", "backward", "optimizer", "other")


class Stopwatch:
    """When the parts of a loop began: by the GPU's clock, or the machine's."""

    def __init__(self, device: str):
        self.on_gpu, self.marks = device == "cuda", []

    def begin(self, part: str) -> None:
        """`part` begins, and so the part before it ends."""
        stamp = torch.cuda.Event(enable_timing=True) if self.on_gpu else time.perf_counter()
        if self.on_gpu:
            stamp.record()
        self.marks.append((part, stamp))

    def take(self) -> list[tuple]:
        """The marks since the last taking, which `split` understands once the GPU has passed."""
        marks, self.marks = self.marks, []
        return marks

    def batches(self, batches: Iterable) -> Iterator:
        """`batches`, with the time until each is there as "data"."""
        self.begin("data")
        for batch in batches:
            self.begin("other")
            yield batch
            self.begin("data")
        self.begin("other")


def split(marks: list[tuple]) -> dict[str, float]:
    """Seconds of each part, from the first mark to the last."""
    sums = dict.fromkeys(PARTS, 0.0)
    for (part, start), (_, end) in pairwise(marks):
        sums[part] += end - start if isinstance(start, float) else start.elapsed_time(end) / 1e3
    return sums


class Watched(nn.Module):
    """`net`, whose passes `watch` times."""

    def __init__(self, net: nn.Module, watch: Stopwatch):
        super().__init__()
        self.net, self.watch = net, watch

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.watch.begin("forward")
        logits = self.net(images)
        self.watch.begin("other")
        if logits.requires_grad:
            logits.register_hook(lambda grad: self.watch.begin("backward"))
        return logits
