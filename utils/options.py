"""The options of main_imagenet.py."""

import argparse

from .cli import Parser, number


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; imports nothing heavy, so that --help answers at once."""
    parser = Parser(
        description="Train and evaluate networks with SimAM, or another attention module.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("data").add_argument
    add("data", metavar="DATA", nargs="?", help="folder with train/<class>/ and val/<class>/")
    add("-j", "--workers", type=number(int, 0), default=4, help="processes that load images")
    add(
        "-b",
        "--batch-size",
        "--batch_size",
        type=number(int, 1),
        default=256,
        help="images per step, in total over the GPUs of this machine",
    )
    add("--image-size", "--image_size", type=number(int, 32), default=224, help="pixels a side")
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
        "--synthetic",
        action="store_true",
        help="random images, made once, to time the network alone; as many as DATA or ImageNet has",
    )

    add = parser.add_argument_group("model").add_argument
    add("-a", "--arch", default="resnet18", help="network; a wrong name lists all")
    add(
        "--attention-type",
        "--attention_type",
        default="none",
        help="attention module, such as simam or se; a wrong name lists all",
    )
    add(
        "--attention-param",
        "--attention_param",
        type=float,
        help="the module's setting: lambda for simam (the paper: 0.1), reduction for se; "
        "the module's own default where not given",
    )
    add(
        "--num-classes",
        "--num_classes",
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

    add = parser.add_argument_group("optimisation").add_argument
    add("--lr", "--learning-rate", type=number(float, 0), default=0.1, help="initial learning rate")
    add("--momentum", type=number(float, 0), default=0.9, help="of SGD")
    add("--wd", "--weight-decay", type=number(float, 0), default=1e-4, help="weight decay")

    add = parser.add_argument_group("schedule").add_argument
    add("--epochs", type=number(int, 1), default=90, help="epochs in total")
    add(
        "--cos-lr",
        "--cos_lr",
        action="store_true",
        help="cosine from the first epoch on, instead of a tenth every 30 epochs",
    )
    add("--warmup-epochs", type=number(int, 0), default=0, help="epochs of linear warm-up")

    add = parser.add_argument_group("runtime").add_argument
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
    add("--sync-bn", action="store_true", help="batch norm over all GPUs, not each its own")
    add("--amp", choices=("none", "bf16", "fp16"), default="none", help="mixed precision")
    add("--compile", action="store_true", help="compile the network with torch.compile")
    add("--seed", type=number(int, 0), help="make the run reproducible")
    add(
        "-p",
        "--print-freq",
        "--print_freq",
        type=number(int, 1),
        default=10,
        help="steps between lines",
    )

    add = parser.add_argument_group("runtime, as published (or torchrun)").add_argument
    mpd = ("--multiprocessing-distributed", "--multiprocessing_distributed")
    add(*mpd, action="store_true", help="a process for each GPU in --gpu, or for all there are")
    add("--world-size", "--world_size", type=int, help="number of machines")
    add("--rank", type=int, help="number of this machine, from 0")
    add("--dist-url", "--dist_url", help="tcp://HOST:PORT of machine 0")
    add("--dist-backend", "--dist_backend", choices=("nccl", "gloo"), help="the device's own")

    add = parser.add_argument_group("output").add_argument
    add("--ckpt", metavar="ROOT", default="ckpts", help="where the run folder is made")
    add(
        "--save-every-minutes",
        "--save_every_minutes",
        type=number(float, 0, exclusive=True),
        metavar="M",
        help="save within epochs too, for machines that die without a warning",
    )
    add("-e", "--evaluate", action="store_true", help="evaluate on val/ and write nothing")
    add(
        "--save-weights",
        "--save_weights",
        metavar="FILE",
        help="write the bare weights of --resume or --weights, on the CPU, and exit",
    )
    args = parser.parse_args(argv)
    if args.data is None and not args.synthetic:
        parser.error("DATA, a folder with train/<class>/ and val/<class>/, is missing")
    return args
