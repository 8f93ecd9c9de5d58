"""An evaluation that says where it is, and what it found."""

from collections.abc import Callable, Mapping

from torch import nn

from ..data.loader import Loader
from ..processes.dist import Dist
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
        if progress.advance(done):
            progress.show(done, totals.means())
        after_step(done)

    with progress:
        return evaluate(model, val, dist, precision, show)


def accuracy_line(metrics: Mapping[str, float]) -> str:
    """The line that an evaluation ends with."""
    return f" * Acc@1 {metrics['acc1']:.3f} Acc@5 {metrics['acc5']:.3f}"
