"""Train the paper's CIFAR networks with its recipe (Table 2), on one GPU or the CPU.

    python scripts/train_cifar.py --download                      # CIFAR-10, by torchvision
    python scripts/train_cifar.py --dataset cifar100 --arch cifar_resnet56 \\
        --attentions none,simam,se --seeds 1,2,3,4,5
    python scripts/train_cifar.py --data-dir FOLDER --iterations 6400   # a tenth of the schedule
    python scripts/train_cifar.py --compile --eval-every 20 --seeds 1,2,3,4,5 --concurrent 5

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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import cycle

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from scripts.paper.options import ITERATIONS, add_recipe
from utils.cli import Parser, comma_list, number
from utils.processes.signals import end_when_asked

EVAL_BATCH_SIZE = 500


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_recipe(parser)
    add = parser.add_argument
    add("--arch", default="cifar_resnet20", help="network; a wrong name lists all")
    add("--attentions", type=comma_list(str), default="none", help="such as none,simam,se")
    add("--seeds", type=comma_list(number(int, 0)), default="1", help="such as 1,2,3,4,5")
    return parser.parse_args(argv)


if __name__ == "__main__":
    end_when_asked()
    parse_args()  # --help and mistakes are answered before torch is imported

import torch

from scripts.paper.common import last_acc1
from utils.config import Config, Data, Machine, Network, Optim, run_name
from utils.data.batches import EvalBatches, TrainBatches
from utils.data.cifar import CifarLoader, Images, read_folder, read_torchvision
from utils.data.normalise import Normalise
from utils.data.preparation import CIFAR
from utils.errors import UsageError
from utils.processes.dist import Dist, alone, devices_in_words
from utils.processes.ending import exit_code
from utils.processes.signals import StopRequest
from utils.recording import on_a_stream
from utils.training.folder import find_checkpoint
from utils.training.run import Run
from utils.training.state import DataFacts, checked, facts_of

Splits = tuple[Images, Images]  # training and validation
# what a run that goes on must have in common with its folder's checkpoint
FIXED = (
    *("dataset", "arch", "attention", "attention_param"),
    *("seed", "iterations", "images", "checksum"),
)


def recipe(args: argparse.Namespace, network: Network, seed: int, dataset: str) -> Config:
    """The paper's training of `network`, which gets as many classes as the data has."""
    return Config(
        network=replace(network, num_classes=0),
        dataset=dataset,
        data=Data(image_size=CIFAR.centre_crop, batch_size=128),
        optim=Optim(weight_decay=5e-4, sched="iterations", iterations=args.iterations),
        machine=Machine(
            gpu=args.gpu,
            seed=seed,
            amp=args.amp,
            compile=args.compile,
            record=args.compile,
            eval_every=args.eval_every,
            print_freq=args.print_freq,
            logger=args.logger,
        ),
        folder=os.path.join(args.ckpt, run_name(dataset, network, seed)),
    )


def recipes(
    args: argparse.Namespace, networks: Iterable[Network], dataset: str
) -> list[list[Config]]:
    """Of every network its runs, one for each of --seeds.

    args: with the options of `add_recipe`. dataset: what run folders call the data.
    """
    return [[recipe(args, net, seed, dataset) for seed in args.seeds] for net in networks]


def read_images(args: argparse.Namespace, dataset: str) -> Splits:
    """The images of --data-dir, or torchvision's `dataset`; raises UsageError without them."""
    if args.data_dir:
        return read_folder(args.data_dir)
    return read_torchvision(dataset, args.root, args.download)


def dataset_name(args: argparse.Namespace, dataset: str) -> str:
    """What run folders call the data: the folder's own name, else torchvision's."""
    return os.path.basename(os.path.abspath(args.data_dir)) if args.data_dir else dataset


def steps(config: Config, splits: Splits, dist: Dist, stop: StopRequest) -> Iterator[None]:
    """Train until the run in the config's folder is finished, from where it stands: `Run.steps`.

    Raises UsageError where the folder holds a run of other settings.
    """
    images, val_images = splits
    seed, folder = config.machine.seed, config.folder
    batches = TrainBatches(len(images), config.data.batch_size, seed)
    if not len(batches):
        raise UsageError("batch norm needs two training images at least")
    epochs = -(-config.optim.iterations // len(batches))
    data = DataFacts(
        classes=images.classes,
        images=len(images),
        val_images=len(val_images),
        preparation=CIFAR,
        checksum=f"{images.checksum():08x}-{val_images.checksum():08x}",
    )
    options = {name: facts_of(config, data)[name] for name in (*FIXED, "val_images")}
    options |= {"epochs": epochs, "batch_size": config.data.batch_size}
    options["device"] = devices_in_words(dist)
    optim = replace(config.optim, epochs=epochs)
    config = replace(config.for_classes(len(images.classes)), optim=optim, options=options)

    found = find_checkpoint("auto", folder, dist)
    said = checked(found.checkpoint) if found.checkpoint else options
    for name in FIXED:
        if said.get(name) != options[name]:
            raise UsageError(
                f"{folder} holds a run with {name} {said.get(name)}, this one has "
                f"{options[name]}; give another --ckpt"
            )
    if said.get("epoch") == epochs:
        print(f"finished    {folder}", flush=True)
        return
    run = Run(config, dist, data, found, f"run folder {folder}; the same command goes on")
    normalise = Normalise(dist.device, CIFAR, run.learner.precision.input_dtype)
    shortened = f", shortened from {ITERATIONS:,}" * (config.optim.iterations < ITERATIONS)
    about = [
        f"data        {config.dataset}, {data.images} training and {data.val_images} "
        f"validation images in {len(data.classes)} classes, seed {seed}",
        f"schedule    {config.optim.iterations:,} iterations{shortened}, {epochs} epochs",
    ]
    loader = CifarLoader(images, batches, normalise, record=config.machine.record)
    val_batches = EvalBatches(len(val_images), EVAL_BATCH_SIZE)
    yield from run.steps(loader, CifarLoader(val_images, val_batches, normalise), about, stop)


def places(args: argparse.Namespace) -> list[Dist]:
    """Where runs may be: on the device that --gpu names, with --concurrent on all that it lists."""
    if args.concurrent == 1:
        return [alone(args.gpu)]
    gpus = args.gpu.split(",") if args.gpu else range(torch.cuda.device_count())
    return [alone(str(gpu)) for gpu in gpus] or [alone(None)]


def train_together(configs: Sequence[Config], splits: Splits, dists: Sequence[Dist]) -> None:
    """Train all of them, a step of each in turn, from one of `dists` to the next.

    One that fails leaves the others going on; then its error is raised, the first one's.
    """
    if any(config.machine.compile for config in configs):
        torch.compiler.reset()  # what was compiled before would count against these
    stop, errors = StopRequest(), []
    running = [
        on_a_stream(steps(config, splits, dist, stop), dist.device)
        for config, dist in zip(configs, cycle(dists), strict=False)
    ]
    while running:
        for run in list(running):
            try:
                next(run)
            except StopIteration:
                running.remove(run)
            except Exception as error:
                running.remove(run)
                errors.append(error)
    if errors:
        raise errors[0]


def train_in_silence(configs: Sequence[Config], splits: Splits, dists: Sequence[Dist]) -> None:
    """`train_together`, of which only the ends are told; the rest is in the run folders."""
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            train_together(configs, splits, dists)
    finally:
        for config in configs:
            for acc1 in last_acc1([config]):
                print(f"finished    {config.folder}, Acc@1 {acc1:.3f}", flush=True)


def train_in_turn(
    runs: Sequence[list[Config]], splits: Splits, dists: Sequence[Dist], at_once: int
) -> None:
    """Train what is not finished of `recipes`: all with the first `at_once` seeds, then all with
    the next, ...; several at once in silence."""
    train_some = train_together if at_once == 1 else train_in_silence
    for first in range(0, len(runs[0]), at_once):
        for configs in runs:
            train_some(configs[first : first + at_once], splits, dists)


def train(args: argparse.Namespace) -> None:
    """A run for each attention and seed."""
    networks = [Network(arch=args.arch, attention=attention) for attention in args.attentions]
    for network in networks:
        network.build()  # a wrong name is told before hours of other runs
    dists = places(args)
    runs = recipes(args, networks, dataset_name(args, args.dataset))
    train_in_turn(runs, read_images(args, args.dataset), dists, args.concurrent)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: train(args))


if __name__ == "__main__":
    sys.exit(main())
