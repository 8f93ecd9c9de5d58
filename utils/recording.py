"""Small work for a GPU: recorded once, from then on started all at once, beside that of others."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


class Records:
    """Calls of one function whose work on a GPU is recorded (CUDA graph) and from then on replayed.

    Each kind of call has a record of its own: the same shapes and types of tensors, and the same
    other arguments, which have a hash. What a replay returns is overwritten by the next one.
    Whatever else the function reads or writes must stay where it is in memory, and it must not wait
    for the GPU; what it does besides, in Python, is not done again. On a GPU the calls must be
    `on_a_stream`. wanted: else it is just called.
    """

    def __init__(self, wanted: bool):
        self.wanted = wanted
        self.replays: dict[tuple, Callable | None] = {}

    def call(self, function: Callable, *arguments: Any) -> Any:
        if not self.wanted:
            return function(*arguments)
        kind = tuple(map(kind_of, arguments))
        replay = self.replays.get(kind)
        if replay:
            return replay(*arguments)
        # this call readies all that must not happen while it is recorded, such as compiling
        result = function(*arguments)
        self.replays[kind] = record(function, arguments)
        return result


def kind_of(argument: Any) -> Any:
    """What of an argument must be the same for a record to hold."""
    if isinstance(argument, torch.Tensor):
        return argument.shape, argument.stride(), argument.dtype, argument.device
    return argument


def record(function: Callable, arguments: tuple) -> Callable | None:
    """What does as `function` does for arguments of this kind; None on the CPU."""
    graph, filled = new_graph(arguments)
    if graph is None:
        return None
    kept = [each.clone() if isinstance(each, torch.Tensor) else each for each in arguments]
    with filled:
        result = function(*kept)

    def replay(*given: Any) -> Any:
        for own, each in zip(kept, given, strict=True):
            if isinstance(own, torch.Tensor):
                own.copy_(each)
        graph.replay()
        return result

    return replay


def new_graph(arguments: tuple) -> tuple[Any, AbstractContextManager]:
    """A graph for work on such arguments, None on the CPU, and the context that fills it."""
    if not any(isinstance(each, torch.Tensor) and each.is_cuda for each in arguments):
        return None, nullcontext()
    graph = torch.cuda.CUDAGraph()
    # on another stream matrices would be multiplied in memory that a third one may use as well
    return graph, torch.cuda.graph(graph, stream=torch.cuda.current_stream())


def on_a_stream(steps: Iterator, device: torch.device) -> Iterator:
    """The same steps; on a GPU their kernels have a queue of their own, beside those of others."""
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    end = object()
    while True:
        with torch.cuda.stream(stream):
            step = next(steps, end)
        if step is end:
            return
        yield step
