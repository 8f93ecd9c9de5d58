"""Train the paper's CIFAR networks with its recipe (Table 2), on one GPU or the CPU.

    python scripts/train_cifar.py --download                      # CIFAR-10, by torchvision
    python scripts/train_cifar.py --dataset cifar100 --arch cifar_resnet56 \\
        --attentions none,simam,se --seeds 1,2,3,4,5
    python scripts/train_cifar.py --data-dir FOLDER --iterations 6400   # a tenth of the schedule

FOLDER holds train/<class>/ and val/<class>/ with images of 32x32 pixels. Every attention and seed
is a run with a folder of its own, ROOT/DATASET-ARCH[-ATTENTION-paramP]-seedS, as main_imagenet.py
writes it. The same command again passes over the runs that are finished and goes on with one that
was begun. The recipe: a border of 4 black pixels, a random 32x32 crop, a random flip; SGD with
momentum 0.9, batches of 128, weight decay 5e-4; learning rate 0.1, a tenth from half of the
iterations on, a hundredth from three quarters on. A run ends with the epoch in which the last
iteration falls. Images stay on the device, and are augmented and normalised there.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser, add_shared, comma_list, number
from utils.errors import UsageError

ITERATIONS = 64_000  # the paper's
BATCH_SIZE, LR, MOMENTUM, WEIGHT_DECAY = 128, 0.1, 0.9, 5e-4
EVAL_BATCH_SIZE = 500
# what a run that goes on must have in common with its folder's checkpoint
FIXED = (
    *("dataset", "arch", "attention", "attention_param"),
    *("seed", "iterations", "images", "checksum"),
)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """The options that `load_images` needs, and those of every run."""
    add = parser.add_argument_group("data").add_argument
    add("--dataset", choices=("cifar10", "cifar100"), default="cifar10")
    add("--root", default="data", help="folder of torchvision's files")
    add("--download", action="store_true", help="let torchvision get them where they are missing")
    add("--data-dir", metavar="FOLDER", help="32x32 images in train/<class>/ and val/<class>/")
    runs = parser.add_argument_group("runs")
    add_shared(runs, "--gpu")
    add = runs.add_argument
    add("--iterations", type=number(int, 1), default=ITERATIONS, help="the schedule's length")
    add("-p", "--print-freq", type=number(int, 1), default=100, help="steps between lines")


def network_parser(doc: str) -> Parser:
    """The options of a script that trains one network; doc: the script's own."""
    parser = Parser(
        description=doc.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add_data_options(parser)
    add = parser.add_argument
    add("--arch", default="cifar_resnet20", help="network; a wrong name lists all")
    add("--ckpt", metavar="ROOT", default="ckpts", help="where the run folders are made")
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = network_parser(__doc__)
    add = parser.add_argument
    add("--attentions", type=comma_list(str), default="none", help="such as none,simam,se")
    add("--seeds", type=comma_list(number(int, 0)), default="1", help="such as 1,2,3,4,5")
    return parser.parse_args(argv)


class Run(NamedTuple):
    """One training: what decides its result, besides the images."""

    dataset: str
    arch: str
    attention: str
    attention_param: float | None
    seed: int
    iterations: int

    def folder(self, root: str) -> str:
        from utils.training.folder import run_name

        return os.path.join(root, run_name(*self[:5]))


def dataset_name(dataset: str, data_dir: str | None) -> str:
    """What run folders call the data: the folder's own name, else torchvision's."""
    return os.path.basename(os.path.abspath(data_dir)) if data_dir else dataset


def load_images(dataset: str, data_dir: str | None, root: str, download: bool):
    """Training and validation images, see `utils.data.cifar.Images`: of the folder `data_dir`, or
    of torchvision's `dataset` in `root`. Raises UsageError without them."""
    from utils.data.cifar import read_folder, read_torchvision

    return read_folder(data_dir) if data_dir else read_torchvision(dataset, root, download)


def runs_of(args: argparse.Namespace) -> list[Run]:
    """A run for each attention and seed; raises UsageError for what can't be built."""
    from main_imagenet import build_model
    from networks import default_param

    name = dataset_name(args.dataset, args.data_dir)
    runs = []
    for attention in args.attentions:
        # a wrong name is told before hours of other runs
        build_model({"arch": args.arch, "attention": attention})
        param = default_param(attention)
        for seed in args.seeds:
            runs.append(Run(name, args.arch, attention, param, seed, args.iterations))
    return sorted(runs, key=lambda run: args.seeds.index(run.seed))


def train_run(run: Run, train, val, root: str, dist, print_freq: int) -> None:
    """Train until the run in its folder under `root` is finished, from where it stands.

    Raises UsageError where the folder holds a run of other settings, Stopped after a signal.
    """
    from main_imagenet import build_model, header
    from utils.data.cifar import CifarLoader
    from utils.data.loader import EvalBatches, TrainBatches
    from utils.data.preparation import CIFAR
    from utils.data.seed import seed_all
    from utils.processes.dist import describe
    from utils.training.engine import Precision, Recipe
    from utils.training.folder import read_resume
    from utils.training.log import RunLog
    from utils.training.optim import make_optimizer
    from utils.training.run import Plan, Training
    from utils.training.schedule import iteration_schedule

    batches = TrainBatches(len(train), BATCH_SIZE, run.seed)
    if not len(batches):
        raise UsageError("batch norm needs two training images at least")
    epochs = -(-run.iterations // len(batches))
    settings = run._asdict() | {
        "images": len(train),
        "val_images": len(val),
        "checksum": f"{train.checksum():08x}-{val.checksum():08x}",
        "epochs": epochs,
        "batch_size": BATCH_SIZE,
    }
    folder = run.folder(root)
    resume, content, notes = read_resume("auto", folder)
    if resume:
        said = content if isinstance(content, Mapping) else {}
        for name in FIXED:
            if said.get(name) != settings[name]:
                raise UsageError(
                    f"{folder} holds a run with {name} {said.get(name)}, this one has "
                    f"{settings[name]}; give another --ckpt"
                )
        if content["epoch"] == epochs:
            print(f"finished    {folder}", flush=True)
            return

    seed_all(run.seed, deterministic=True)
    identity = {
        "arch": run.arch,
        "attention": run.attention,
        "attention_param": run.attention_param,
        "num_classes": len(train.classes),
    }
    model = dist.place(build_model(identity))
    optimizer = make_optimizer(model, "sgd", LR, MOMENTUM, WEIGHT_DECAY)
    precision = Precision(dist.device.type)
    known = identity | settings | {"classes": train.classes, "decoder": "none"}
    known["preparation"] = CIFAR._asdict()
    training = Training(model, optimizer, precision, dist, folder, known)
    if resume:
        training.resume(content, resume)
        notes += [f"resumed     {resume}: epoch {training.epoch + 1}, step {training.step + 1}"]
    settings["device"] = describe(dist)
    log = RunLog(folder, first_epoch=training.epoch, settings=settings)
    sizes = (
        f"{run.dataset}, {len(train)} training and {len(val)} validation images in "
        f"{len(train.classes)} classes, seed {run.seed}"
    )
    for line in header(model, identity, dist, train.pixels.shape[-1], sizes, folder) + notes:
        log.line(line)
    shortened = f", shortened from {ITERATIONS:,}" if run.iterations < ITERATIONS else ""
    log.line(f"schedule    {run.iterations:,} iterations{shortened}, {epochs} epochs")
    plan = Plan(
        CifarLoader(train, batches, dist.device),
        CifarLoader(val, EvalBatches(len(val), EVAL_BATCH_SIZE), dist.device),
        epochs,
        iteration_schedule(run.iterations, LR, len(batches)),
        print_freq,
        recipe=Recipe(norm_every=print_freq),
        goes_on=f"run folder {folder}; the same command goes on",
    )
    try:
        training.run(plan, log)
        log.result({"best_acc1": training.best_acc1})
    finally:
        log.close()


def train_all(args: argparse.Namespace) -> None:
    from utils.processes.dist import alone

    dist = alone(args.gpu)
    runs = runs_of(args)
    train, val = load_images(args.dataset, args.data_dir, args.root, args.download)
    for run in runs:
        train_run(run, train, val, args.ckpt, dist, args.print_freq)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)

    from utils.processes.launch import guarded

    return guarded(lambda: train_all(args))


if __name__ == "__main__":
    sys.exit(main())
