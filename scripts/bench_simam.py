"""Time SimAM: the formula, torch.compile of the formula, and the operator, side by side.

    python scripts/bench_simam.py                    on the GPU if there is one, else on the CPU
    python scripts/bench_simam.py --device cpu --json scripts/results/simam_cpu.json
    python scripts/bench_simam.py --only networks

Layers: forward, and forward+backward, at the shapes of ResNet-18 and -50, MobileNetV2 and
detection; the bytes that stay for the backward pass; and the rate at which the unavoidable traffic
passes (forward: read x, write y; backward: read x and g, write dx) beside the rate of a plain copy.
Networks: a training and an evaluation step without attention, with the formula, with the operator.
The contenders take turns, and a ratio is the median over the turns of the ratio within a turn.
Every contender is first checked against the formula in float64; one that is wrong, or fails, is
named on standard error and left out, and the exit code is 1. On a GPU the times are the device's
own. On the CPU freed memory is kept for networks, as training keeps it, and so for layers that are
timed after them: --only layers times these as any process would run them.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.bench.options import bench_parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = bench_parser(__doc__)
    parser.add_argument("--only", choices=("layers", "networks"), help="both where not given")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from statistics import median

import torch

from networks.attentions import simam
from networks.attentions.simam import simam_formula
from scripts.bench.common import Report, describe, device_of, race, rounded, summary, with_formula
from scripts.bench.loops import Ours
from scripts.bench.training import GPU
from utils.config import Config, Data, Machine, Network, Optim
from utils.errors import UsageError
from utils.processes.ending import exit_code

E_LAMBDA = 0.1
# by device: what fills it, in under three minutes for all layers and for all networks
BATCH = {"cpu": 32, "cuda": 256}
NETWORKS = {
    "cpu": (("resnet18", 16), ("mobilenet_v2", 16)),
    "cuda": (("resnet50", 256), ("resnet18", 256), ("mobilenet_v2", 256)),
}
ROUNDS = {"cpu": 9, "cuda": 15}
DTYPES = {"cpu": (torch.float32,), "cuda": (torch.float32, torch.bfloat16)}
# the largest first: what matters most is there if the time runs out
MAPS = ((64, 56, 56), (32, 112, 112), (128, 28, 28), (256, 14, 14), (512, 7, 7))
DETECTION = (2, 64, 200, 336)
IMAGE_SIZE = 224
# calls that a GPU gets at once: enough for it to be busy, few enough for its queue of 1024 kernels
QUEUED = 10
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}

Layer = Callable[[torch.Tensor, float], torch.Tensor]


@torch.no_grad()
def forward(layer: Layer, x: torch.Tensor, _grad: torch.Tensor) -> torch.Tensor:
    return layer(x, E_LAMBDA)


def differentiate(layer: Layer, x: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """y, and dx for the gradient `grad` of y."""
    x = x.detach().requires_grad_()
    y = layer(x, E_LAMBDA)
    return y, torch.autograd.grad(y, x, grad)[0]


# and how many maps must be read and written
PASSES = {"forward": (forward, 2), "forward+backward": (differentiate, 5)}


def check(layer: Layer, x: torch.Tensor, grad: torch.Tensor) -> float:
    """The largest error of output and gradient against float64; raises UsageError if too large."""
    found = [each[:2].double() for each in differentiate(layer, x, grad)]
    exact = differentiate(simam_formula, x[:2].double(), grad[:2].double())
    error = max((one - other).abs().max().item() for one, other in zip(found, exact, strict=True))
    if not error <= TOLERANCE[x.dtype]:
        raise UsageError(f"wrong by {error:g}")
    return error


def kept_for_backward(layer: Layer, x: torch.Tensor) -> float:
    """Bytes of the distinct memory that autograd keeps, in multiples of x's."""
    kept = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x.detach().requires_grad_(), E_LAMBDA)
    return sum(kept.values()) / x.nbytes


def bench_layer(x: torch.Tensor, layout: str, report: Report) -> None:
    """A row per pass and contender for maps such as `x`; layout: what its own is called."""
    torch.compiler.reset()
    shape, dtype = "x".join(map(str, x.shape)), str(x.dtype).removeprefix("torch.")
    failed = partial(report.fail, f"{shape}, {dtype}, {layout}")
    layers = {
        "formula": simam_formula,
        "compiled formula": torch.compile(simam_formula, fullgraph=True, dynamic=False),
        "operator": simam,
    }
    grad, target, facts = torch.randn_like(x), torch.empty_like(x), {}
    for name, layer in layers.items():
        try:
            error = check(layer, x, grad)
            facts[name] = {"maps kept": rounded(kept_for_backward(layer, x)), "max error": error}
        except Exception as error:
            failed(name, error)
    turns = x.device.type, ROUNDS[x.device.type], QUEUED
    copying = race({"copy": partial(target.copy_, x)}, *turns)["copy"]
    for direction, (run, maps) in PASSES.items():
        calls = {name: partial(run, layers[name], x, grad) for name in facts}
        times = race(calls, *turns, failed)
        rows = [
            {"maps": shape, "dtype": dtype, "layout": layout, "pass": direction, "SimAM": name}
            | summary(own, times.get("formula"))
            | {"GB/s": rounded(maps * x.nbytes / median(own) / 1e9)}
            | {"copy GB/s": rounded(2 * x.nbytes / median(copying) / 1e9)}
            | facts[name]
            for name, own in times.items()
        ]
        report.add("layers", rows)


def bench_network(arch: str, batch_size: int, device: str, report: Report) -> None:
    """A row per step and attention: what main_imagenet.py runs, on a GPU in bfloat16."""
    plain = Config(
        network=Network(arch=arch),
        data=Data(image_size=IMAGE_SIZE, batch_size=batch_size, synthetic=True),
        optim=Optim(lr=1e-4),
        machine=Machine(gpu=GPU[device], amp="bf16" if device == "cuda" else "none"),
    )
    network = Network(arch=arch, attention="simam", attention_param=E_LAMBDA)
    attentive = replace(plain, network=network)
    loops = {"none": Ours(plain), "formula": Ours(attentive), "operator": Ours(attentive)}
    with_formula(loops["formula"].net)
    for step, run in {"training": Ours.train, "evaluation": Ours.evaluate}.items():
        calls = {name: partial(run, each) for name, each in loops.items()}
        times = race(calls, device, ROUNDS[device], failed=partial(report.fail, arch))
        rows = [
            {"network": arch, "batch": batch_size, "step": step, "attention": name}
            | summary(own, times.get("none"))
            for name, own in times.items()
        ]
        report.add("networks", rows)


def bench(args: argparse.Namespace) -> int:
    device = device_of(args.device)
    report = Report(describe(device), args.json)
    if args.only != "layers":
        for arch, batch_size in NETWORKS[device]:
            bench_network(arch, batch_size, device, report)
    if args.only != "networks":
        shapes = [*((BATCH[device], *each) for each in MAPS), DETECTION]
        for shape, dtype, layout in product(shapes, DTYPES[device], LAYOUTS):
            x = torch.randn(shape, device=device).to(dtype, memory_format=LAYOUTS[layout])
            bench_layer(x, layout, report)
    return report.exit_code


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: bench(args))


if __name__ == "__main__":
    sys.exit(main())
