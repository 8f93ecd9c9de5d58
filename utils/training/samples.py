"""Images of a run for a person to look at, with what they show, in TensorBoard."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from ..data.loader import Batch, Loader
from ..data.normalise import Normalise
from ..report.pictures import answer_in_words
from .engine import Precision
from .log import RunLog

SHOWN = 16


class SpreadSample:
    """A `Loader` of the same batches that keeps `SHOWN` images, evenly spread over this process's,
    of its latest round: `images` as the network sees them, `targets`."""

    def __init__(self, loader: Loader):
        self.loader, self.batches, self.normalise = loader, loader.batches, loader.normalise

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        kept: list[Batch] = []
        first, every = 0, max(len(self.batches.own) // SHOWN, 1)
        for images, targets in self.loader:
            chosen = slice(-first % every, None, every)
            kept.append((images[chosen].clone(), targets[chosen].clone()))
            first += len(images)
            yield images, targets
        self.images, self.targets = (torch.cat(each)[:SHOWN] for each in zip(*kept, strict=True))


class Samples:
    """Puts them into `log`. classes: what the network's outputs are called."""

    def __init__(self, log: RunLog, classes: Sequence[str]):
        self.log, self.classes = log, classes

    def first_of(self, batches: Iterator[Batch], normalise: Normalise) -> Iterator[Batch]:
        """The same batches; the first is shown, with its labels."""
        images, targets = next(batches)
        labels = [self.in_words(target) for target in targets[:SHOWN]]
        self.log.picture("first batch", normalise.undo(images[:SHOWN]), labels, 0)
        yield images, targets
        yield from batches

    def in_words(self, target: torch.Tensor) -> str:
        """A class (), or shares of classes (C,), of which the two largest are named."""
        if target.dim() == 0:
            return self.classes[target]
        shares, indices = target.topk(min(2, len(target)))
        pairs = zip(shares.tolist(), indices.tolist(), strict=True)
        return ", ".join(f"{share:.0%} {self.classes[index]}" for share, index in pairs if share)

    def predictions(
        self, model: nn.Module, precision: Precision, sample: SpreadSample, seen: int
    ) -> None:
        """Validation images, and what `model` takes them for; seen: training images until now."""
        with torch.no_grad(), precision.autocast():
            logits = model.eval().forward(sample.images)  # not to be compiled for so many
        shares, indices = logits.float().softmax(1).max(1)
        triples = zip(indices.tolist(), shares.tolist(), sample.targets.tolist(), strict=True)
        captions = [answer_in_words(self.classes[i], p, self.classes[own]) for i, p, own in triples]
        self.log.picture("predictions", sample.normalise.undo(sample.images), captions, seen)
