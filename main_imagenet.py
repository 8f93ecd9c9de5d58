"""Train and evaluate networks with SimAM, or another attention module, on images in class folders.

    python main_imagenet.py DATA -a resnet18 --attention_type simam --attention_param 0.1
    python main_imagenet.py DATA -a resnet18 --attention_type simam --attention_param 0.1 \\
        -e --resume ckpts/imagenet-resnet18-simam-param0.1/model_best.pth.tar

DATA holds train/<class>/ and val/<class>/.
"""

import argparse
import sys

from utils.options import parse_args


def describe_model(args: argparse.Namespace, num_classes: int) -> dict:
    """What a checkpoint says of its network; raises UsageError for an unknown attention."""
    from networks import default_param
    from utils.errors import UsageError

    try:
        param = default_param(args.attention_type)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return {
        "arch": args.arch,
        "attention": args.attention_type,
        "attention_param": param if args.attention_param is None else args.attention_param,
        "num_classes": num_classes,
    }


def build_model(identity: dict):
    """The network that `describe_model` described; raises UsageError where it can't be."""
    from networks import create_model
    from utils.errors import UsageError

    try:
        return create_model(**identity)
    except ValueError as error:
        raise UsageError(str(error)) from None


def start_branches_at_zero(model, arch: str) -> None:
    """What --zero-init-residual asks for; raises UsageError where nothing can be done."""
    from networks.init import zero_init_residual
    from utils.errors import UsageError

    if not zero_init_residual(model):
        raise UsageError(f"--zero-init-residual: no residual branch of {arch} ends in a norm")


def run_folder(args: argparse.Namespace, identity: dict) -> str:
    """ROOT/imagenet-ARCH[-ATTENTION-paramP][-seedS]"""
    import os

    from utils.training.folder import run_name

    network = identity["arch"], identity["attention"], identity["attention_param"]
    name = run_name("imagenet", *network, args.seed)
    return os.path.join(args.ckpt, name + ("-synthetic" if args.synthetic else ""))


def header(model, identity: dict, dist, image_size: int, data: str, folder: str) -> list[str]:
    """The lines that every run begins with."""
    from utils.processes.dist import describe
    from utils.training.complexity import count_flops, count_parameters

    param = identity["attention_param"]
    attention = identity["attention"] + ("" if param is None else f" (parameter {param:g})")
    flops = count_flops(model, image_size) / 1e9
    return [
        f"device      {describe(dist)}",
        f"network     {identity['arch']}, attention {attention}, {identity['num_classes']} classes",
        f"parameters  {count_parameters(model) / 1e6:.2f} M",
        f"FLOPs       {flops:.2f} G (multiply-adds at {image_size}x{image_size}, thop)",
        f"data        {data}",
        f"run folder  {folder}",
    ]


def load_data(args: argparse.Namespace):
    """The listings of train/ (None with -e) and val/, and the size of the classifier."""
    from utils.data.listing import check_same_classes, list_images, synthetic_listing
    from utils.errors import UsageError

    def listed(split: str):
        if args.data is None:
            return synthetic_listing(split, args.num_classes or 1000)
        return list_images(args.data, split)._replace(synthetic=args.synthetic)

    val = listed("val")
    train = None
    if not args.evaluate:
        train = listed("train")
        check_same_classes(train, val)
    num_classes = args.num_classes or len(val.classes)
    if num_classes < len(val.classes):
        raise UsageError(
            f"--num-classes {num_classes}: {args.data} has {len(val.classes)} class folders"
        )
    return train, val, num_classes


def weights_of(args: argparse.Namespace, content, source: str) -> dict:
    """The weights in `content`, read from `source`; with --ema, their moving average."""
    from utils.checkpoints import checkpoint

    if args.ema is None:
        return checkpoint.state_dict_of(content, source)
    return checkpoint.average_of(content, source)


def save_weights(args: argparse.Namespace) -> None:
    """Check that the weights of --resume or --weights are the network's, and write them alone."""
    from utils.checkpoints import checkpoint
    from utils.checkpoints.files import read_file, write_weights
    from utils.errors import UsageError

    source = args.resume or args.weights
    if source in (None, "auto"):
        raise UsageError("--save-weights needs the file to take them from: --resume FILE")
    content = read_file(source)
    state = weights_of(args, content, source)
    identity = describe_model(args, args.num_classes or checkpoint.num_classes_of(state, source))
    checkpoint.check_identity(content, identity, source)
    model = build_model(identity)
    checkpoint.load_state(model, state, source)
    try:
        write_weights(model.state_dict(), args.save_weights, identity)
    except OSError as error:
        raise UsageError(f"can't write {args.save_weights}: {error}") from None
    print(f"wrote the weights of {source} to {args.save_weights}")


def evaluate(args: argparse.Namespace, dist, precision) -> None:
    """Evaluate --resume or --weights on val/; writes no files."""
    from utils.checkpoints import checkpoint
    from utils.checkpoints.files import read_file
    from utils.data import loader as data
    from utils.data.images import choose_backend
    from utils.data.preparation import IMAGENET
    from utils.errors import UsageError
    from utils.training.folder import LATEST
    from utils.training.log import RunLog
    from utils.training.run import accuracy_line, evaluate_with_progress

    _, val, num_classes = load_data(args)
    identity = describe_model(args, num_classes)
    source = args.resume or args.weights
    if source is None:
        raise UsageError("-e needs a checkpoint to evaluate: --resume FILE or --weights FILE")
    if source == "auto":
        source = f"{run_folder(args, identity)}/{LATEST}"
    content = read_file(source)
    if args.resume:
        checkpoint.check_identity(content, identity, source)
    model = build_model(identity)
    checkpoint.load_state(model, weights_of(args, content, source), source)

    log = RunLog(quiet=not dist.is_main)
    sizes = f"{len(val.paths)} validation images in {len(val.classes)} classes"
    for line in header(model, identity, dist, args.image_size, sizes, "none written"):
        log.line(line)
    log.line(f"weights     {source}")
    batch_size, workers = dist.batch_size(args.batch_size), dist.workers(args.workers)
    backend = choose_backend(args.image_backend, "pil")
    prepared = IMAGENET.at(args.image_size)
    loader = data.eval_loader(
        val, prepared, batch_size, workers, dist, precision.input_dtype, backend
    )
    metrics = evaluate_with_progress(
        dist.replicate(model), loader, dist, precision, log, "Validation", args.print_freq
    )
    log.line(accuracy_line(metrics))


def train(args: argparse.Namespace, dist, precision) -> None:
    """Train, from the start, from --weights or from where --resume stands."""
    from utils.checkpoints import checkpoint
    from utils.data import loader as data
    from utils.data.images import choose_backend
    from utils.data.mixing import MixingLoader
    from utils.data.preparation import IMAGENET
    from utils.data.seed import choose_seed, seed_all
    from utils.training.engine import Recipe
    from utils.training.folder import BEST, read_resume
    from utils.training.log import RunLog
    from utils.training.optim import make_optimizer
    from utils.training.run import Plan, Training
    from utils.training.schedule import step_schedule

    train_backend = choose_backend(args.image_backend, "turbo")
    val_backend = choose_backend(args.image_backend, "pil")
    train_images, val_images, num_classes = load_data(args)
    identity = describe_model(args, num_classes)
    folder = run_folder(args, identity)
    per_pass, workers = dist.batch_size(args.batch_size), dist.workers(args.workers)
    batch_size = per_pass * args.accumulate
    # only the first process reads: the run folder need not be on the other nodes
    resume, content, notes = dist.from_main(lambda: read_resume(args.resume, folder))
    if resume:
        checkpoint.check_identity(content, identity, resume)

    seed = dist.from_main(lambda: choose_seed(args.seed, content))
    seed_all(seed, deterministic=args.seed is not None)
    model = build_model(identity)
    if args.zero_init_residual:
        start_branches_at_zero(model, args.arch)
    if args.weights and not resume:
        notes += checkpoint.load_start_weights(model, args.weights)
    dist.place(model)
    optimizer = make_optimizer(
        model,
        args.optimizer,
        args.lr,
        args.momentum,
        args.wd,
        args.nesterov,
        decay_all=not args.no_wd_norm_bias,
    )
    prepared = IMAGENET.at(args.image_size)
    settings = {
        "classes": train_images.classes,
        "preparation": prepared._asdict(),
        "images": len(train_images.paths),
        "seed": seed,
        "batch_size": batch_size,
        "decoder": train_backend,
    }
    dist.check_same(identity | settings)
    training = Training(model, optimizer, precision, dist, folder, identity | settings, args.ema)
    if resume:
        training.resume(content, resume)
        notes += [f"resumed     {resume}: epoch {training.epoch + 1}, step {training.step + 1}"]

    # what --num-classes and --attention-param mean, too, where they are not given
    known = vars(args) | identity | {"images": len(train_images.paths)}
    log = RunLog(folder, quiet=not dist.is_main, first_epoch=training.epoch, settings=known)
    sizes = (
        f"{len(train_images.paths)} training and {len(val_images.paths)} validation images "
        f"in {len(val_images.classes)} classes, seed {seed}, decoder {train_backend}"
    )
    for line in header(model, identity, dist, args.image_size, sizes, folder) + notes:
        log.line(line)
    feed = workers, dist, precision.input_dtype
    report = log.warn if args.skip_bad_images else None
    train_loader = data.train_loader(
        train_images,
        args.image_size,
        batch_size,
        seed,
        *feed,
        train_backend,
        report,
        args.auto_augment,
    )
    if args.mixup or args.cutmix:
        train_loader = MixingLoader(train_loader, args.mixup, args.cutmix, num_classes, seed)
    val_loader = data.eval_loader(val_images, prepared, per_pass, *feed, val_backend)
    cosine = args.sched == "cosine"
    lr_at_step = step_schedule(args.epochs, args.lr, cosine, args.warmup_epochs, len(train_loader))
    save_every = args.save_every_minutes and 60 * args.save_every_minutes
    plan = Plan(
        train_loader,
        val_loader,
        args.epochs,
        lr_at_step,
        args.print_freq,
        save_every,
        args.sync_bn,
        Recipe(args.accumulate, args.clip_grad, args.label_smoothing, args.print_freq),
        args.image_size if args.compile else None,
        args.profile,
    )
    try:
        training.run(plan, log)
        log.line(f"best Acc@1  {training.best_acc1:.3f}, {training.path(BEST)}")
        log.result({"best_acc1": training.best_acc1})
    finally:
        log.close()


def run(args: argparse.Namespace, argv: list[str]) -> int | None:
    """Do what `args`, which came from `argv`, ask for: in this process, or in several."""
    from utils.processes import dist as distributed
    from utils.processes.launch import launch, processes_to_start, published_nodes
    from utils.training.engine import DTYPES, Precision

    if args.save_weights:
        return save_weights(args)
    nodes = published_nodes(
        args.multiprocessing_distributed, args.world_size, args.rank, args.dist_url
    )
    count = processes_to_start(
        args.gpu, args.parallel, args.multiprocessing_distributed, nodes, args.dist_backend
    )
    if count:
        return launch([__file__, *argv], count, nodes)
    dist = distributed.start(args.gpu, args.parallel, args.dist_backend)
    command = evaluate if args.evaluate else train
    return command(args, dist, Precision(dist.device.type, DTYPES[args.amp]))


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 2 for a mistake, 128 + signal when stopped."""
    args = parse_args(argv)

    from utils.processes.launch import guarded

    return guarded(
        lambda: run(args, sys.argv[1:] if argv is None else argv),
        "a smaller -b (with --accumulate for the same update) or --amp bf16 needs less",
    )


if __name__ == "__main__":
    sys.exit(main())
