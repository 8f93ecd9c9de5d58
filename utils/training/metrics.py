"""Loss and accuracy, counted on the device."""

import math
from collections.abc import Mapping

import torch


def correct_at(logits: torch.Tensor, targets: torch.Tensor, k: int) -> torch.Tensor:
    """How many targets are among their row's `k` largest logits; k is cut to the classes.

    logits: (N, classes), targets: (N,) class indices -> scalar tensor on the same device.
    """
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (best == targets[:, None]).sum()


class Totals:
    """Counters of an epoch, by name, that live on `device` in float64.

    Over images: loss (a sum), correct1, correct5, images; finite, the batches before the first
    whose loss is not; over steps: norm (a sum) and norms of gradients that were looked at, and
    skipped ones. Only the methods that return numbers wait for the device.
    """

    NAMES = ("loss", "correct1", "correct5", "images", "finite", "norm", "norms", "skipped")

    def __init__(self, sums: torch.Tensor):
        self.sums = sums
        self.of = dict(zip(self.NAMES, sums, strict=True))  # views

    @classmethod
    def zero(cls, device: torch.device) -> "Totals":
        return cls(torch.zeros(len(cls.NAMES), dtype=torch.float64, device=device))

    @torch.no_grad()
    def add(self, loss_sum: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in one batch: the sum of its losses, its logits (N, classes), its targets (N,)."""
        self.of["loss"] += loss_sum
        self.of["correct1"] += correct_at(logits, targets, 1)
        self.of["correct5"] += correct_at(logits, targets, 5)
        self.of["images"] += len(targets)
        # a sum that was not finite once never is again
        self.of["finite"] += self.of["loss"].isfinite()

    def add_norm(self, norm: torch.Tensor) -> None:
        """Take in the norm of a step's gradient; an infinite one is that of a skipped step."""
        finite = norm.isfinite()
        self.of["norm"] += norm.where(finite, 0)
        self.of["norms"] += finite

    def add_skipped(self, skipped: torch.Tensor) -> None:
        """Take in whether a step was skipped: 1 or 0."""
        self.of["skipped"] += skipped

    def counters(self) -> dict[str, float]:
        """All of them as plain numbers."""
        return dict(zip(self.NAMES, self.sums.tolist(), strict=True))

    def load(self, counters: Mapping[str, float]) -> None:
        """Go on from what `counters` returned."""
        values = [counters[name] for name in self.NAMES]
        self.sums.copy_(torch.tensor(values, dtype=torch.float64))

    def means(self) -> dict[str, float]:
        """Mean loss, accuracies in percent, images: {"loss", "acc1", "acc5", "images"}."""
        now = self.counters()
        share = 1 / max(now["images"], 1)
        return {
            "loss": now["loss"] * share,
            "acc1": 100 * now["correct1"] * share,
            "acc5": 100 * now["correct5"] * share,
            "images": int(now["images"]),
        }

    def clear(self) -> None:
        """Begin again at zero, in the same memory."""
        self.sums.zero_()

    def grad_norm(self) -> float | None:
        """The mean norm of the gradients that were looked at; None where none was."""
        now = self.counters()
        return now["norm"] / now["norms"] if now["norms"] else None

    def skipped(self) -> int:
        """How many steps were skipped because their gradient was not finite."""
        return round(self.counters()["skipped"])

    def first_bad_batch(self) -> int | None:
        """The batch (from 0) whose loss was the first to be NaN or infinite; None without one."""
        now = self.counters()
        return None if math.isfinite(now["loss"]) else int(now["finite"])
