"""Where the time of a training step goes, by torch.profiler."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.profiler import ProfilerActivity, profile, schedule

SETTLE = 2  # steps before the first that counts: allocation, choice of kernels
ROWS = 15


def step_profiler(
    steps: int | None, folder: str, device: torch.device, say: Callable[[str], None]
) -> AbstractContextManager:
    """A profiler of `steps` training steps, to be told of each by its `step`; None: of nothing.

    When they are done it says which operators took most of `device`'s time, as a table, and where
    the trace is: `folder`/profile.pt.trace.json, for Perfetto and TensorBoard.
    """
    if not steps:
        return nullcontext()
    path = os.path.join(folder, "profile.pt.trace.json")
    sort = f"self_{device.type}_time_total"
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)

    def report(profiler: profile) -> None:
        profiler.export_chrome_trace(path)
        say(profiler.key_averages().table(sort_by=sort, row_limit=ROWS, max_name_column_width=40))
        say(f"profile     {steps} steps, trace for Perfetto or TensorBoard: {path}")

    plan = schedule(wait=1, warmup=SETTLE - 1, active=steps, repeat=1)
    # there is one cycle alone; without acc_events older torch warns that others would be lost
    return profile(activities=activities, schedule=plan, on_trace_ready=report, acc_events=True)
