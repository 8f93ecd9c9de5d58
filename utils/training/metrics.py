"""Loss and accuracy, counted on the device."""

import math

import torch


def correct_at(logits: torch.Tensor, targets: torch.Tensor, k: int) -> torch.Tensor:
    """How many targets are among their row's `k` largest logits; k is cut to the classes.

    logits: (N, classes), targets: (N,) class indices -> scalar tensor on the same device.
    """
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (best == targets[:, None]).sum()


class Totals:
    """Sums over images: loss, correct at 1 and at 5, images seen, and batches with a finite loss;
    over steps: gradient norms, how many of them, and steps skipped because of an infinite one.

    They live on `device` in float64; only the methods that return numbers wait for it.
    """

    def __init__(self, sums: torch.Tensor):
        self.sums = sums

    @classmethod
    def zero(cls, device: torch.device) -> "Totals":
        return cls(torch.zeros(8, dtype=torch.float64, device=device))

    @torch.no_grad()
    def add(self, loss_sum: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in one batch: the sum of its losses, its logits (N, classes), its targets (N,)."""
        self.sums[0] += loss_sum
        self.sums[1] += correct_at(logits, targets, 1)
        self.sums[2] += correct_at(logits, targets, 5)
        self.sums[3] += len(targets)
        # a sum that was not finite once never is again, so this counts those before the first
        self.sums[4] += self.sums[0].isfinite()

    def add_norm(self, norm: torch.Tensor) -> None:
        """Take in the norm of a step's gradient; an infinite one is that of a skipped step."""
        finite = norm.isfinite()
        self.sums[5] += norm.where(finite, 0)
        self.sums[6] += finite

    def add_skipped(self, skipped: torch.Tensor) -> None:
        """Take in whether a step was skipped: 1 or 0."""
        self.sums[7] += skipped

    def means(self) -> dict[str, float]:
        """Mean loss, accuracies in percent, images: {"loss", "acc1", "acc5", "images"}."""
        loss, correct1, correct5, seen, *_ = self.sums.tolist()
        share = 1 / max(seen, 1)
        return {
            "loss": loss * share,
            "acc1": 100 * correct1 * share,
            "acc5": 100 * correct5 * share,
            "images": int(seen),
        }

    def grad_norm(self) -> float | None:
        """The mean norm of the gradients that were looked at; None where none was."""
        norms, count = self.sums[5:7].tolist()
        return norms / count if count else None

    def skipped(self) -> int:
        """How many steps were skipped because their gradient was not finite."""
        return round(self.sums[7].item())

    def first_bad_batch(self) -> int | None:
        """The batch (from 0) whose loss was the first to be NaN or infinite; None without one."""
        loss, _, _, _, finite, *_ = self.sums.tolist()
        return None if math.isfinite(loss) else int(finite)
