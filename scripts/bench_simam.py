"""Time SimAM: by its formula, compiled, as an operator, and as one with norm and ReLU.

    python scripts/bench_simam.py                    on the GPU if there is one, else on the CPU
    python scripts/bench_simam.py --device cpu --only layers --json layers.json

Layers: SimAM, at the shapes of ResNet-18 and -50, MobileNetV2 and detection; the bytes that stay
for the backward pass; and the rate at which the unavoidable traffic passes (forward: read x, write
y; backward: read x and g, write dx) beside the rate of a plain copy. Blocks: SimAM, batch norm and
ReLU6, channels-last, beside norm and ReLU6 alone. Both in forward (evaluation) and
forward+backward (training). Networks: a training and an evaluation step with all these, beside the
network without attention.
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
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

import copy
from dataclasses import replace
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
from scripts.bench.training import GPU, made_up
from utils.config import Machine, Network
from utils.errors import UsageError
from utils.processes.ending import exit_code

E_LAMBDA = 0.1
# by device: what fills it, in under three minutes for all layers and for all networks
BATCH = {"cpu": 32, "cuda": 256}
BLOCK_BATCH = {"cpu": 16, "cuda": 256}
NETWORKS = {
    "cpu": (("resnet18", 16), ("mobilenet_v2", 16)),
    "cuda": (("resnet50", 256), ("resnet18", 256), ("mobilenet_v2", 256)),
}
ROUNDS = {"cpu": 5, "cuda": 15}
DTYPES = {"cpu": (torch.float32,), "cuda": (torch.float32, torch.bfloat16)}
# the largest first: what matters most is there if the time runs out
MAPS = ((64, 56, 56), (32, 112, 112), (128, 28, 28), (256, 14, 14), (512, 7, 7))
DETECTION = (2, 64, 200, 336)
BLOCKS = ((32, 112, 112), (64, 56, 56), (144, 56, 56), (192, 28, 28), (576, 14, 14), (960, 7, 7))
IMAGE_SIZE = 224
# calls that a GPU gets at once: enough for it to be busy, few enough for its queue of 1024 kernels
QUEUED = 10
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}


class Block(nn.Module):
    """What a block of a network does behind a convolution."""

    def __init__(self, attention: nn.Module, channels: int):
        super().__init__()
        self.attention, self.norm, self.act = attention, nn.BatchNorm2d(channels), nn.ReLU6(True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return simam_norm_act(x, self.attention, self.norm, self.act)


def layers() -> dict[str, nn.Module]:
    """SimAM's contenders; the first is what the others are compared with."""
    formula = with_formula(SimAM(E_LAMBDA))
    compiled = torch.compile(SimAM(E_LAMBDA), fullgraph=True, dynamic=False)
    return {"formula": formula, "compiled": compiled, "operator": SimAM(E_LAMBDA)}


def blocks(channels: int) -> dict[str, nn.Module]:
    """The contenders of a whole block; the first is what the others are compared with."""
    block = partial(Block, channels=channels)
    return {
        "no attention": block(nn.Identity()),
        "formula": block(with_formula(SimAM(E_LAMBDA))),
        "operator": block(with_operator(SimAM(E_LAMBDA))),
        "compiled": torch.compile(block(SimAM(E_LAMBDA)), fullgraph=True, dynamic=False),
        "one operator": block(SimAM(E_LAMBDA)),
    }


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
    kind: str, contenders: dict[str, nn.Module], x: torch.Tensor, layout: str, report: Report
) -> None:
    """A row per pass and contender for maps such as `x`; layout: what its own is called."""
    torch.compiler.reset()
    shape, dtype = "x".join(map(str, x.shape)), str(x.dtype).removeprefix("torch.")
    failed = partial(report.fail, f"{shape}, {dtype}, {layout}")
    grad, target, facts = torch.randn_like(x), torch.empty_like(x), {}
    for name, layer in contenders.items():
        reference = contenders[name if name == "no attention" else "formula"]
        try:
            error = check(layer.to(x.device), reference.to(x.device), x, grad)
            maps = rounded(kept_for_backward(layer, x) / x.nbytes)
            facts[name] = {"maps kept": maps, "max error": error}
        except Exception as error:
            failed(name, error)
    turns = x.device.type, ROUNDS[x.device.type], QUEUED
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


def bench_network(arch: str, batch_size: int, device: str, report: Report) -> None:
    """A row per step and attention: what main_imagenet.py runs, on a GPU in bfloat16."""
    machine = Machine(gpu=GPU[device], amp="bf16" if device == "cuda" else "none")
    plain = made_up(Network(arch=arch), IMAGE_SIZE, batch_size, machine)
    network = Network(arch=arch, attention="simam", attention_param=E_LAMBDA)
    attentive = replace(plain, network=network)
    loops = {"none": Ours(plain)}
    loops |= {name: Ours(attentive) for name in ("formula", "operator", "one operator")}
    with_formula(loops["formula"].net), with_operator(loops["operator"].net)
    for step, run in {"training": Ours.train, "evaluation": Ours.evaluate}.items():
        calls = {name: partial(run, each) for name, each in loops.items()}
        times = race(calls, device, ROUNDS[device], failed=partial(report.fail, arch))
        rows = [
            {"network": arch, "batch": batch_size, "step": step, "attention": name}
            | summary(own, times.get("none"))
            for name, own in times.items()
        ]
        report.add("networks", rows)


def maps(shape: tuple[int, ...], device: str, dtype: torch.dtype, layout: str) -> torch.Tensor:
    return torch.randn(shape, device=device).to(dtype, memory_format=LAYOUTS[layout])


def bench(args: argparse.Namespace) -> int:
    device = device_of(args.device)
    FUSED.add(device)  # on a GPU it is to be measured before it is used
    report = Report(describe(device), args.json)
    parts = (args.only,) if args.only else ("networks", "blocks", "layers")
    if "networks" in parts:
        for arch, batch_size in NETWORKS[device]:
            bench_network(arch, batch_size, device, report)
    if "blocks" in parts:
        for size, dtype in product(BLOCKS, DTYPES[device]):
            x = maps((BLOCK_BATCH[device], *size), device, dtype, "channels-last")
            bench_layer("blocks", blocks(size[0]), x, "channels-last", report)
    if "layers" in parts:
        shapes = [*((BATCH[device], *each) for each in MAPS), DETECTION]
        for shape, dtype, layout in product(shapes, DTYPES[device], LAYOUTS):
            bench_layer("layers", layers(), maps(shape, device, dtype, layout), layout, report)
    return report.exit_code


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: bench(args))


if __name__ == "__main__":
    sys.exit(main())
