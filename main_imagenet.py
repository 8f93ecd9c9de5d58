# PYTHON_ARGCOMPLETE_OK
"""Train and evaluate networks with SimAM, or another attention module, on images in class folders.

    python main_imagenet.py DATA -a resnet18 --attention_type simam --attention_param 0.1
    python main_imagenet.py DATA -a resnet18 --attention_type simam --attention_param 0.1 \\
        -e --resume ckpts/imagenet-resnet18-simam-param0.1/model_best.pth.tar

DATA holds train/<class>/ and val/<class>/, or archives: see utils/data/README.md.
"""

import argparse
import sys
from dataclasses import asdict, replace

from utils.options import parse_args
from utils.processes.signals import end_when_asked

if __name__ == "__main__":
    end_when_asked()
    parse_args()  # --help and mistakes are answered before torch is imported

from networks import list_attentions, list_models
from utils.checkpoints import Checkpoint
from utils.checkpoints.formats import write_weights
from utils.config import Config, Network
from utils.data.classes import said_names, shown_names
from utils.data.images import NO_TURBO, choose_backend
from utils.data.listing import Listing, check_same_classes, list_images, synthetic_listing
from utils.data.loader import eval_loader, train_loader
from utils.data.mixing import MixingLoader
from utils.data.preparation import IMAGENET
from utils.disk import check_target
from utils.errors import UsageError
from utils.processes import dist as processes
from utils.processes.dist import Dist
from utils.processes.ending import exit_code
from utils.processes.launch import launch, processes_to_start
from utils.report.outcomes import Flipped, Recorder, check_report, tell
from utils.training.engine import DTYPES, Precision
from utils.training.evaluation import accuracy_line, evaluate_with_progress, matched, outcomes_of
from utils.training.folder import LATEST, find_checkpoint
from utils.training.header import header
from utils.training.log import Progress, RunLog
from utils.training.run import Run
from utils.training.state import DataFacts

NEEDS_LESS = "a smaller -b (with --accumulate for the same update) or --amp bf16 needs less"


def listed(config: Config, split: str) -> Listing:
    """The images of train/ or val/; with --synthetic and no DATA, as many as ImageNet has."""
    if config.data.root is None:
        return synthetic_listing(split, config.network.num_classes or 1000)
    return list_images(config.data.root, split, said_names(config.data.class_names))


def train(config: Config, dist: Dist) -> None:
    """Train, from the start, from --weights or from where --resume stands."""
    train_images, val_images = listed(config, "train"), listed(config, "val")
    check_same_classes(train_images, val_images)
    config = config.for_classes(len(val_images.classes))
    decoder = choose_backend(config.data.image_backend, "turbo")
    prepared = IMAGENET.at(config.data.image_size)
    facts = DataFacts(
        classes=train_images.classes,
        images=len(train_images.images),
        val_images=len(val_images.images),
        preparation=prepared,
        decoder=decoder,
        checksum=None if config.data.root is None else train_images.checksum(),
    )
    run = Run(config, dist, facts, find_checkpoint(config.resume, config.folder, dist))
    feed = dist, run.seed, run.learner.precision.input_dtype
    loader = train_loader(train_images, config, *feed, run.log.warn)
    if config.data.mixup or config.data.cutmix:
        loader = MixingLoader(loader, config, run.seed)
    about = [
        f"data        {facts.images} training and {facts.val_images} validation images in "
        f"{len(facts.classes)} classes, seed {run.seed}, decoder {decoder}{NO_TURBO}",
        *train_images.notes,
        *val_images.notes,
    ]
    run.train(loader, eval_loader(val_images, config.data, prepared, dist, feed[-1]), about)


def evaluate(config: Config, dist: Dist) -> None:
    """Evaluate --resume or --weights on val/; writes no files."""
    path = config.resume or config.weights
    if path is None:
        raise UsageError("-e needs a checkpoint to evaluate: --resume FILE or --weights FILE")
    path = f"{config.folder}/{LATEST}" if path == "auto" else path
    checkpoint, network = chosen(config, path)
    images, net, data = listed(config, "val"), checkpoint.build(network), config.data
    model, asked, said = net, config.report, said_names(data.class_names)
    check_report(asked)
    if not data.synthetic:
        outputs = checkpoint.outputs_for(images.classes, said)
        model, images = matched(model, images, outputs, data.subset_outputs)

    log = RunLog(quiet=not dist.is_main)
    prepared = checkpoint.preparation(network.arch).at(data.image_size)
    log.lines(header(net, network, dist, prepared.centre_crop))
    count = f"{len(images.images)} validation images in {len(images.classes)} classes"
    cut = f"resized to {prepared.shorter_side}, the middle {prepared.centre_crop} pixels"
    log.lines([f"data        {count}, {cut}", *images.notes, "run folder  none written"])
    log.line(f"weights     {checkpoint.label}")
    precision = Precision(dist.device.type, DTYPES[config.machine.amp])
    loader = eval_loader(images, data, prepared, dist, precision.input_dtype)
    answers = len(images.classes) if data.subset_outputs else network.num_classes
    progress = Progress(log, "Validation", loader.batches, config.machine.print_freq, answers)
    model = dist.replicate(Flipped(model) if asked.tta else model)
    recorder = Recorder(model, max(asked.top or 0, 5))
    model = recorder if asked.by_image else model
    metrics = evaluate_with_progress(model, loader, dist, precision, progress)
    checkpoint.check_finite(metrics["loss"])
    if asked.by_image:
        names = shown_names(said or checkpoint.classes, network.num_classes)
        names = images.classes if data.subset_outputs else names
        outcomes = outcomes_of(recorder, images, loader, dist, names)
        if dist.is_main:
            log.lines(tell(outcomes, asked, prepared))
    log.line(accuracy_line(metrics, answers))


def save_weights(config: Config, target: str) -> None:
    """Check that the weights of --resume or --weights are the network's, and write them alone."""
    path = config.resume or config.weights
    if path in (None, "auto"):
        raise UsageError("--save-weights needs the file to take them from: --resume FILE")
    check_target(target)
    checkpoint, network = chosen(config, path)
    write_weights(checkpoint.build(network).state_dict(), target, asdict(network))
    print(f"wrote the weights of {path} to {target}")


def chosen(config: Config, path: str) -> tuple[Checkpoint, Network]:
    """The checkpoint `path`, with --ema its average, and its network, the one asked for."""
    checkpoint = Checkpoint(path)
    if config.resume:
        checkpoint.check_is(config.network)
    classes = config.network.num_classes or checkpoint.num_classes
    network = replace(config.network, num_classes=classes)
    return checkpoint if config.optim.ema is None else checkpoint.average, network


def command(args: argparse.Namespace, argv: list[str]) -> int | None:
    """Do what `args`, which came from `argv`, ask for: in this process, or in several."""
    if args.list:
        print("networks   ", *list_models())
        print("attention  ", *list_attentions())
        return None
    config = Config.of(args)
    if args.save_weights:
        return save_weights(config, args.save_weights)
    count = processes_to_start(config.machine)
    if count:
        return launch([__file__, *argv], count)
    dist = processes.start(config.machine)
    return (evaluate if args.evaluate else train)(config, dist)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 2 for a mistake, 128 + signal when stopped."""
    args = parse_args(argv)
    return exit_code(lambda: command(args, sys.argv[1:] if argv is None else argv), NEEDS_LESS)


if __name__ == "__main__":
    sys.exit(main())
