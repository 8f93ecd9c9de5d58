"""What an evaluation found, image by image, and what can be said of that."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.transforms.functional import to_pil_image

from ..data.images import load_image
from ..data.places import Place
from ..data.preparation import Preparation
from ..disk import check_target
from ..errors import UsageError
from ..options import Report
from .pictures import answer_in_words, captioned, check_output, new_figure, save_figure
from .tables import write_csv, write_json

BINS = 15  # of confidence, as in the literature
NAMED = 30  # classes of which a picture shows the names


class Recorder(nn.Module):
    """`model`, of whose answers the `most` likeliest are kept, batch by batch, as (N, most + 1):
    the outputs, and the probability of the first."""

    def __init__(self, model: nn.Module, most: int):
        super().__init__()
        self.model, self.most, self.kept = model, most, []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.model(images)
        best = logits.double().softmax(1).topk(min(self.most, logits.shape[1]))
        self.kept.append(torch.cat([best.indices, best.values[:, :1]], 1))
        return logits


class Flipped(nn.Module):
    """The mean of the logits of `model` for each image and for its mirror image."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.model(images) + self.model(images.flip(3))) / 2


@dataclass(frozen=True)
class ClassRow:
    """A class: accuracy in percent, and the wrong answer that was given most often."""

    name: str
    images: int
    acc1: float
    taken_for: str
    times: int


@dataclass(frozen=True)
class Outcomes:
    """Of N images. targets: (N,). answers: (N, K), the likeliest outputs first. confidence: (N,),
    of the first, from 0 to 1. names: of all outputs."""

    images: Sequence[Place]
    targets: np.ndarray
    answers: np.ndarray
    confidence: np.ndarray
    names: Sequence[str]

    def answer(self, place: int) -> str:
        """What the image at `place` was taken for, and shows."""
        found, right = self.names[self.answers[place, 0]], self.names[self.targets[place]]
        return answer_in_words(found, self.confidence[place], right)

    @property
    def right(self) -> np.ndarray:
        return self.answers[:, 0] == self.targets

    def top(self, k: int) -> float:
        """The share of images whose target is among the `k` likeliest outputs, in percent."""
        return 100 * (self.answers[:, :k] == self.targets[:, None]).any(1).mean()

    def calibration_error(self) -> float:
        """Expected calibration error (Guo et al. 2017), in percent: how far accuracy and mean
        confidence are apart, in `BINS` bins of equal width, weighted by their images."""
        bins = np.minimum((self.confidence * BINS).astype(int), BINS - 1)
        apart = np.bincount(bins, self.right - self.confidence)
        return 100 * np.abs(apart).sum() / len(bins)

    def confusion(self) -> np.ndarray:
        """(classes, classes): how many images of a row's class were taken for a column's."""
        size = len(self.names)
        cells = self.targets * size + self.answers[:, 0]
        return np.bincount(cells, minlength=size * size).reshape(size, size)

    def classes(self) -> list[ClassRow]:
        """The classes that have images, the least accurate first."""
        rows = []
        for own, counts in enumerate(self.confusion()):
            others = counts.copy()
            others[own] = 0
            worst = others.argmax()
            if counts.any():
                acc1 = 100 * float(counts[own] / counts.sum())
                name = self.names[worst] if others[worst] else ""
                row = ClassRow(self.names[own], int(counts.sum()), acc1, name, int(others[worst]))
                rows.append(row)
        return sorted(rows, key=lambda row: row.acc1)

    def wrong(self, most: int) -> np.ndarray:
        """The places of `most` images that were taken for another, the surest first."""
        places = np.flatnonzero(~self.right)
        return places[np.argsort(-self.confidence[places], kind="stable")][:most]

    def real(self, labels: Sequence[Sequence[int]]) -> tuple[float, int]:
        """Top-1 in percent by several right answers an image, and of how many images.

        labels: by the number in an image's name, from 1, as of ImageNet's validation images; those
        without any don't count. Raises UsageError for images without such a number.
        """
        places = [_number(str(image)) for image in self.images]
        if not all(place and place <= len(labels) for place in places):
            raise UsageError("--real-labels are of images called ILSVRC2012_val_00000001 and so on")
        several = [labels[place - 1] for place in places]
        hits = [
            answer in own for answer, own in zip(self.answers[:, 0], several, strict=True) if own
        ]
        return 100 * float(np.mean(hits)), len(hits)

    def write(self, path: str, about: dict[str, Any]) -> None:
        """Write a table of the classes (.csv), that and all confusions (.json, with what it is
        `about`), or the confusion matrix as a picture (.png)."""
        if path.endswith(".png"):
            return save_figure(self._matrix(), path)
        if path.endswith(".csv"):
            write_csv(self.classes(), path)
        else:
            write_json({**about, "classes": self.classes(), "confusions": self._confusions()}, path)
        print(f"wrote {path}")

    def _confusions(self) -> list[dict[str, Any]]:
        counts = self.confusion()
        np.fill_diagonal(counts, 0)
        cells = sorted(np.argwhere(counts), key=lambda cell: -counts[tuple(cell)])
        return [
            {
                "class": self.names[own],
                "taken_for": self.names[other],
                "times": int(counts[own, other]),
            }
            for own, other in cells
        ]

    def _matrix(self):
        counts = self.confusion()
        figure = new_figure(8, 7)
        axis = figure.subplots()
        shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        shown = axis.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        figure.colorbar(shown, label="% of the class")
        axis.set(xlabel="taken for", ylabel="class")
        if len(counts) <= NAMED:
            places = range(len(counts))
            axis.set_xticks(places, self.names, rotation=90)
            axis.set_yticks(places, self.names)
        return figure


def _number(path: str) -> int:
    """The number that an image's name ends with; 0 without one."""
    found = re.search(r"_(\d+)\.[^.]*$", path)
    return int(found[1]) if found else 0


def read_labels(path: str) -> list[list[int]]:
    """The lists in `path`, as ReaL's real.json (Beyer et al. 2020) has them; raises UsageError for
    others."""
    try:
        labels = json.loads(Path(path).read_text())
        assert all(isinstance(each, list) for each in labels)
    except (OSError, ValueError, TypeError, AssertionError) as error:
        raise UsageError(f"can't read --real-labels {path}: {error or 'no lists'}") from None
    return labels


WORST = "worst.png"


def check_report(asked: Report) -> None:
    """Raise UsageError, before any work, for what can't be written or read."""
    if asked.report:
        check_target(asked.report, (".csv", ".json", ".png"), replace=True)
    if asked.worst:
        check_output(None, WORST)
    if asked.real_labels:
        read_labels(asked.real_labels)


def tell(outcomes: Outcomes, asked: Report, prepared: Preparation) -> list[str]:
    """Write the files that were `asked` for; returns lines for the log.

    prepared: how the images were.
    """
    said = {"calibration_error": outcomes.calibration_error()}
    lines = [f"calibration error {said['calibration_error']:.2f} % in {BINS} bins of confidence"]
    for k in sorted({1, 5, asked.top or 1}):
        said[f"acc{k}"] = outcomes.top(k)
    if asked.top:
        lines.append(f"Acc@{asked.top} {said[f'acc{asked.top}']:.3f}")
    if asked.real_labels:
        acc1, images = outcomes.real(read_labels(asked.real_labels))
        said |= {"real_acc1": acc1, "real_images": images}
        lines.append(f"ReaL        Acc@1 {acc1:.3f} of {images} images that have labels")
    if asked.worst and outcomes.wrong(1).size:
        places = outcomes.wrong(asked.worst)
        images = torch.stack([load_image(outcomes.images[place], prepared) for place in places])
        picture = captioned(images, [outcomes.answer(place) for place in places])
        to_pil_image(picture).save(WORST)
        print(f"wrote {WORST}")
    if asked.report:
        outcomes.write(asked.report, said)
    return lines
