"""Benchmarks: contenders that take turns, and what their times say."""

import os
import platform
import re
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import nn

from networks.attentions import SimAM
from networks.attentions.simam import simam_formula
from utils.disk import check_target
from utils.errors import UsageError, reason
from utils.report.tables import Columns, table, write_json

# what `torch.cuda._sleep` takes for about 10 ms, in which the host starts a thousand kernels
PAUSE = 20_000_000
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
UNMEASURED = 2  # rounds that come first: allocation, choice of kernels

Contenders = Mapping[Hashable, Callable[[], float]]
Failed = Callable[[Hashable, Exception], None]


def device_of(wanted: str | None) -> str:
    """What --device means, "cpu" or "cuda": a GPU if there is one, where it was not given.

    Raises UsageError for a GPU that is not there.
    """
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise UsageError("--device cuda: there is no CUDA device here; use --device cpu")
    return wanted or ("cuda" if there else "cpu")


def describe(device: str, *packages: str) -> dict[str, Any]:
    """What a reader must know of the machine and the versions; device: "cpu" or "cuda"."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "")
    about = {
        "machine": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    if device == "cuda":
        about |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        packages = "triton", *packages
    return about | {package: version(package) for package in packages}


class Report:
    """Tables of what was measured, printed row by row, in a file that is whole after every row.

    head: what a reader must know, printed first. path: the JSON file; None keeps it in memory.
    Raises UsageError for a file that can't be written.
    """

    def __init__(self, head: Mapping[str, Any], path: str | None = None):
        if path:
            check_target(path, replace=True)
        self.content, self.path, self.exit_code = dict(head), path, 0
        print(", ".join(f"{key} {value}" for key, value in head.items()), flush=True)

    def add(self, key: str, rows: Sequence, columns: Columns | None = None) -> None:
        """Take in rows of the table `key`: dataclasses that `columns` shows, or, where these are
        not given, mappings that all have the same names in the same order."""
        if rows:
            lines = table(rows, columns).splitlines()
            print("\n".join(lines[2:] if key in self.content else ["", *lines]), flush=True)
            self._keep(key, rows)

    def fail(self, where: str, name: str, error: Exception) -> None:
        """Take in what went wrong with the contender `name`, and tell it on standard error."""
        line = f"{where}, {name}: {reason(error)}"
        print(f"failed: {line}", file=sys.stderr, flush=True)
        self._keep("failures", [line])
        self.exit_code = 1

    def _keep(self, key: str, entries: Sequence) -> None:
        self.content.setdefault(key, []).extend(entries)
        if self.path:
            write_json(self.content, self.path)


def seconds(call: Callable, device: str, queued: int = 1) -> float:
    """One call on the CPU; on a GPU the mean of `queued` calls, between two events.

    On one thread of a CPU it is the time that this process had it, whatever else runs there.
    One call is timed as it comes, its start by the host included. Several are queued while the
    GPU is kept busy, so that it waits for the host before none of them: device time alone, as
    long as the host takes less than 10 ms to queue what the GPU runs in less than that.
    """
    if device == "cpu":
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        start = clock()
        call()
        return clock() - start
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
    contenders: Contenders, rounds: int, failed: Failed | None = None
) -> dict[Hashable, list[float]]:
    """The seconds that every contender returns in every round, after a few unmeasured ones.

    failed(name, error): is told of a contender that raises, which is left out from then on; None
    lets the error through.
    """
    times = {name: [] for name in contenders}
    for _ in range(UNMEASURED + rounds):
        for name in list(times):
            try:
                times[name].append(contenders[name]())
            except Exception as error:
                if failed is None:
                    raise
                del times[name]
                failed(name, error)
    return {name: taken[UNMEASURED:] for name, taken in times.items()}


def race(
    calls: Mapping[Hashable, Callable],
    device: str,
    rounds: int,
    queued: int = 1,
    failed: Failed | None = None,
) -> dict[Hashable, list[float]]:
    """`take_turns` for calls in this process, on a GPU `queued` at once, see `seconds`."""
    timed = {name: partial(seconds, call, device, queued) for name, call in calls.items()}
    return take_turns(timed, rounds, failed)


def summary(times: list[float], rivals: list[float] | None) -> dict[str, float | None]:
    """Median and 20 % to 80 % quantiles in ms, and the `speed` beside the rivals'."""
    fifths = quantiles(times, n=5)
    in_ms = (rounded(1e3 * each) for each in (median(times), fifths[0], fifths[-1]))
    row = dict(zip(("ms", "ms_20", "ms_80"), in_ms, strict=True))
    return row | {"speed": speed(times, rivals)}


def speed(times: list[float], rivals: list[float] | None) -> float | None:
    """How many times as fast as the rivals, None where they failed: the median over the turns of
    the ratio within a turn, so that a machine that slows down for a while slows them all."""
    if rivals is None:
        return None
    return rounded(median(rival / own for own, rival in zip(times, rivals, strict=True)))


def rounded(value: float) -> float:
    """Four digits of it: all that a measured time is good for."""
    return float(f"{value:.4g}")


class Alone(SimAM):
    """SimAM that is computed by itself, never in one with what stands behind it."""


def with_operator(net: nn.Module) -> nn.Module:
    """The network with every SimAM computed by itself."""
    for module in net.modules():
        if isinstance(module, SimAM):
            module.__class__ = Alone
    return net


def with_formula(net: nn.Module) -> nn.Module:
    """The network with every SimAM computed by the formula."""
    for module in net.modules():
        if isinstance(module, SimAM):
            module.forward = partial(simam_formula, e_lambda=module.e_lambda)
    return net
