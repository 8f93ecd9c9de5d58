"""How a training goes between two looks at it, each some steps after the other."""

import time
from collections.abc import Iterable, Iterator

import torch

from ..data.loader import Batch
from .metrics import Totals


class Pace:
    """The numbers of the steps since the last look. totals: over all processes, as they stand."""

    def __init__(self, totals: Totals):
        self.before, self.looked, self.waited = totals, time.perf_counter(), 0.0

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches, while the seconds that they are waited for are counted."""
        iterator = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(iterator, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def look(self, totals: Totals) -> dict[str, float | None]:
        """Mean loss, mean norm of the gradients that were looked at, images/s, the share of time
        that batches were waited for, and the most memory that the GPU had in use so far, in GiB."""
        now, between = time.perf_counter(), Totals(totals.sums - self.before.sums)
        seconds, means = now - self.looked, between.means()
        numbers = {
            "loss": means["loss"],
            "grad_norm": between.grad_norm(),
            "images_per_s": means["images"] / seconds,
            "data_wait": self.waited / seconds,
        }
        if totals.sums.is_cuda:
            numbers["gpu_memory"] = torch.cuda.max_memory_allocated(totals.sums.device) / 2**30
        self.before, self.looked, self.waited = totals, now, 0.0
        return numbers
