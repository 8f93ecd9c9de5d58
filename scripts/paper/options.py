"""The options of every command that trains by the paper's CIFAR recipe; imports nothing heavy."""

from utils.cli import Parser, add_gpu, number
from utils.options import LOGGERS

ITERATIONS = 64_000  # the paper's


def add_recipe(parser: Parser) -> None:
    """Give `parser` the options that `recipe` and `read_images` of scripts/train_cifar.py read."""
    add = parser.add_argument_group("data").add_argument
    add("--dataset", choices=("cifar10", "cifar100"), default="cifar10")
    add("--root", default="data", help="folder of torchvision's files")
    add("--download", action="store_true", help="let torchvision get them where they are missing")
    add("--data-dir", metavar="FOLDER", help="32x32 images in train/<class>/ and val/<class>/")
    group = parser.add_argument_group("runs")
    add_gpu(group)
    add = group.add_argument
    add("--iterations", type=number(int, 1), default=ITERATIONS, help="the schedule's length")
    add("--amp", choices=("none", "bf16", "fp16"), default="none", help="mixed precision")
    compiles = "torch.compile, and on a GPU a whole step is recorded and replayed"
    add("--compile", action="store_true", help=compiles)
    several = "seeds at once, each on a stream of its own, spread over the GPUs of --gpu, or all"
    add("--concurrent", type=number(int, 1), default=1, metavar="K", help=several)
    often = "epochs from one evaluation, line and save to the next"
    add("--eval-every", type=number(int, 1), default=1, metavar="N", help=often)
    add("-p", "--print-freq", type=number(int, 1), default=100, help="steps between lines")
    add("--logger", choices=LOGGERS, help="log to a tracker, too")
    add("--ckpt", metavar="ROOT", default="ckpts", help="where the run folders are made")
