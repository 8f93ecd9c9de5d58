"""The steps of the report, what matters most first."""

from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

from scripts.gpu_report.runner import JSON, Step

KERNEL_TESTS = [
    f"tests/networks/test_{name}.py" for name in ("simam", "simam_triton", "fused_triton")
]
OTHER_TESTS = [
    *(f"tests/training/test_{name}.py" for name in ("metrics", "engine")),
    *(f"tests/data/test_{name}.py" for name in ("loader", "normalise")),
    "tests/processes/test_dist.py",
    "tests/test_recording.py",
]
# the paper's row and what it is compared with first
FIRST, LATER = "none,simam", "se,cbam,eca,gc"


class Place(NamedTuple):
    """What is measured, on `device`, "cuda" or "cpu", and where: a folder for what is passing."""

    device: str
    work: Path
    cifar: str | None

    @property
    def runs(self) -> Path:
        return self.work / "runs"

    @property
    def images(self) -> Path:
        """CIFAR's folder, whose name the runs bear."""
        unpacked = self.work / "cifar10-jpeg"
        return Path(self.cifar) if Path(self.cifar).is_dir() else unpacked


def module(name: str, *words: str) -> tuple[str, ...]:
    return "-m", f"scripts.gpu_report.{name}", *words


def tests(name: str, *words: str) -> Step:
    """Those that need a GPU."""
    return Step(name, 60, ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *words))


def checks(place: Place, name: str, seconds: float, *which: str) -> Step:
    """Some checks of the commands, in a process of their own."""
    words = place.device, str(place.work / name), JSON
    return Step(name, seconds, module("checks", *words, *(which or (name,))))


def table2(place: Place) -> Iterator[list[Step]]:
    """The paper's ResNet-20, its whole schedule, as far as it comes, and Table 2 of that."""
    where = "--data-dir", str(place.images.absolute()), "--ckpt", str(place.runs)
    train = "scripts/train_cifar.py", *where, "--attentions"
    if place.device == "cuda":
        seeds, short = ("--seeds", "1,2,3,4,5"), ()
        # in one call both networks with three seeds, rather than one of them with all
        more = *seeds, "--concurrent", "3", "--compile", "--eval-every", "20"
        yield [Step("table2", inf, (*train, FIRST, *more))]
        yield [Step("table2_others", inf, (*train, LATER, *more))]
    else:
        seeds, short = ("--seeds", "1"), ("--iterations", "1")
        yield [Step("table2", inf, (*train, FIRST, *seeds, *short, "--gpu", "-1"))]
    names = "--archs", "cifar_resnet20", "--attentions", f"{FIRST},{LATER}"
    out = "--out", str(place.work / "table2_so_far")
    so_far = "scripts/reproduce.py", "table2", *where, *names, *seeds, *short, *out
    yield [Step("table2_so_far", 10, so_far)]


def longest(group: Sequence[Step]) -> float:
    """The seconds that the steps may take, of those that have a limit."""
    return max((step.seconds for step in group if step.seconds < inf), default=0)


def plan(place: Place) -> Iterator[list[Step]]:
    """Groups of steps; those of one run at the same time. On the CPU a small part of each kind."""
    cuda = place.device == "cuda"
    commands = ["resume", "evaluate", "precision", "memory", "group"]
    correct = [checks(place, "commands", 60, *commands), checks(place, "processes", 60)]
    if cuda:
        correct += [
            tests("kernel_tests", "-n", "8", *KERNEL_TESTS),
            tests("other_tests", "-n", "8", *OTHER_TESTS),
            checks(place, "compiled", 60),
        ]
    else:
        correct += [tests("kernel_tests", KERNEL_TESTS[0])]
    if place.cifar and not Path(place.cifar).is_dir():
        correct += [Step("unpack", 60, module("runs", place.cifar, str(place.images)))]
    yield correct
    if cuda:
        yield [checks(place, "full", 10)]
    yield from speed(place)
    if place.cifar:
        yield from table2(place)
    if cuda:
        yield [Step("traffic", 10, module("traffic", JSON))]


def speed(place: Place) -> Iterator[list[Step]]:
    """One at a time, since they are timed."""
    cuda = place.device == "cuda"
    device = "--device", place.device, "--json", JSON
    bench = "scripts/bench_simam.py", *device
    if cuda:
        for part, seconds in (("networks", 36), ("layers", 22), ("blocks", 25)):
            yield [Step(part, seconds, (*bench, "--only", part))]
    else:
        yield [Step("simam", 40, (*bench, "--smallest"))]
    train = "scripts/bench_train.py", *device, "--amp", "bf16", "--steps", "5", "--rounds", "3"
    if cuda:  # 64 images: all have room beside each other, timm's network as well
        yield [Step("training", 30, (*train, "-b", "64", "resnet50"))]
    yield [Step("loading", 15, module("loading", place.device, str(place.work / "jpegs"), JSON))]
    yield [Step("cifar", 12, module("cifar", place.device, JSON))]
    if cuda and not place.cifar:  # else Table 2 takes its time
        words = *train, "--compile", "--no-timm", "resnet18"
        yield [Step("compiled_training", 60, words)]
        compare = "scripts/compare_attentions.py", *device, "-b", "64", "--rounds", "3"
        yield [Step("attentions", 90, (*compare, "resnet50"))]
