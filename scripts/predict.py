"""Say what is in images: the likeliest classes of each, with their confidence.

    python scripts/predict.py IMAGE_OR_FOLDER... --checkpoint FILE
    python scripts/predict.py IMAGE_OR_FOLDER... --checkpoint FILE --top 3 --format csv

A tar archive counts as a folder. Images are decoded, resized and cropped as in the evaluations of
the network's training. It is recognised as by evaluate_all.py. Classes are called as the training's
folders, where the checkpoint says them, by ImageNet's names where there are 1,000, else by their
index. An image that can't be read is one line on standard error; the others are predicted, and the
exit code is then 2.
"""

import argparse
import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser, add_batches, add_gpu, add_recognition, number


class Guess(NamedTuple):
    """A class that an image may show, and its probability, from 0 to 1."""

    name: str
    index: int
    confidence: float


FIELDS = ("class", "index", "confidence")  # what files call those of a Guess
Prediction = tuple[str, list[Guess]]  # an image's path, and its likeliest classes


def write_table(predictions: Iterable[Prediction], width: int) -> None:
    print(f"{'image':{width}}  rank  confidence  class")
    for image, guesses in predictions:
        for rank, guess in enumerate(guesses, 1):
            confidence = f"{100 * guess.confidence:.2f} %"
            print(one_line(f"{image:{width}}  {rank:4}  {confidence:>10}  {guess.name}"))


def write_jsonl(predictions: Iterable[Prediction], _width: int) -> None:
    for image, guesses in predictions:
        likeliest = [dict(zip(FIELDS, guess, strict=True)) for guess in guesses]
        print(json.dumps({"image": image, "predictions": likeliest}))


def write_csv(predictions: Iterable[Prediction], _width: int) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("image", "rank", *FIELDS))
    for image, guesses in predictions:
        writer.writerows((image, rank, *guess) for rank, guess in enumerate(guesses, 1))


# each takes the predictions, and how many characters the longest path has
WRITERS = {"table": write_table, "jsonl": write_jsonl, "csv": write_csv}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("paths", metavar="IMAGE_OR_FOLDER", nargs="+", help="folders are searched through")
    add("--checkpoint", metavar="FILE", required=True, help="the network's weights")
    add(
        "--format",
        choices=tuple(WRITERS),
        default="table",
        help="aligned columns, a JSON object per image, or comma-separated values",
    )
    add("--top", type=number(int, 1), default=5, metavar="K", help="classes for each image")
    add_recognition(parser)
    add_batches(parser)
    add_gpu(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

import numpy as np
import torch

from utils.checkpoints.trained import Trained, load_and_tell
from utils.data.batches import EvalBatches, Key
from utils.data.files import IMAGE_ENDINGS, counted, find_files
from utils.data.images import EvalTransform
from utils.data.listing import Listing
from utils.data.loader import BadImage, DeviceLoader, ImageDataset, Sample
from utils.data.places import Place
from utils.data.tars import images_at
from utils.errors import one_line
from utils.processes.dist import alone
from utils.processes.ending import exit_code

UNREADABLE = -1


class ReadableImages(ImageDataset):
    """An `ImageDataset` with black in place of what can't be decoded, and the target UNREADABLE."""

    def __getitem__(self, key: Key) -> Sample:
        sample = super().__getitem__(key)
        if not isinstance(sample, BadImage):
            return sample
        size = self.transform.size
        return torch.zeros(3, size, size, dtype=torch.uint8), UNREADABLE, [sample]


def predict(
    trained: Trained, loader: DeviceLoader, images: Sequence[Place], top: int
) -> Iterator[Prediction]:
    """What each readable image shows, its `top` likeliest classes, the likeliest first.

    loader: of `ReadableImages`, each with its place among `images` as target. Raises UsageError
    for a network whose outputs are not finite.
    """
    for batch, places in loader:
        with torch.no_grad():
            probabilities = trained.model(batch).softmax(1)
        trained.checkpoint.check_finite(probabilities)
        best = probabilities.topk(min(top, len(trained.classes)))
        columns = places.tolist(), best.indices.tolist(), best.values.tolist()
        for place, indices, confidences in zip(*columns, strict=True):
            if place != UNREADABLE:
                likeliest = zip(indices, confidences, strict=True)
                yield str(images[place]), [Guess(trained.classes[i], i, c) for i, c in likeliest]


def run(args: argparse.Namespace) -> int:
    dist = alone(args.gpu)
    left_out = Counter()
    paths = find_files(args.paths, IMAGE_ENDINGS, "image", left_out)
    images = [image for path in paths for image in images_at(path, left_out)]
    if left_out:
        print(f"left out    {counted(left_out)}", file=sys.stderr)
    trained = load_and_tell(args.checkpoint, args)
    dist.place(trained.model)
    listing = Listing([], images, np.arange(len(images)))
    batches = EvalBatches(len(images), args.batch_size)
    loader = DeviceLoader(
        ReadableImages(listing, EvalTransform(trained.preparation)),
        batches,
        args.workers if len(batches) > 1 else 0,
        trained.normalise(dist.device),
        report=lambda line: print(one_line(f"error: {line}"), file=sys.stderr),
    )
    predictions = predict(trained, loader, images, args.top)
    first = list(islice(predictions, 1))  # an error comes before any heading
    WRITERS[args.format](chain(first, predictions), max(len(str(image)) for image in images))
    return 2 if loader.passed_over else 0


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
