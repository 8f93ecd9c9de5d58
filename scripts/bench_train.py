"""Time training, evaluation and single images: this code, the published loop, and timm.

    python scripts/bench_train.py resnet18 mobilenet_v2
    python scripts/bench_train.py resnet50 --amp bf16 --device cuda --json train.json

Ours: what main_imagenet.py runs, with the attention and without. Published: the same network in
float32, contiguous, SimAM by its formula, in a plain loop that waits for the device in every step
to read the loss and the accuracies. timm: its network without attention in that loop, where timm
is installed and has it. Images are random and on the device already; ours normalises them there
in every step, the others get them normalised. Each contender is a process of its own; they take
turns, and a speed is the median ratio within a turn. One that fails, such as for its memory, is
named on standard error and left out, and the exit code is 1. `main_imagenet.py --synthetic
--profile N` shows where the time of a step goes.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.bench.options import add_networks, bench_parser
from utils.cli import number


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = bench_parser(__doc__)
    add_networks(parser)
    add = parser.add_argument
    add("--attention-type", default="simam", help="as for training")
    add("--attention-param", type=float, help="its setting, as for training")
    add("--amp", choices=("none", "bf16", "fp16"), default="none", help="ours, as for training")
    add("--compile", action="store_true", help="ours, as for training")
    add("--no-timm", action="store_true", help="no timm, whose memory the others need as well")
    add("--steps", type=number(int, 1), help="steps a round (CPU: 2, CUDA: 10)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from statistics import median

import torch

from scripts.bench.common import (
    Report,
    describe,
    device_of,
    rounded,
    seconds,
    speed,
    summary,
    take_turns,
)
from scripts.bench.loops import ANSWERS, BATCH, TASKS, Ours, Published, Timm
from scripts.bench.training import GPU, made_up
from utils.config import Config, Machine, Network
from utils.errors import UsageError
from utils.processes.dist import choose_device
from utils.processes.ending import exit_code

PLAIN = "ours, no attention"
STEPS = {"cpu": 2, "cuda": 10}


@dataclass(frozen=True)
class Contender:
    """What a process of its own runs; steps: of a turn."""

    loops: type[Published | Ours]
    config: Config
    steps: int

    def start(self) -> Published | Ours:
        return self.loops(self.config, self.steps)

    def turn(self, task: str) -> float:
        """Seconds a step, in the process that this is for."""
        steps = ANSWERS if task == "answer" else self.steps
        return seconds(work(self, task), choose_device(self.config.machine.gpu).type) / steps


def contenders_for(arch: str, args: argparse.Namespace) -> dict[str, Contender]:
    """Those that there are, by name; the others are compared with "published".

    Raises UsageError for an unknown network or attention, and a GPU that is not there.
    """
    device = device_of(args.device)
    attention = {"attention": args.attention_type, "attention_param": args.attention_param}
    network = Network(arch=arch, **attention)
    network.build()
    batch_size = args.batch_size or BATCH[device]
    machine = Machine(gpu=GPU[device], amp=args.amp, compile=args.compile)
    config = made_up(network, args.image_size, batch_size, machine)
    published = Contender(Published, config, args.steps or STEPS[device])
    found = {"published": published, "ours": replace(published, loops=Ours)}
    if network.attention != "none":
        plain = replace(config, network=Network(arch=arch))
        found[PLAIN] = replace(found["ours"], config=plain)
    if Timm.name_of(arch) and not args.no_timm:
        found["timm"] = replace(published, loops=Timm)
    return found


started = cache(Contender.start)


@cache
def work(contender: Contender, task: str) -> Callable[[], None]:
    """A method of its loops; the last one's memory is given back, since all share a GPU."""
    torch.cuda.empty_cache()
    return getattr(started(contender), task)


def take_turn(process: ProcessPoolExecutor, contender: Contender, task: str) -> float:
    """The contender's `turn` in `process`, which ends if that fails; UsageError for its memory."""
    try:
        return process.submit(contender.turn, task).result()
    except Exception as error:
        process.shutdown()  # so that the others have its memory
        if isinstance(error, BrokenProcessPool | torch.OutOfMemoryError):
            raise UsageError("out of memory, or killed; -b takes less, as does --no-timm") from None
        raise


def bench_network(
    arch: str, contenders: Mapping[str, Contender], rounds: int, report: Report
) -> None:
    """A row per task and contender; what they are compared with is "published"."""
    with ExitStack() as end:
        # not forked: such a process would share what this one has allocated
        start = partial(ProcessPoolExecutor, 1, get_context("spawn"))
        processes = {name: end.enter_context(start()) for name in contenders}
        for process in processes.values():
            process.submit(device_of, None)  # so that all begin their imports now
        for task, title in TASKS.items():
            turns = {
                name: partial(take_turn, process, contenders[name], task)
                for name, process in processes.items()
            }
            times = take_turns(turns, rounds, partial(report.fail, arch))
            processes = {name: processes[name] for name in times}
            batch = 1 if task == "answer" else contenders["published"].config.data.batch_size
            rows = [
                {"network": arch, "task": title, "contender": name}
                | {"batch": batch, "images/s": rounded(batch / median(own))}
                | summary(own, times.get("published"))
                | {"speed / no attention": speed(own, times.get(PLAIN))}
                for name, own in times.items()
            ]
            report.add("rows", rows)


def bench(args: argparse.Namespace) -> int:
    # a wrong name is found before anything is measured
    networks = {arch: contenders_for(arch, args) for arch in args.archs}
    options = {name: value for name, value in vars(args).items() if name != "json"}
    report = Report(describe(device_of(args.device)) | options, args.json)
    for arch, contenders in networks.items():
        bench_network(arch, contenders, args.rounds, report)
    return report.exit_code


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: bench(args))


if __name__ == "__main__":
    sys.exit(main())
