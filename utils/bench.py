"""Benchmarks: contenders that take turns, and what their times say."""

import argparse
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import nn

from networks.attentions import SimAM
from networks.attentions.simam import simam_formula


def parse_bench(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parse `argv` with the options of every benchmark, --device and --json, added and checked.

    device: "cpu" or "cuda", a GPU if there is one where it was not given.
    """
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    add("--json", type=Path, metavar="FILE", help="write every number here too")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no CUDA device here; use --device cpu")
    if args.json and not args.json.resolve().parent.is_dir():
        parser.error(f"--json {args.json}: its folder does not exist; create it first")
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return args


def describe(device: str) -> dict:
    """What a reader must know of the machine and the versions; device: "cpu" or "cuda"."""
    if device == "cuda":
        import triton

        properties = torch.cuda.get_device_properties(0)
        name, more = properties.name, {"triton": triton.__version__, "cuda": torch.version.cuda}
    else:
        cpuinfo = Path("/proc/cpuinfo")
        lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
        models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        name, more = (models or [platform.processor()])[0], {"threads": torch.get_num_threads()}
        more |= {"cores": os.cpu_count(), "vectors": torch.backends.cpu.get_cpu_capability()}
    return {"machine": name, "torch": torch.__version__, **more}


def seconds(call: Callable, device: str, queued: int = 5) -> float:
    """One call on the CPU; on a GPU the mean of `queued` calls, between two events."""
    if device == "cpu":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(queued):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / queued


def take_turns(
    contenders: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, list[float]]:
    """The seconds that every contender returns in every round, after two unmeasured rounds."""
    times = {name: [] for name in contenders}
    for index in range(-2, rounds):
        for name, timed in contenders.items():
            taken = timed()
            if index >= 0:
                times[name].append(taken)
    return times


def race(contenders: Mapping[str, Callable], device: str, rounds: int) -> dict[str, list[float]]:
    """`take_turns` for calls in this process."""
    timed = {name: partial(seconds, call, device) for name, call in contenders.items()}
    return take_turns(timed, rounds)


def summary(times: list[float], rivals: list[float]) -> dict[str, float]:
    """Median and 20 % to 80 % quantiles in ms, and the ratio to the rivals' time, turn by turn."""
    fifths = quantiles(times, n=5)
    ratio = median(own / rival for own, rival in zip(times, rivals, strict=True))
    in_ms = [round(1e3 * each, 4) for each in (median(times), fifths[0], fifths[-1])]
    return dict(zip(("ms", "ms_20", "ms_80"), in_ms, strict=True)) | {"ratio": round(ratio, 4)}


def with_formula(net: nn.Module) -> nn.Module:
    """The network with every SimAM computed by the formula."""
    for module in net.modules():
        if isinstance(module, SimAM):
            module.forward = partial(simam_formula, e_lambda=module.e_lambda)
    return net


def milliseconds(row: Mapping[str, float]) -> str:
    """The times of a `summary`, for a table."""
    return f"{row['ms']:.3g} ({row['ms_20']:.3g} - {row['ms_80']:.3g})"
