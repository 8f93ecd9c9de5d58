"""Time training, evaluation and single images: this code, the published loop, and timm.

    python scripts/bench_train.py resnet18 mobilenet_v2
    python scripts/bench_train.py resnet50 --amp bf16 --device cuda --json train.json

Ours: what main_imagenet.py runs, with the attention and without. Published: the same network in
float32, contiguous, SimAM by its formula, in a plain loop that waits for the device in every step
to read the loss and the accuracies. timm: its network without attention in that loop, where timm
is installed and has it. Images are random and on the device already; ours normalises them there
in every step, the others get them normalised. Each contender is a process of its own; they take
turns, and a speed is the median ratio within a turn. One that fails, such as for its memory, is
named on standard error and left out, and the exit code is 1. The parts of a step: waiting for the
batch, forward, backward, optimizer; "other" is the loss and the accuracies.
"""

import argparse
import importlib.util
import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from networks import create_model
from scripts.bench.common import (
    Report,
    describe,
    milliseconds,
    parse_bench,
    seconds,
    summary,
    take_turns,
    with_formula,
)
from scripts.bench.stopwatch import PARTS, Stopwatch, Watched, split
from utils.cli import Parser, exit_code, number
from utils.data.loader import EvalBatches, SyntheticLoader
from utils.data.seed import seed_all
from utils.errors import UsageError, reason
from utils.processes.dist import Dist
from utils.processes.memory import keep_freed_memory
from utils.report.tables import table
from utils.training.engine import DTYPES, Precision, evaluate, train_one_epoch
from utils.training.metrics import Totals, correct_at
from utils.training.optim import make_optimizer

# evaluation first: it is timed as in a process that only evaluates, with no training's memory
TASKS = {"evaluate": "evaluation", "answer": "one image", "train": "training"}
PLAIN = "ours, no attention"
TO_PLAIN = "ratio to no attention"
CLASSES, LR, ANSWERS = 1000, 1e-4, 10
# what fills the device without taking minutes
BATCH = {"cpu": 16, "cuda": 256}
STEPS = {"cpu": 2, "cuda": 10}
TIMM = {"mobilenet_v2": "mobilenetv2_100"}  # where timm has another name


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("archs", metavar="ARCH", nargs="+", help="networks; a wrong name lists all")
    add("--attention-type", default="simam", help="as for training (default: simam)")
    add("--attention-param", type=float, help="its setting, as for training")
    add("-b", "--batch-size", type=number(int, 2), help="images a step (CPU: 16, CUDA: 256)")
    add("--image-size", type=number(int, 32), default=224, help="pixels a side (default: 224)")
    add("--amp", choices=tuple(DTYPES), default="none", help="ours, as for training")
    add("--compile", action="store_true", help="ours, as for training")
    add("--contiguous", action="store_true", help="our weights and images not channels-last")
    add("--no-timm", action="store_true", help="no timm, whose memory the others need as well")
    add("--steps", type=number(int, 1), help="steps a round (CPU: 2, CUDA: 10)")
    add("--rounds", type=number(int, 2), default=7, help="measured turns of each (default: 7)")
    args = parse_bench(parser, argv)
    args.batch_size = args.batch_size or BATCH[args.device]
    args.steps = args.steps or STEPS[args.device]
    return args


class Turn(NamedTuple):
    """What one turn took: seconds, in all and by part, and peak memory in bytes."""

    seconds: float
    parts: dict[str, float]
    peak: int


class Plain:
    """The published loops around `net`: float32, and a wait for the device in every step."""

    def __init__(self, net: nn.Module, args: argparse.Namespace):
        self.device = torch.device(args.device)
        self.watch = Stopwatch(args.device)
        self.net = Watched(net.to(self.device), self.watch)
        self.optimizer = self.optimizer_of(net)
        self.optimizer.register_step_pre_hook(lambda *_: self.watch.begin("optimizer"))
        self.optimizer.register_step_post_hook(lambda *_: self.watch.begin("other"))
        self.batches = self.prepare(args, args.batch_size, args.steps)
        (self.image, _), *_ = self.prepare(args, 1, 1)

    def prepare(self, args: argparse.Namespace, batch_size: int, steps: int) -> Iterable:
        """`steps` batches as the loops get them."""
        once = EvalBatches(batch_size, batch_size)
        images = SyntheticLoader(once, args.image_size, CLASSES, self.device, torch.float32)
        return [(image.contiguous(), target) for image, target in images] * steps

    def optimizer_of(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(net.parameters(), LR, momentum=0.9, weight_decay=1e-4)

    def read(self, loss: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> None:
        """What the published loops show of a step, which waits for the device."""
        loss.item(), correct_at(logits, targets, 1).item(), correct_at(logits, targets, 5).item()

    def train(self) -> None:
        self.net.train()
        for images, targets in self.watch.batches(self.batches):
            logits = self.net(images)
            loss = F.cross_entropy(logits, targets)
            self.read(loss, logits, targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    @torch.no_grad()
    def evaluate(self) -> None:
        self.net.eval()
        for images, targets in self.batches:
            logits = self.net(images)
            self.read(F.cross_entropy(logits, targets), logits, targets)

    @torch.no_grad()
    def answer(self) -> None:
        """The classes of ANSWERS images, one after another."""
        self.net.eval()
        for _ in range(ANSWERS):
            self.net(self.image).argmax().item()


class Ours(Plain):
    """What main_imagenet.py runs around `net`."""

    def __init__(self, net: nn.Module, args: argparse.Namespace):
        self.dist = Dist(0, 1, torch.device(args.device))
        keep_freed_memory()
        self.precision = Precision(args.device, DTYPES[args.amp])
        self.scaler = self.precision.scaler()
        if not args.contiguous:
            self.dist.place(net)
        if args.compile:
            net.compile(dynamic=False)
        super().__init__(net, args)

    def optimizer_of(self, net: nn.Module) -> torch.optim.Optimizer:
        return make_optimizer(net, lr=LR)

    def prepare(self, args: argparse.Namespace, batch_size: int, steps: int) -> Iterable:
        batches = EvalBatches(steps * batch_size, batch_size)
        shape, dtype = (args.image_size, CLASSES), self.precision.input_dtype
        loader = SyntheticLoader(batches, *shape, self.device, dtype)
        if args.contiguous:
            loader.images = loader.images.contiguous()
        return loader

    def train(self) -> None:
        train_one_epoch(
            self.net,
            self.watch.batches(self.batches),
            self.optimizer,
            lambda step: LR,
            Totals.zero(self.device),
            self.dist,
            self.precision,
            self.scaler,
        )

    def evaluate(self) -> None:
        evaluate(self.net, self.batches, self.dist, self.precision)

    def answer(self) -> None:
        with self.precision.autocast():
            super().answer()


def network(name: str, arch: str, args: argparse.Namespace) -> nn.Module:
    """That of the contender `name`; raises UsageError for an unknown network or attention."""
    if name == "timm":
        import timm

        return timm.create_model(TIMM.get(arch, arch), num_classes=CLASSES)
    attention = ("none", None) if name == PLAIN else (args.attention_type, args.attention_param)
    try:
        net = create_model(arch, *attention, CLASSES)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return with_formula(net) if name == "published" else net


def names_for(arch: str, args: argparse.Namespace) -> list[str]:
    """The contenders that there are for `arch`; the first is what the others are compared with."""
    names = ["published", "ours"]
    if args.attention_type != "none":
        names.append(PLAIN)
    if not args.no_timm and importlib.util.find_spec("timm"):
        import timm

        if timm.is_model(TIMM.get(arch, arch)):
            names.append("timm")
    return names


def peak_memory(device: str) -> int:
    """Bytes: on a GPU what PyTorch allocated at most since last asked, on the CPU what this
    process ever had."""
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return peak
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def serve(name: str, arch: str, args: argparse.Namespace, pipe: Connection) -> None:
    """Be the contender `name`: for every task asked, answer with a `Turn`, or with what failed."""
    try:
        seed_all(0, deterministic=False)
        kind = Plain if name in ("published", "timm") else Ours
        contender, previous = kind(network(name, arch, args), args), None
        while task := pipe.recv():
            if task != previous and args.device == "cuda":
                torch.cuda.empty_cache()  # the last task's, which all contenders share a GPU for
            previous = task
            taken = seconds(getattr(contender, task), args.device)
            parts = split(contender.watch.take())
            pipe.send(Turn(taken, parts, peak_memory(args.device)))
    except torch.OutOfMemoryError:
        pipe.send("the GPU's memory is full; -b takes less, and so does --no-timm")
    except Exception as error:
        pipe.send(reason(error))


class Rival:
    """A contender in a process of its own, since its allocator and its memory are measured too."""

    def __init__(self, name: str, arch: str, args: argparse.Namespace):
        # not forked: such a process would begin with the peak of this one
        context = multiprocessing.get_context("spawn")
        self.name, self.turns = name, []
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(name, arch, args, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that its end is noticed

    def take_turn(self, task: str) -> float:
        """Seconds; the whole `Turn` goes to `turns`. Raises UsageError where it fails."""
        try:
            self.pipe.send(task)
            turn = self.pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise UsageError("was killed, for its memory? -b takes less") from None
        if isinstance(turn, str):
            raise UsageError(turn)
        self.turns.append(turn)
        return turn.seconds

    def end(self) -> None:
        with suppress(OSError):  # it may have ended by itself
            self.pipe.send(None)
        self.process.join()


def race_at(
    task: str,
    rivals: dict[str, Rival],
    args: argparse.Namespace,
    failed: Callable[[str, Exception], None],
) -> list[dict]:
    """A row for each contender at `task`, a method of `Plain`; `failed` as in `take_turns`."""
    batch, steps = (1, ANSWERS) if task == "answer" else (args.batch_size, args.steps)
    contenders = {name: partial(rival.take_turn, task) for name, rival in rivals.items()}
    rounds = take_turns(contenders, args.rounds, failed)
    times = {name: [whole / steps for whole in each] for name, each in rounds.items()}
    rows = []
    for name, own in times.items():
        row = {"task": TASKS[task], "contender": name, "batch": batch}
        row |= summary(own, times.get("published"))
        row["images_per_s"] = round(batch / median(own), 2)
        if PLAIN in times:
            row[TO_PLAIN] = summary(own, times[PLAIN])["ratio"]
        if task == "train":
            measured = rivals[name].turns[-args.rounds :]
            row["peak memory"] = measured[-1].peak
            row["parts"] = {
                part: round(1e3 * median(turn.parts[part] for turn in measured) / steps, 3)
                for part in PARTS
            }
        rows.append(row)
    return rows


def bench(arch: str, args: argparse.Namespace, report: Report) -> None:
    """The rows of one network, and what failed, into `report`."""
    rivals = {name: Rival(name, arch, args) for name in names_for(arch, args)}
    running = dict(rivals)

    def failed(name: str, error: Exception) -> None:
        del running[name]
        report.fail(f"{arch}, {name}: {error}")

    for task in TASKS:
        rows = race_at(task, dict(running), args, failed)
        report.add("rows", [{"network": arch, **row} for row in rows])
    for rival in rivals.values():
        rival.end()


COLUMNS = {
    "network": lambda row: row["network"],
    "contender": lambda row: row["contender"],
    "images/s": lambda row: f"{row['images_per_s']:.4g}",
    "ms a step (20 % - 80 %)": milliseconds,
    "speed / published": lambda row: f"{1 / row['ratio']:.3f}" if "ratio" in row else "",
    "speed / no attention": lambda row: f"{1 / row[TO_PLAIN]:.3f}" if TO_PLAIN in row else "",
}
TRAINING_COLUMNS = COLUMNS | {
    " + ".join(PARTS) + ", ms": lambda row: " + ".join(f"{row['parts'][p]:.3g}" for p in PARTS),
    "peak memory, MB": lambda row: round(row["peak memory"] / 1e6),
}


def bench_all(args: argparse.Namespace) -> int:
    for arch in args.archs:
        network("published", arch, args)  # a wrong name is found before anything is measured
    settings = {name: value for name, value in vars(args).items() if name != "json"}
    head = describe(args.device) | {"settings": settings}
    print(", ".join(f"{key} {value}" for key, value in head.items()), flush=True)
    report = Report(head, args.json)
    for arch in args.archs:
        bench(arch, args, report)
    for task in TASKS.values():
        rows = [row for row in report.rows("rows") if row["task"] == task]
        if rows:
            columns = TRAINING_COLUMNS if task == TASKS["train"] else COLUMNS
            print(f"\n{task}, batch {rows[0]['batch']}\n\n{table(rows, columns)}")
    return report.exit_code()


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: bench_all(args))


if __name__ == "__main__":
    sys.exit(main())
