"""Benchmarks: contenders that take turns, and what their times say."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import nn
from utils.checkpoints.files import write_atomically

from networks.attentions import SimAM
from networks.attentions.simam import simam_formula

# what `torch.cuda._sleep` takes for about 10 ms, in which the host starts a thousand kernels
PAUSE = 20_000_000


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


class Report:
    """What was measured and what failed, in a file that is whole after every row.

    head: what a reader must know of the machine. path: the JSON file; None keeps it in memory.
    """

    def __init__(self, head: Mapping[str, Any], path: Path | None = None):
        self.content, self.path = dict(head), path

    def add(self, key: str, rows: Iterable) -> None:
        """Take in rows of the list `key`, and write the file."""
        self.content.setdefault(key, []).extend(rows)
        if self.path:
            text = json.dumps(self.content, indent=1) + "\n"
            write_atomically(text.encode(), str(self.path))

    def rows(self, key: str) -> list:
        return self.content.get(key, [])

    def fail(self, line: str) -> None:
        """Take in what went wrong, and tell it on standard error."""
        print(f"failed: {line}", file=sys.stderr, flush=True)
        self.add("failures", [line])

    def exit_code(self) -> int:
        """1 where something failed, else 0."""
        return int(bool(self.rows("failures")))


def seconds(call: Callable, device: str, queued: int = 1) -> float:
    """One call on the CPU; on a GPU the mean of `queued` calls, between two events.

    One call is timed as it comes, its start by the host included. Several are queued while the
    GPU is kept busy, so that it waits for the host before none of them: device time alone, as
    long as the host takes less than 10 ms to queue what the GPU runs in less than that.
    """
    if device == "cpu":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    if queued > 1:
        torch.cuda._sleep(PAUSE)
    start.record()
    for _ in range(queued):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / queued


def take_turns(
    contenders: Mapping[Hashable, Callable[[], float]],
    rounds: int,
    failed: Callable[[Hashable, Exception], None] | None = None,
) -> dict[Hashable, list[float]]:
    """The seconds that every contender returns in every round, after two unmeasured rounds.

    failed(name, error): is told of a contender that raises, which is left out from then on; None
    lets the error through.
    """
    times = {name: [] for name in contenders}
    for index in range(-2, rounds):
        for name in list(times):
            try:
                taken = contenders[name]()
            except Exception as error:
                if failed is None:
                    raise
                del times[name]
                failed(name, error)
            else:
                times[name] += [taken] if index >= 0 else []
    return times


def race(
    contenders: Mapping[Hashable, Callable],
    device: str,
    rounds: int,
    queued: int = 1,
    failed: Callable[[Hashable, Exception], None] | None = None,
) -> dict[Hashable, list[float]]:
    """`take_turns` for calls in this process, on a GPU `queued` at once, see `seconds`."""
    timed = {name: partial(seconds, call, device, queued) for name, call in contenders.items()}
    return take_turns(timed, rounds, failed)


def summary(times: list[float], rivals: list[float] | None) -> dict[str, float]:
    """Median and 20 % to 80 % quantiles in ms, and the ratio to the rivals' time, turn by turn;
    without it where the rivals failed."""
    fifths = quantiles(times, n=5)
    in_ms = [round(1e3 * each, 4) for each in (median(times), fifths[0], fifths[-1])]
    row = dict(zip(("ms", "ms_20", "ms_80"), in_ms, strict=True))
    if rivals:
        ratio = median(own / rival for own, rival in zip(times, rivals, strict=True))
        row["ratio"] = round(ratio, 4)
    return row


def with_formula(net: nn.Module) -> nn.Module:
    """The network with every SimAM computed by the formula."""
    for module in net.modules():
        if isinstance(module, SimAM):
            module.forward = partial(simam_formula, e_lambda=module.e_lambda)
    return net


def milliseconds(row: Mapping[str, float]) -> str:
    """The times of a `summary`, for a table."""
    return f"{row['ms']:.3g} ({row['ms_20']:.3g} - {row['ms_80']:.3g})"
