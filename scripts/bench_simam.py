"""Time SimAM: by its formula, compiled, as an operator, and as one with norm and ReLU.

    python scripts/bench_simam.py                    on the GPU if there is one, else on the CPU
    python scripts/bench_simam.py --device cpu --only layers --json layers.json

Layers: SimAM, at the shapes of ResNet-18 and -50, MobileNetV2 and detection; the bytes that stay
for the backward pass; and the rate at which the unavoidable traffic passes (forward: read x, write
y; backward: read x and g, write dx) beside the rate of a plain copy. Blocks: SimAM, batch norm and
ReLU6, channels-last, beside norm and ReLU6 alone. Both in forward (evaluation) and
forward+backward (training). Networks: a training and an evaluation step with all these, beside the
network without attention, and what a training step costs in memory and in the CPU's time to start.
The contenders take turns, and a ratio is the median over the turns of the ratio within a turn.
Every contender is first checked against the formula in float64; one that is wrong, or fails, is
named on standard error and left out, and the exit code is 1. On a GPU the times are the device's
own, and with OMP_NUM_THREADS=1 the CPU's, which other work on the machine disturbs less. On the CPU
freed memory is kept for networks, as training keeps it, and so for what is timed after them: --only
layers times these as any process would run them.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.bench.options import bench_parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = bench_parser(__doc__)
    parts = ("layers", "blocks", "networks")
    parser.add_argument("--only", choices=parts, help="all three where not given")
    parser.add_argument("--smallest", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

import copy
import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from statistics import median

import torch
from torch import nn

from networks.attentions import FUSED, SimAM, simam_norm_act
from scripts.bench.common import (
    LAYOUTS,
    Report,
    describe,
    device_of,
    race,
    rounded,
    summary,
    with_formula,
    with_operator,
)
from scripts.bench.costs import kept_for_backward
from scripts.bench.loops import Ours
from scripts.bench.training import machine_for, made_up
from utils.config import Network
from utils.errors import UsageError
from utils.processes.ending import exit_code

E_LAMBDA = 0.1
# calls that a GPU gets at once: enough for it to be busy, few enough for its queue of 1024 kernels
QUEUED = 10
MAPS = ((64, 56, 56), (32, 112, 112), (128, 28, 28), (256, 14, 14), (512, 7, 7))
BLOCKS = ((32, 112, 112), (64, 56, 56), (144, 56, 56), (192, 28, 28), (576, 14, 14), (960, 7, 7))
# Mask R-CNN's at two scales of its images, and YOLO's three
DETECTION = (
    *((2, 64, 200, 336), (2, 256, 50, 84)),
    *((16, 128, 80, 80), (16, 256, 40, 40), (16, 512, 20, 20)),
)
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is measured: by default what fills two cores of a CPU, in a few minutes.

    What matters most comes first, in case the time runs out. networks: with their batch sizes.
    others: attentions beside SimAM. layers: whole shapes. blocks: those of one image. compiled: for
    which torch.compile takes part; for all it would take minutes on a GPU.
    """

    networks: tuple[tuple[str, int], ...] = (("resnet18", 16), ("mobilenet_v2", 16))
    others: tuple[str, ...] = ()
    image_size: int = 224
    blocks: tuple[tuple[int, ...], ...] = BLOCKS
    block_batch: int = 16
    layers: tuple[tuple[int, ...], ...] = (*((32, *each) for each in MAPS), (2, 64, 200, 336))
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    compiled: tuple[tuple[torch.dtype, str], ...] = tuple((torch.float32, each) for each in LAYOUTS)
    rounds: int = 5


SIZES = {
    "cpu": Sizes(),
    "cuda": Sizes(
        networks=tuple(
            (arch, batch)
            for batch in (256, 64)
            for arch in ("resnet50", "resnet18", "mobilenet_v2")
        ),
        others=("se", "eca"),
        block_batch=256,
        layers=(*((256, *each) for each in MAPS), *DETECTION),
        dtypes=(torch.bfloat16, torch.float32, torch.float16),
        compiled=((torch.bfloat16, "channels-last"),),
        rounds=7,
    ),
}
SMALLEST = Sizes(
    networks=(("cifar_resnet20", 2),),
    others=("se",),
    image_size=32,
    blocks=((3, 5, 7),),
    block_batch=2,
    layers=((2, 3, 5, 7),),
    compiled=(),
    rounds=3,
)


class Block(nn.Module):
    """What a block of a network does behind a convolution."""

    def __init__(self, attention: nn.Module, channels: int):
        super().__init__()
        self.attention, self.norm, self.act = attention, nn.BatchNorm2d(channels), nn.ReLU6(True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return simam_norm_act(x, self.attention, self.norm, self.act)


def layers(compiled: bool) -> dict[str, nn.Module]:
    """SimAM's contenders; the first is what the others are compared with."""
    found = {"formula": with_formula(SimAM(E_LAMBDA)), "operator": SimAM(E_LAMBDA)}
    if compiled:
        found["compiled"] = torch.compile(SimAM(E_LAMBDA), fullgraph=True, dynamic=False)
    return found


def blocks(channels: int, compiled: bool) -> dict[str, nn.Module]:
    """The contenders of a whole block; the first is what the others are compared with."""
    block = partial(Block, channels=channels)
    found = {
        "no attention": block(nn.Identity()),
        "formula": block(with_formula(SimAM(E_LAMBDA))),
        "operator": block(with_operator(SimAM(E_LAMBDA))),
        "one operator": block(SimAM(E_LAMBDA)),
    }
    if compiled:
        found["compiled"] = torch.compile(block(SimAM(E_LAMBDA)), fullgraph=True, dynamic=False)
    return found


@torch.no_grad()
def forward(layer: nn.Module, x: torch.Tensor, _grad: torch.Tensor) -> torch.Tensor:
    return layer.eval()(x)


def differentiate(
    layer: nn.Module, x: torch.Tensor, grad: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """y, and dx for the gradient `grad` of y."""
    x = x.detach().requires_grad_()
    y = layer.train()(x)
    return y, torch.autograd.grad(y, x, grad)[0]


# and how many maps must be read and written
PASSES = {"forward": (forward, 2), "forward+backward": (differentiate, 5)}


def check(layer: nn.Module, reference: nn.Module, x: torch.Tensor, grad: torch.Tensor) -> float:
    """The largest error of output and gradient against the reference in float64; raises UsageError
    if too large."""
    found = [each.double() for each in differentiate(layer, x, grad)]
    exact = differentiate(copy.deepcopy(reference).double(), x.double(), grad.double())
    error = max((one - other).abs().max().item() for one, other in zip(found, exact, strict=True))
    if not error <= TOLERANCE[x.dtype]:
        raise UsageError(f"wrong by {error:g}")
    return error


def bench_layer(
    kind: str, contenders: dict[str, nn.Module], x: torch.Tensor, rounds: int, report: Report
) -> None:
    """A row per pass and contender for maps such as `x`."""
    torch.compiler.reset()
    layout = next(name for name, each in LAYOUTS.items() if x.is_contiguous(memory_format=each))
    shape, dtype = "x".join(map(str, x.shape)), str(x.dtype).removeprefix("torch.")
    failed = partial(report.fail, f"{shape}, {dtype}, {layout}")
    grad, target, facts = torch.randn_like(x), torch.empty_like(x), {}
    for name, layer in contenders.items():
        reference = contenders[name if name == "no attention" else "formula"]
        try:
            error = check(layer.to(x.device), reference.to(x.device), x, grad)
            maps = rounded(kept_for_backward(layer, x.detach().requires_grad_()) / x.nbytes)
            facts[name] = {"maps kept": maps, "max error": error}
        except Exception as error:
            failed(name, error)
    turns = x.device.type, rounds, QUEUED
    copying = race({"copy": partial(target.copy_, x)}, *turns)["copy"]
    for direction, (run, maps) in PASSES.items():
        calls = {name: partial(run, contenders[name], x, grad) for name in facts}
        times = race(calls, *turns, failed)
        rows = [
            {"maps": shape, "dtype": dtype, "layout": layout, "pass": direction, "SimAM": name}
            | summary(own, times.get(next(iter(contenders))))
            | {"GB/s": rounded(maps * x.nbytes / median(own) / 1e9)}
            | {"copy GB/s": rounded(2 * x.nbytes / median(copying) / 1e9)}
            | facts[name]
            for name, own in times.items()
        ]
        report.add(kind, rows)


def costs(loops: Ours) -> dict[str, float]:
    """Of a training step: ms until the CPU has started all of it, and GB that autograd keeps, and
    at most lie on the GPU besides what lay there before (0 on the CPU)."""
    cuda, moments = loops.dist.device.type == "cuda", []
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before, started = torch.cuda.memory_allocated(), time.perf_counter()
    loops.train(lambda *_: moments.append(time.perf_counter()))
    peak = torch.cuda.max_memory_allocated() - before
    gigabytes = {"kept GB": rounded(loops.kept() / 1e9), "peak GB": rounded(peak / 1e9)}
    return {"host ms": rounded(1e3 * (moments[0] - started))} | gigabytes


def bench_network(arch: str, batch_size: int, device: str, sizes: Sizes, report: Report) -> None:
    """A row per step and attention: what main_imagenet.py runs, on a GPU in bfloat16."""
    plain = made_up(Network(arch=arch), sizes.image_size, batch_size, machine_for(device))
    network = Network(arch=arch, attention="simam", attention_param=E_LAMBDA)
    attentive = replace(plain, network=network)
    loops = {"none": Ours(plain)}
    loops |= {name: Ours(attentive) for name in ("formula", "operator", "one operator")}
    with_formula(loops["formula"].net), with_operator(loops["operator"].net)
    for name in sizes.others:
        loops[name] = Ours(replace(plain, network=Network(arch=arch, attention=name)))
    for step, run in {"training": Ours.train, "evaluation": Ours.evaluate}.items():
        calls = {name: partial(run, each) for name, each in loops.items()}
        times = race(calls, device, sizes.rounds, failed=partial(report.fail, arch))
        rows = [
            {"network": arch, "batch": batch_size, "step": step, "attention": name}
            | summary(own, times.get("none"))
            for name, own in times.items()
        ]
        report.add("networks", rows)
    about = {"network": arch, "batch": batch_size}
    report.add("costs", [about | {"attention": name} | costs(loops[name]) for name in times])


def maps(shape: tuple[int, ...], device: str, dtype: torch.dtype, layout: str) -> torch.Tensor:
    return torch.randn(shape, device=device).to(dtype, memory_format=LAYOUTS[layout])


def bench(args: argparse.Namespace) -> int:
    device = device_of(args.device)
    sizes = SMALLEST if args.smallest else SIZES[device]
    FUSED.add(device)  # on a GPU it is to be measured before it is used
    report = Report(describe(device), args.json)
    parts = (args.only,) if args.only else ("networks", "blocks", "layers")
    if "networks" in parts:
        for arch, batch_size in sizes.networks:
            bench_network(arch, batch_size, device, sizes, report)
    if "blocks" in parts:
        for dtype, size in product(sizes.dtypes, sizes.blocks):
            x = maps((sizes.block_batch, *size), device, dtype, "channels-last")
            contenders = blocks(size[0], (dtype, "channels-last") in sizes.compiled)
            bench_layer("blocks", contenders, x, sizes.rounds, report)
    if "layers" in parts:
        for dtype, shape, layout in product(sizes.dtypes, sizes.layers, reversed(LAYOUTS)):
            x = maps(shape, device, dtype, layout)
            contenders = layers((dtype, layout) in sizes.compiled)
            bench_layer("layers", contenders, x, sizes.rounds, report)
    return report.exit_code


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: bench(args))


if __name__ == "__main__":
    sys.exit(main())
