"""Time SimAM: the formula, torch.compile of the formula, and the operator, side by side.

    python scripts/bench_simam.py                    on the GPU if there is one, else on the CPU
    python scripts/bench_simam.py --device cpu --json scripts/results/simam_cpu.json
    python scripts/bench_simam.py --only networks

Layers: forward, forward+backward, and backward as their difference, at the shapes of ResNet-18 and
-50, MobileNetV2 and detection; the bytes that stay for the backward pass; and the rate at which
the unavoidable traffic passes (forward: read x, write y; backward: read x and g, write dx) beside
the rate of a plain copy. Networks: a training and an evaluation step without attention, with the
formula, with the operator. The contenders take turns, and a ratio is the median over the turns of
the ratio within a turn, so that a machine that slows down for a while slows them all. Every
contender is first checked against the formula in float64; one that is wrong, or fails, is named on
standard error and left out, and the exit code is 1. On a GPU the times are the device's own. On the
CPU freed memory is kept for networks, as training keeps it, and so for layers that are timed after
them: --only layers times these as any process would run them.
"""

import argparse
import sys
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from networks import create_model
from networks.attentions import simam
from networks.attentions.simam import simam_formula
from scripts.bench.common import (
    Report,
    describe,
    milliseconds,
    parse_bench,
    race,
    summary,
    with_formula,
)
from utils.cli import exit_code
from utils.data.seed import seed_all
from utils.errors import UsageError, reason
from utils.processes.memory import keep_freed_memory
from utils.report.tables import table

E_LAMBDA = 0.1
# the largest first: what matters most is there if the time runs out
MAPS = (
    ("ResNet", (64, 56, 56)),
    ("MobileNetV2", (32, 112, 112)),
    ("detection", (64, 200, 336)),
    ("ResNet", (128, 28, 28)),
    ("ResNet", (256, 14, 14)),
    ("ResNet", (512, 7, 7)),
)
# maps per layer and step, and rounds: what fills the device, in under three minutes each
BATCH = {"cpu": 32, "cuda": 256}
DETECTION_BATCH = 2
NETWORKS = {
    "cpu": (("resnet18", 16), ("mobilenet_v2", 16)),
    "cuda": (("resnet50", 256), ("resnet18", 256), ("mobilenet_v2", 256)),
}
IMAGE_SIZE = 224
ROUNDS = {"cpu": 9, "cuda": 15}
# calls that a GPU gets at once: enough for it to be busy, few enough for its queue of 1024 kernels
LAYERS_QUEUED, NETWORKS_QUEUED = 10, 2
DTYPES = {"cpu": (torch.float32,), "cuda": (torch.float32, torch.bfloat16)}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
TRAFFIC = {"forward": 2, "backward": 3, "forward+backward": 5}


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time SimAM as a layer and in networks.")
    parser.add_argument("--only", choices=("layers", "networks"), help="default: both")
    return parse_bench(parser, argv)


def kept_for_backward(function, x: torch.Tensor) -> float:
    """Bytes of the distinct memory that autograd keeps, in multiples of x's."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(x.detach().requires_grad_(), E_LAMBDA)
    return sum(kept.values()) / x.nbytes


def differentiate(function, x: torch.Tensor, grad: torch.Tensor):
    x = x.detach().requires_grad_()
    y = function(x, E_LAMBDA)
    return y, torch.autograd.grad(y, x, grad)[0]


def check(function, x: torch.Tensor, grad: torch.Tensor) -> float:
    """The largest error of output and gradient against float64; raises UsageError if too large."""
    found = differentiate(function, x, grad)
    few = [t[:2].double() for t in (x, grad)]
    gaps = [
        (ours[:2].double() - exact).abs().max().item()
        for ours, exact in zip(found, differentiate(simam_formula, *few), strict=True)
    ]
    if not max(gaps) <= TOLERANCE[x.dtype]:
        raise UsageError(f"wrong by {max(gaps):g}")
    return max(gaps)


def bench_layer(shape, dtype, layout: str, device: str, report: Report) -> list[dict]:
    """One row per pass and contender for maps of `shape`; what fails goes to `report`."""
    torch.compiler.reset()
    x, grad = (
        torch.randn(shape, device=device).to(dtype).contiguous(memory_format=LAYOUTS[layout])
        for _ in range(2)
    )
    shown = str(dtype).removeprefix("torch.")

    def failed(name, error: Exception) -> None:
        report.fail(f"{name}, {tuple(shape)}, {shown}, {layout}: {reason(error)}")

    compiled = torch.compile(simam_formula, fullgraph=True, dynamic=False)
    functions = {"formula": simam_formula, "compiled formula": compiled, "operator": simam}
    errors = {}
    for name, function in functions.items():
        try:
            errors[name] = check(function, x, grad)
        except Exception as error:
            failed(name, error)
    target = torch.empty_like(x)
    settings = device, ROUNDS[device], LAYERS_QUEUED
    copy = race({"copy": lambda: target.copy_(x)}, *settings)["copy"]
    copy_rate = 2 * x.nbytes / median(copy) / 1e9

    calls = {}
    for name in errors:
        calls["forward", name] = torch.no_grad()(partial(functions[name], x, E_LAMBDA))
        calls["forward+backward", name] = partial(differentiate, functions[name], x, grad)
    times = race(calls, *settings, failed)
    for name in errors:
        if {("forward", name), ("forward+backward", name)} <= times.keys():
            both, forward = times["forward+backward", name], times["forward", name]
            times["backward", name] = [a - b for a, b in zip(both, forward, strict=True)]

    return [
        {
            "shape": list(shape),
            "dtype": shown,
            "layout": layout,
            "pass": direction,
            "contender": name,
            **summary(times[direction, name], times.get((direction, "formula"))),
            "GB/s": round(maps * x.nbytes / median(times[direction, name]) / 1e9, 4),
            "copy GB/s": round(copy_rate, 2),
            "kept": round(kept_for_backward(functions[name], x), 4),
            "max error": errors[name],
        }
        for direction, maps in TRAFFIC.items()
        for name in functions
        if (direction, name) in times
    ]


def bench_network(arch: str, batch: int, device: str, report: Report) -> list[dict]:
    """Rows for one training step and one evaluation step, on a GPU in bfloat16 channels-last;
    what fails goes to `report`."""
    layout = torch.channels_last if device == "cuda" else torch.contiguous_format
    images = torch.randn(batch, 3, IMAGE_SIZE, IMAGE_SIZE, device=device)
    images = images.contiguous(memory_format=layout)
    labels = torch.randint(1000, (batch,), device=device)
    nets = {
        "none": create_model(arch),
        "formula": with_formula(create_model(arch, "simam", E_LAMBDA)),
        "operator": create_model(arch, "simam", E_LAMBDA),
    }
    mixed = partial(torch.autocast, device, torch.bfloat16, enabled=device == "cuda")

    def train(net, optimizer):
        with mixed():
            loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def evaluate(net):
        with torch.no_grad(), mixed():
            net(images)

    def steps(training: bool) -> dict:
        calls = {}
        for name, net in nets.items():
            net.to(device, memory_format=layout).train(training)
            optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)
            calls[name] = partial(train, net, optimizer) if training else partial(evaluate, net)
        return calls

    def failed(name: str, error: Exception) -> None:
        report.fail(f"{arch}, batch {batch}, attention {name}: {reason(error)}")

    rows = []
    for step in ("training", "evaluation"):
        calls = steps(step == "training")
        times = race(calls, device, ROUNDS[device], NETWORKS_QUEUED, failed)
        for name, own in times.items():
            rows.append(
                {"network": arch, "batch": batch, "step": step, "attention": name}
                | summary(own, times.get("none"))
            )
    return rows


LAYER_COLUMNS = {
    "maps": lambda row: "x".join(map(str, row["shape"])),
    "dtype": lambda row: row["dtype"],
    "layout": lambda row: row["layout"],
    "pass": lambda row: row["pass"],
    "SimAM": lambda row: row["contender"],
    "ms (20 % - 80 %)": milliseconds,
    "times the formula's speed": lambda row: f"{1 / row['ratio']:.2f}" if "ratio" in row else "",
    "GB/s (copy)": lambda row: f"{row['GB/s']:.3g} ({row['copy GB/s']:.3g})",
    "kept, maps": lambda row: f"{row['kept']:.2f}",
}
NETWORK_COLUMNS = {
    "network": lambda row: row["network"],
    "batch": lambda row: row["batch"],
    "step": lambda row: row["step"],
    "attention": lambda row: row["attention"],
    "ms (20 % - 80 %)": milliseconds,
    "times the plain network's time": lambda row: f"{row['ratio']:.3f}" if "ratio" in row else "",
}


def bench_all(args: argparse.Namespace) -> int:
    device = args.device
    # as training does it: cuDNN chooses its kernels by trial
    seed_all(0, deterministic=False)
    head = describe(device)
    print(", ".join(f"{key} {value}" for key, value in head.items()), flush=True)
    report = Report(head, args.json)
    if args.only != "layers":
        keep_freed_memory()
        for arch, batch in NETWORKS[device]:
            report.add("networks", bench_network(arch, batch, device, report))
        print("\n" + table(report.rows("networks"), NETWORK_COLUMNS), flush=True)
    if args.only != "networks":
        for network, shape in MAPS:
            batch = DETECTION_BATCH if network == "detection" else BATCH[device]
            for dtype, layout in product(DTYPES[device], LAYOUTS):
                rows = bench_layer((batch, *shape), dtype, layout, device, report)
                report.add("layers", [{"of": network, **row} for row in rows])
        print("\n" + table(report.rows("layers"), LAYER_COLUMNS), flush=True)
    return report.exit_code()


def main(argv=None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: bench_all(args))


if __name__ == "__main__":
    sys.exit(main())
