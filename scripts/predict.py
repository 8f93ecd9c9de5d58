"""Say what is in images: the five likeliest classes of each, with their confidence.

    python scripts/predict.py IMAGE_OR_FOLDER... --checkpoint FILE [--format table|jsonl|csv]

Images are decoded, resized and cropped as in the evaluations of the network's training. It is
recognised as by evaluate_all.py. Classes are called as the training's folders, where the checkpoint
says them, by ImageNet's names where there are 1,000, else by their index. An image that can't be
read is one line on standard error; the others are predicted, and the exit code is then 2.
"""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser, add_shared, exit_code
from utils.data.listing import IMAGE_ENDINGS


def parse_args(argv: list[str] | None = None):
    parser = Parser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("paths", metavar="IMAGE_OR_FOLDER", nargs="+", help="folders are searched through")
    add("--checkpoint", metavar="FILE", required=True, help="the network's weights")
    add(
        "--format",
        choices=tuple(WRITERS),
        default="table",
        help="aligned columns, a JSON object per image, or comma-separated values",
    )
    add_shared(parser, "--attention-type", "--attention-param")
    add_shared(parser, "--batch-size", "--workers", "--image-size", "--gpu")
    return parser.parse_args(argv)


# what is said of a class that an image may show; confidence: its probability, from 0 to 1
FIELDS = ("class", "index", "confidence")
Predictions = Iterator[tuple[str, list[dict]]]


def collate_readable(collate: Callable, samples: list) -> tuple[tuple | None, list]:
    """A batch (None without a readable image), and the `BadImage`s that are not in it."""
    from utils.data.loader import BadImage

    bad = [sample for sample in samples if isinstance(sample, BadImage)]
    good = [sample for sample in samples if not isinstance(sample, BadImage)]
    return (collate(good) if good else None), bad


def predict(
    loaded, paths: list[str], batch_size: int, workers: int, device, report: Callable
) -> Predictions:
    """Each of the images `paths` with its five likeliest classes, a dict of FIELDS each.

    loaded: what `load_network` returned, with the model on `device`. report: called with the
    `BadImage` of each image that can't be read, in place of a prediction. Raises UsageError for a
    network whose outputs are not finite.
    """
    import numpy as np
    import torch
    from torch.utils.data import DataLoader

    from utils.data.images import EvalTransform
    from utils.data.listing import Listing
    from utils.data.loader import Collate, EvalBatches, ImageDataset, start_worker

    # an image's target is its place among `paths`, so that a batch knows which images it holds
    listing = Listing([], paths, np.arange(len(paths)))
    batches = EvalBatches(len(paths), batch_size)
    prepared = loaded.preparation
    loader = DataLoader(
        ImageDataset(listing, EvalTransform(prepared.centre_crop, prepared.shorter_side)),
        batch_sampler=batches,
        num_workers=workers if len(batches) > 1 else 0,
        collate_fn=partial(collate_readable, Collate()),
        worker_init_fn=start_worker,
    )
    normalise = loaded.normalise(device)
    for batch, bad in loader:
        for each in bad:
            report(each)
        if batch is None:
            continue
        images, places, _ = batch
        with torch.no_grad():
            probabilities = loaded.model(normalise(images.to(device))).softmax(1)
        loaded.check_finite(probabilities)
        best = probabilities.topk(min(5, len(loaded.classes)))
        for place, row, indices in zip(
            places.tolist(), best.values.tolist(), best.indices.tolist(), strict=True
        ):
            likeliest = [
                dict(zip(FIELDS, (loaded.classes[index], index, confidence), strict=True))
                for index, confidence in zip(indices, row, strict=True)
            ]
            yield paths[place], likeliest


def write_table(predictions: Predictions, width: int) -> None:
    print(f"{'image':{width}}  rank  confidence  class")
    for image, guesses in predictions:
        for rank, guess in enumerate(guesses, 1):
            confidence = f"{100 * guess['confidence']:.2f} %"
            print(f"{image:{width}}  {rank:4}  {confidence:>10}  {guess['class']}")


def write_jsonl(predictions: Predictions, width: int) -> None:
    for image, guesses in predictions:
        print(json.dumps({"image": image, "predictions": guesses}))


def write_csv(predictions: Predictions, width: int) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("image", "rank", *FIELDS))
    for image, guesses in predictions:
        writer.writerows((image, rank, *guess.values()) for rank, guess in enumerate(guesses, 1))


WRITERS = {"table": write_table, "jsonl": write_jsonl, "csv": write_csv}


def run(args) -> int:
    from utils.checkpoints.loading import load_network

    from utils.data.listing import find_files
    from utils.processes.dist import choose_device

    device = choose_device(args.gpu)
    paths = find_files(args.paths, IMAGE_ENDINGS, "image")
    words = args.attention_type, args.attention_param, args.image_size
    loaded = load_network(args.checkpoint, *words)
    loaded.tell_assumed()
    loaded.model.to(device)
    unread = []

    def report(bad) -> None:
        unread.append(bad)
        print(f"error: can't read image {bad.path} ({bad.reason})", file=sys.stderr)

    found = predict(loaded, paths, args.batch_size, args.workers, device, report)
    WRITERS[args.format](found, max(map(len, paths)))
    return 2 if unread else 0


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
