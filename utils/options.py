"""The options of main_imagenet.py."""

import argparse

from .cli import Parser, add_shared, number, share

# what the scripts of 2018 started processes with
PROCESS_PER_GPU = "--gpu 0,1,2,3 starts a process per GPU"
NODES = "torchrun --nnodes N --nproc-per-node K main_imagenet.py DATA ... starts several machines"
REMOVED = {
    "--multiprocessing-distributed": PROCESS_PER_GPU,
    "--world-size": NODES,
    "--rank": NODES,
    "--dist-url": NODES,
    "--local-rank": "torchrun takes the place of python -m torch.distributed.launch",
    "--pretrained": "--weights FILE starts from torchvision's or other weights",
    "--start-epoch": "--resume FILE goes on in the file's epoch",
    "--log-freq": "-p N says where it is every N steps",
    "--no-cuda": "--gpu -1 computes on the CPU",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; imports nothing heavy, so that --help answers at once."""
    parser = Parser(
        "Train and evaluate networks with SimAM, or another attention module.",
        REMOVED,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_data(parser.add_argument_group("data"))
    _add_model(parser.add_argument_group("model"))
    _add_optimisation(parser.add_argument_group("optimisation"))
    _add_schedule(parser.add_argument_group("schedule"))
    _add_runtime(parser.add_argument_group("runtime"))
    _add_output(parser.add_argument_group("output"))
    args = parser.parse_args(argv)
    if args.nesterov and (args.optimizer != "sgd" or not args.momentum):
        parser.error("--nesterov needs --optimizer sgd with a --momentum above 0")
    for option in ("sync_bn", "compile"):
        if args.parallel == "dp" and getattr(args, option):
            parser.error(f"--{option.replace('_', '-')} needs --parallel ddp, a process per GPU")
    if args.image_size is None and not args.evaluate:
        args.image_size = 224
    if args.data is None and not args.synthetic:
        parser.error("DATA, a folder with train/<class>/ and val/<class>/, is missing")
    return args


def _add_data(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("data", metavar="DATA", nargs="?", help="folder with train/<class>/ and val/<class>/")
    add_shared(group, "--workers")
    add(
        "-b",
        "--batch-size",
        type=number(int, 1),
        default=256,
        help="images per step, in total over the GPUs of this machine",
    )
    size = "pixels a side; 224, or with -e those of the checkpoint's training, where not given"
    add("--image-size", type=number(int, 32), help=size)
    add(
        "--image-backend",
        choices=("turbo", "pil"),
        help="decoder; turbo (faster) for training and pil for evaluation where not given",
    )
    add(
        "--skip-bad-images",
        action="store_true",
        help="train on the next image in place of one that can't be decoded",
    )
    add(
        "--auto-augment",
        choices=("imagenet", "ra", "ta_wide", "augmix"),
        help="torchvision's AutoAugment with the ImageNet policy, RandAugment, "
        "TrivialAugmentWide or AugMix, after crop and flip",
    )
    alpha = {"type": number(float, 0), "default": 0.0, "metavar": "ALPHA"}
    add("--mixup", **alpha, help="blend pairs of images, shares from Beta(ALPHA, ALPHA); 0: don't")
    add("--cutmix", **alpha, help="paste parts of images into others; with both, either by chance")
    add(
        "--class-names",
        metavar="FILE",
        help="names of the outputs of a checkpoint that does not say them, one a line",
    )
    add(
        "--subset-outputs",
        action="store_true",
        help="with -e: over the outputs alone that val/ has folders for, as for ImageNet-A and -R",
    )
    add(
        "--synthetic",
        action="store_true",
        help="random images, made once, to time the network alone; as many as DATA or ImageNet has",
    )


def _add_model(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-a", "--arch", default="resnet18", help="network; a wrong name lists all")
    add(
        "--attention-type",
        default="none",
        help="attention module, such as simam or se; a wrong name lists all",
    )
    add(
        "--attention-param",
        type=float,
        help="the module's setting: lambda for simam (the paper: 0.1), reduction for se; "
        "the module's own default where not given",
    )
    add(
        "--num-classes",
        type=number(int, 1),
        help="size of the classifier; the number of class folders where not given",
    )
    add(
        "--weights",
        metavar="FILE",
        help="start from these weights; a classifier of another size is made new",
    )
    add(
        "--resume",
        metavar="FILE",
        help="go on from this checkpoint; auto: from the run folder's, if any",
    )
    add(
        "--zero-init-residual",
        action="store_true",
        help="each residual branch starts at zero: the weights of its last norm",
    )


def _add_optimisation(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--lr", "--learning-rate", type=number(float, 0), default=0.1, help="initial learning rate")
    add("--optimizer", choices=("sgd", "adamw"), default="sgd", help="PyTorch's")
    add("--momentum", type=number(float, 0), default=0.9, help="of SGD")
    add("--nesterov", action="store_true", help="Nesterov's momentum, of SGD")
    add("--wd", "--weight-decay", type=number(float, 0), default=1e-4, help="weight decay")
    add("--no-wd-norm-bias", action="store_true", help="no weight decay for norms and biases")
    add("--label-smoothing", type=share, default=0.0, help="share of the target for all classes")
    add(
        "--clip-grad",
        type=number(float, 0, exclusive=True),
        metavar="NORM",
        help="scale the gradient down to this norm where it is larger",
    )
    add(
        "--accumulate",
        type=number(int, 1),
        default=1,
        metavar="N",
        help="batches of -b images that make one update",
    )
    add(
        "--ema",
        type=share,
        metavar="DECAY",
        help="keep a moving average of the weights, evaluate and save it too, and judge the best "
        "by it; with -e or --save-weights: take the file's average",
    )


def _add_schedule(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--epochs", type=number(int, 1), default=90, help="epochs in total")
    add(
        "--sched",
        choices=("step", "cosine"),
        default="step",
        help="a tenth every 30 epochs, or a cosine from the first epoch on",
    )
    add(
        "--cos-lr",
        dest="sched",
        action="store_const",
        const="cosine",
        default=argparse.SUPPRESS,
        help="the same as --sched cosine",
    )
    add("--warmup-epochs", type=number(int, 0), default=0, help="epochs of linear warm-up")


def _add_runtime(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--gpu",
        help="GPU numbers, such as 0,1,2,3; -1: the CPU (=-1,-1: in two processes); "
        "GPU 0, or else the CPU, where not given",
    )
    add(
        "--parallel",
        choices=("ddp", "dp"),
        default="ddp",
        help="several GPUs: a process each (ddp), or one process for all (dp), as the paper",
    )
    add("--dist-backend", choices=("nccl", "gloo"), help="the device's own where not given")
    add("--sync-bn", action="store_true", help="batch norm over all GPUs, not each its own")
    add("--amp", choices=("none", "bf16", "fp16"), default="none", help="mixed precision")
    add("--compile", action="store_true", help="compile the network with torch.compile")
    add("--seed", type=number(int, 0), help="make the run reproducible")
    add(
        "--profile",
        type=number(int, 1),
        metavar="N",
        help="show where the time of N training steps goes, and write a trace to the run folder",
    )
    add(
        "-p",
        "--print-freq",
        type=number(int, 1),
        default=10,
        help="steps between lines",
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--ckpt", metavar="ROOT", default="ckpts", help="where the run folder is made")
    add(
        "--save-every-minutes",
        type=number(float, 0, exclusive=True),
        metavar="M",
        help="save within epochs too, for machines that die without a warning",
    )
    add("-e", "--evaluate", action="store_true", help="evaluate on val/ and write nothing")
    add(
        "--save-weights",
        metavar="FILE",
        help="write the bare weights of --resume or --weights, on the CPU, and exit",
    )
