"""What every attention module costs in whole networks, beside the network without one.

    python scripts/compare_attentions.py resnet18 resnet50 mobilenet_v2
    python scripts/compare_attentions.py resnet50 --device cuda --json attentions.json

prints a Markdown table with a row per module. FLOPs are the paper's count of the whole network,
which knows layers alone. Own operations and own traffic are what the modules add for one image:
the multiply-adds of their convolutions and matrix products and one operation for each element that
any other of PyTorch's operations reads or writes, and the bytes of all that these read and write
in float32; of SimAM by its formula. Kept: the memory that autograd keeps of a training step,
without the weights, relative to the plain network.

The times are those of what main_imagenet.py runs (on a GPU in bfloat16), with random images that
are on the device already: evaluation and training of a batch, and images one by one. The networks
take turns; a time is relative to that of the plain network in the same turn: the median, and
between which values 60 % of the turns lie. The JSON file has every number, times in ms too.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.bench.options import add_networks, bench_parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = bench_parser(__doc__)
    add_networks(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

from dataclasses import dataclass, replace
from operator import attrgetter
from statistics import median, quantiles

from networks import ATTENTIONS
from scripts.bench.common import Report, describe, device_of, race, rounded
from scripts.bench.costs import count_own
from scripts.bench.loops import ANSWERS, BATCH, TASKS, Ours
from scripts.bench.training import machine_for, made_up
from utils.config import Config, Network
from utils.processes.ending import exit_code
from utils.training.complexity import count_flops, count_parameters


@dataclass(frozen=True)
class Time:
    """ms: median. relative: to the plain network's in the same turn, median; low, high: of the
    turns, a fifth is below and a fifth above."""

    ms: float
    relative: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.relative:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Row:
    """A module in a network. flops, operations, moved: for one image, see above."""

    network: str
    attention: str
    extra_parameters: int
    flops: int
    operations: int
    moved: int
    kept: float
    evaluation: Time
    one_image: Time
    training: Time


COLUMNS = {
    "network": attrgetter("network"),
    "attention": attrgetter("attention"),
    "extra parameters": lambda row: f"{row.extra_parameters:,}",
    "FLOPs, G": lambda row: f"{row.flops / 1e9:.2f}",
    "own operations, M": lambda row: f"{row.operations / 1e6:.1f}",
    "own traffic, MB": lambda row: f"{row.moved / 1e6:.1f}",
    "kept": lambda row: f"{row.kept:.2f}",
    "evaluation": attrgetter("evaluation"),
    "one image": attrgetter("one_image"),
    "training": attrgetter("training"),
}


def time_of(own: list[float], plain: list[float], calls: int) -> Time:
    """A network's time beside the plain one's, of turns that hold so many calls."""
    ratios = [one / other for one, other in zip(own, plain, strict=True)]
    fifths = quantiles(ratios, n=5)
    numbers = 1e3 * median(own) / calls, median(ratios), fifths[0], fifths[-1]
    return Time(*map(rounded, numbers))


def bench_network(config: Config, device: str, rounds: int, report: Report) -> None:
    """A row per module in the network of `config`, which has none."""
    arch, image_size = config.network.arch, config.data.image_size
    loops = {
        name: Ours(replace(config, network=Network(arch=arch, attention=name)))
        for name in ATTENTIONS
    }
    plain = loops["none"]
    keeps = {name: each.kept() for name, each in loops.items()}
    times = {}
    for task in TASKS:
        calls = {name: getattr(each, task) for name, each in loops.items()}
        taken = race(calls, device, rounds)
        answers = ANSWERS if task == "answer" else 1
        times[task] = {name: time_of(own, taken["none"], answers) for name, own in taken.items()}
    rows = []
    for name, each in loops.items():
        own = count_own(each.net, ATTENTIONS[name].module, each.image.float())
        rows.append(
            Row(
                network=arch,
                attention=name,
                extra_parameters=count_parameters(each.net) - count_parameters(plain.net),
                flops=count_flops(each.net, image_size),
                operations=own.arithmetic,
                moved=own.moved,
                kept=rounded(keeps[name] / keeps["none"]),
                evaluation=times["evaluate"][name],
                one_image=times["answer"][name],
                training=times["train"][name],
            )
        )
    report.add("rows", rows, COLUMNS)


def bench(args: argparse.Namespace) -> int:
    device = device_of(args.device)
    batch_size = args.batch_size or BATCH[device]
    networks = [Network(arch=arch) for arch in args.archs]
    for network in networks:
        network.build()  # a wrong name is found before anything is measured
    about = {"batch": batch_size, "image size": args.image_size, "rounds": args.rounds}
    report = Report(describe(device) | about, args.json)
    for network in networks:
        config = made_up(network, args.image_size, batch_size, machine_for(device))
        bench_network(config, device, args.rounds, report)
    return report.exit_code


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: bench(args))


if __name__ == "__main__":
    sys.exit(main())
