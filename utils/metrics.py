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
    """Sums over images: loss, correct at 1 and at 5, images seen, and steps with a finite loss.

    They live on `device` in float64; only `means` and `first_bad_step` wait for it.
    """

    def __init__(self, sums: torch.Tensor):
        self.sums = sums

    @classmethod
    def zero(cls, device: torch.device) -> "Totals":
        return cls(torch.zeros(5, dtype=torch.float64, device=device))

    @torch.no_grad()
    def add(self, loss_sum: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in one batch: the sum of its losses, its logits (N, classes), its targets (N,)."""
        self.sums[0] += loss_sum
        self.sums[1] += correct_at(logits, targets, 1)
        self.sums[2] += correct_at(logits, targets, 5)
        self.sums[3] += len(targets)
        # a sum that was not finite once never is again, so this counts the steps before the first
        self.sums[4] += self.sums[0].isfinite()

    def means(self) -> dict[str, float]:
        """Mean loss, accuracies in percent, images: {"loss", "acc1", "acc5", "images"}."""
        loss, correct1, correct5, seen, _ = self.sums.tolist()
        share = 1 / max(seen, 1)
        return {
            "loss": loss * share,
            "acc1": 100 * correct1 * share,
            "acc5": 100 * correct5 * share,
            "images": int(seen),
        }

    def first_bad_step(self) -> int | None:
        """The step (from 0) whose loss was the first to be NaN or infinite; None without one."""
        loss, *_, finite_steps = self.sums.tolist()
        return None if math.isfinite(loss) else int(finite_steps)
