"""The options of main_imagenet.py: most are fields of what a run is told, with their defaults.

Imports nothing heavy, so that --help answers at once.
"""

import argparse
from dataclasses import dataclass, field, fields
from typing import Any

from .cli import WORKERS, Parser, number, share

ABOUT = """Train and evaluate networks with SimAM, or another attention module.

    python main_imagenet.py DATA -a resnet18 --attention-type simam --attention-param 0.1
    python main_imagenet.py DATA -a resnet18 --attention-type simam --attention-param 0.1 \\
        --resume auto
    python main_imagenet.py DATA -a resnet18 --attention-type simam --attention-param 0.1 \\
        -e --resume ckpts/imagenet-resnet18-simam-param0.1/model_best.pth.tar
    python main_imagenet.py --list
"""
COUNT, SIDE, RATE = number(int, 1), number(int, 32), number(float, 0)
POSITIVE = number(float, 0, exclusive=True)
LOGGERS = ("wandb", "mlflow", "trackio")

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


def option(default: Any, help: str, *names: str, **settings: Any) -> Any:
    """A dataclass field that is an option, too; a switch where it is False.

    names: of the option, besides the field's own. settings: others of argparse's `add_argument`.
    """
    return field(default=default, metadata={"names": names, "help": help, **settings})


def add_fields(group: argparse._ArgumentGroup, kind: type) -> None:
    """Give `group` the options among the fields of the dataclass `kind`."""
    for each in fields(kind):
        if each.metadata:
            settings = {"dest": each.name, "default": each.default, **each.metadata}
            own = f"--{each.name.replace('_', '-')}"
            names = sorted([own, *settings.pop("names")], key=len)
            if each.default is False:
                settings["action"] = "store_true"
            group.add_argument(*names, **settings)


def read_fields(kind: type, args: argparse.Namespace, **others: Any) -> Any:
    """A `kind` with what `args` say of the options among its fields, and with `others`."""
    said = {each.name: getattr(args, each.name) for each in fields(kind) if each.metadata}
    return kind(**said, **others)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which images, and how they become batches.

    root: folder with train/<class>/ and val/<class>/. batch_size and workers count per node.
    image_size: None, for an evaluation, is that of the checkpoint's training.
    """

    root: str | None = None
    workers: int = option(WORKERS, "processes that load images", "-j", type=number(int, 0))
    batch_size: int = option(256, "images per step, over all GPUs of a machine", "-b", type=COUNT)
    image_size: int | None = option(
        224, "pixels a side; 224, or with -e as the checkpoint was trained, by default", type=SIDE
    )
    image_backend: str | None = option(
        None, "decoder; turbo for training, pil for evaluation by default", choices=("turbo", "pil")
    )
    skip_bad_images: bool = option(False, "train on the next image where one can't be decoded")
    crop_scale: float = option(
        0.08, "share of an image that a random crop has at least", type=number(float, 0, high=1)
    )
    hflip: float = option(0.5, "probability of a flip, 0 for none", type=number(float, 0, high=1))
    auto_augment: str | None = option(
        None,
        "torchvision's AutoAugment, RandAugment, TrivialAugmentWide or AugMix, after crop and flip",
        choices=("imagenet", "ra", "ta_wide", "augmix"),
    )
    mixup: float = option(
        0.0, "blend pairs of images, shares from Beta(ALPHA, ALPHA)", type=RATE, metavar="ALPHA"
    )
    cutmix: float = option(
        0.0, "paste parts of others; with both, either by chance", type=RATE, metavar="ALPHA"
    )
    class_names: str | None = option(
        None,
        "names, one a line, of classes that archives number, of outputs not named",
        metavar="FILE",
    )
    subset_outputs: bool = option(
        False, "with -e: over the outputs alone that val/ has folders for, as for ImageNet-A and -R"
    )
    synthetic: bool = option(
        False,
        "random images, made once, to time the network alone; as many as DATA or ImageNet has",
    )


@dataclass(frozen=True, kw_only=True)
class Optim:
    """What a step does, and for how long; the defaults are the published ones.

    sched: also "iterations", the paper's CIFAR schedule over so many `iterations`, see `lr_at`.
    """

    optimizer: str = option("sgd", "PyTorch's", choices=("sgd", "adamw"))
    lr: float = option(
        0.1, "initial learning rate; 0.1 for sgd, 0.001 for adamw", "--learning-rate", type=RATE
    )
    freeze: str | None = option(
        None,
        "modules whose weights and batch statistics stay, such as conv1,bn1,layer1; backbone: all "
        "but the classifier",
        metavar="NAMES",
    )
    backbone_lr: float | None = option(
        None, "times the learning rate, for all but the classifier", type=RATE, metavar="FACTOR"
    )
    momentum: float = option(0.9, "of SGD", type=RATE)
    nesterov: bool = option(False, "Nesterov's momentum, of SGD")
    weight_decay: float = option(1e-4, "shrinks the weights", "--wd", type=RATE)
    no_wd_norm_bias: bool = option(False, "no weight decay for norms and biases")
    label_smoothing: float = option(0.0, "share of the target for all classes", type=share)
    clip_grad: float | None = option(
        None, "scale a larger gradient down to this norm", type=POSITIVE, metavar="NORM"
    )
    accumulate: int = option(1, "batches of -b images for an update", type=COUNT, metavar="N")
    ema: float | None = option(
        None,
        "keep a moving average of the weights, evaluate and save it too, and judge the best by it; "
        "with -e or --save-weights: take the file's average",
        type=share,
        metavar="DECAY",
    )
    epochs: int = option(90, "epochs in total", type=COUNT)
    sched: str = option("step", "a tenth every 30 epochs, or a cosine", choices=("step", "cosine"))
    warmup_epochs: int = option(0, "epochs of linear warm-up", type=number(int, 0))
    iterations: int | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an evaluation says besides its accuracy."""

    tta: bool = option(
        False, "with -e: test-time augmentation, the mean logits of an image and its mirror image"
    )
    top: int | None = option(None, "with -e: say Acc@K, too", type=COUNT, metavar="K")
    report: str | None = option(
        None,
        "with -e: accuracy by class (.csv), also confusions (.json), or a confusion matrix (.png)",
        metavar="FILE",
    )
    worst: int | None = option(
        None, "with -e: worst.png shows N wrong answers, the surest", type=COUNT, metavar="N"
    )
    real_labels: str | None = option(
        None, "with -e: say the accuracy by several right answers an image", metavar="REAL.JSON"
    )

    @property
    def by_image(self) -> bool:
        """Whether it says what needs every image's answer."""
        return any((self.top, self.report, self.worst, self.real_labels))


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a run computes and what it says; nothing here changes what is learnt, but rounding.

    gpu, parallel, dist_backend: see `utils.processes.dist.start`. seed: None draws one.
    eval_every: epochs from one evaluation, log and save to the next. record: see `Learner`.
    """

    gpu: str | None = option(
        None, "such as 0,1,2,3; -1: the CPU (=-1,-1: twice); GPU 0, or else the CPU, by default"
    )
    parallel: str = option(
        "ddp", "a process for each GPU, or one for all, as the paper", choices=("ddp", "dp")
    )
    dist_backend: str | None = option(None, "the device's own by default", choices=("nccl", "gloo"))
    sync_bn: bool = option(False, "batch norm over all GPUs, not each its own")
    amp: str = option("none", "mixed precision", choices=("none", "bf16", "fp16"))
    compile: bool = option(False, "compile the network with torch.compile")
    seed: int | None = option(None, "make the run reproducible", type=number(int, 0))
    profile: int | None = option(
        None,
        "show where the time of N steps goes; the run folder has a trace",
        type=COUNT,
        metavar="N",
    )
    print_freq: int = option(10, "steps between lines", "-p", type=COUNT)
    save_every_minutes: float | None = option(
        None, "save within epochs, too, for machines that may die", type=POSITIVE, metavar="M"
    )
    logger: str | None = option(
        None,
        "log to a tracker, too; nothing leaves the machine unless its own settings say so",
        choices=LOGGERS,
    )
    eval_every: int = 1
    record: bool = False


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(ABOUT, REMOVED)
    _add_run(parser)
    _add_network(parser.add_argument_group("network"))
    add_fields(parser.add_argument_group("data"), Data)
    optimisation = parser.add_argument_group("optimisation")
    add_fields(optimisation, Optim)
    optimisation.add_argument(
        "--cos-lr",
        dest="sched",
        action="store_const",
        const="cosine",
        default=argparse.SUPPRESS,
        help="the same as --sched cosine",
    )
    add_fields(parser.add_argument_group("report"), Report)
    add_fields(parser.add_argument_group("machine"), Machine)
    parser.set_defaults(image_size=None, lr=None)
    args = parser.parse_args(argv)
    if args.lr is None:
        args.lr = 1e-3 if args.optimizer == "adamw" else Optim.lr
    if args.nesterov and (args.optimizer != "sgd" or not args.momentum):
        parser.error("--nesterov needs --optimizer sgd with a --momentum above 0")
    for name in ("sync_bn", "compile"):
        if args.parallel == "dp" and getattr(args, name):
            parser.error(f"--{name.replace('_', '-')} needs --parallel ddp, a process per GPU")
    if read_fields(Report, args) != Report() and (args.synthetic or not args.evaluate):
        parser.error("--tta, --top, --report, --worst and --real-labels need -e, and real images")
    if args.real_labels and args.subset_outputs:
        parser.error("--real-labels are of all outputs, --subset-outputs leaves some out")
    if args.image_size is None and not args.evaluate:
        args.image_size = Data.image_size
    if args.data is None and not (args.synthetic or args.list):
        parser.error("DATA, a folder with train/<class>/ and val/<class>/, is missing")
    return args


def _add_run(parser: Parser) -> None:
    """What is done, from which files and to which."""
    add = parser.add_argument
    add("data", metavar="DATA", nargs="?", help="folder with train/<class>/ and val/<class>/")
    add("-e", "--evaluate", action="store_true", help="evaluate on val/ and write nothing")
    add("--resume", metavar="FILE", help="checkpoint to go on from; auto: the run folder's, if any")
    start = "weights to start from; a classifier of another size is made new"
    add("--weights", metavar="FILE", help=start)
    write = "write the bare weights of --resume or --weights, on the CPU, and exit"
    add("--save-weights", metavar="FILE", help=write)
    add("--ckpt", metavar="ROOT", default="ckpts", help="where the run folder is made")
    add("--name", help="of the run folder; network and seed, where not given")


def _add_network(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--list", action="store_true", help="list the networks and attention modules, and exit")
    add("-a", "--arch", default="resnet18", help="network; --list lists all")
    add("--attention-type", default="none", help="such as simam or se; --list lists all")
    add(
        "--attention-param",
        type=float,
        help="the module's setting: lambda of simam (the paper: 0.1), reduction of se",
    )
    add("--num-classes", type=COUNT, help="outputs; as many as class folders where not given")
    zero = "each residual branch starts at zero: the weights of its last norm"
    add("--zero-init-residual", action="store_true", help=zero)
