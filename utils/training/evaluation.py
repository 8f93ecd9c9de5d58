"""An evaluation that says where it is, and what it found."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from ..data.listing import Listing
from ..data.loader import Loader
from ..processes.dist import Dist
from ..report.outcomes import Outcomes, Recorder
from .engine import Precision, evaluate
from .log import Progress
from .metrics import Totals


def evaluate_with_progress(
    model: nn.Module,
    val: Loader,
    dist: Dist,
    precision: Precision,
    progress: Progress,
    after_step: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """`evaluate`, saying where it is; see `Totals.means` for what it returns."""

    def show(done: int, totals: Totals) -> None:
        # all processes' numbers; beyond the common steps some have already finished
        if progress.advance(done) and done < val.batches.common_steps:
            progress.show(done, Totals(dist.sum(totals.sums)).means())
        after_step(done)

    with progress:
        means = evaluate(model, val, dist, precision, show)
        progress.show(progress.steps, means)
    return means


class Chosen(nn.Module):
    """Of a network's logits (N, classes) the `outputs` alone, in their order."""

    def __init__(self, outputs: Sequence[int]):
        super().__init__()
        self.register_buffer("outputs", torch.tensor(outputs))

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[:, self.outputs]


def matched(
    model: nn.Module, listing: Listing, outputs: Sequence[int], subset: bool
) -> tuple[nn.Module, Listing]:
    """`model` and `listing` such that each class folder's target is the output that it means.

    subset: over those outputs alone.
    """
    if subset:
        return nn.Sequential(model, Chosen(outputs)), listing
    return model, listing._replace(targets=np.array(outputs)[listing.targets])


def outcomes_of(
    recorder: Recorder, images: Listing, loader: Loader, dist: Dist, names: Sequence[str]
) -> Outcomes:
    """What `recorder` kept of an evaluation over `loader`, of all processes.

    images: whose targets are among the outputs called `names`.
    """
    own = torch.cat(recorder.kept)
    rows = own.new_zeros(len(images.images), own.shape[1])
    rows[loader.batches.own.start :: loader.batches.own.step] = own
    rows = dist.sum(rows).cpu().numpy()
    answers = rows[:, :-1].astype(int)
    return Outcomes(images.images, images.targets, answers, rows[:, -1], names)


def accuracy_line(metrics: Mapping[str, float], classes: int) -> str:
    """The line that an evaluation ends with; of five classes the best five say nothing."""
    top5 = f" Acc@5 {metrics['acc5']:.3f}" if classes > 5 else ""
    return f" * Acc@1 {metrics['acc1']:.3f}{top5}"
