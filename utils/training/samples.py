"""Images of a run for a person to look at, with what they show."""

from collections.abc import Iterator, Sequence

import torch

from ..data.loader import Batch, Loader
from ..report.pictures import answer_in_words

SHOWN = 16


def in_words(target: torch.Tensor, classes: Sequence[str]) -> str:
    """A class (), or shares of classes (C,) of which the two largest are named."""
    if target.dim() == 0:
        return classes[target]
    shares, indices = target.topk(min(2, len(target)))
    pairs = zip(shares.tolist(), indices.tolist(), strict=True)
    return ", ".join(f"{share:.0%} {classes[index]}" for share, index in pairs if share)


def answers(logits: torch.Tensor, targets: torch.Tensor, classes: Sequence[str]) -> list[str]:
    """What each image is taken for and how surely, and what it shows where that is another."""
    shares, indices = logits.softmax(1).max(1)
    triples = zip(indices.tolist(), shares.tolist(), targets.tolist(), strict=True)
    return [answer_in_words(classes[each], share, classes[right]) for each, share, right in triples]


class SpreadSample:
    """A `Loader` of the same batches that keeps `SHOWN` images, evenly spread over this process's,
    of its latest round: `images` as the network sees them, `targets`."""

    def __init__(self, loader: Loader):
        self.loader, self.batches, self.normalise = loader, loader.batches, loader.normalise

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        kept: list[Batch] = []
        first, every = 0, max(len(self.batches.indices) // SHOWN, 1)
        for images, targets in self.loader:
            chosen = slice(-first % every, None, every)
            kept.append((images[chosen].clone(), targets[chosen].clone()))
            first += len(images)
            yield images, targets
        self.images, self.targets = (torch.cat(each)[:SHOWN] for each in zip(*kept, strict=True))
