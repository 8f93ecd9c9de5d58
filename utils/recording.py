"""Work for a GPU that is recorded once, and from then on started all at once."""

from collections.abc import Callable
from typing import Any

import torch


class Recorded:
    """`function`, whose work on a GPU is recorded (CUDA graph) and replayed from then on.

    Each kind of call has a record of its own: the same shapes and types of tensors, and the same
    other arguments, which have a hash. What a replay returns is overwritten by the next one.
    Whatever else the function reads or writes must stay where it is in memory, and it must not wait
    for the GPU; what it does besides, in Python, is not done again.
    """

    def __init__(self, function: Callable):
        self.function = function
        self.records: dict[tuple, Callable] = {}

    def __call__(self, *arguments: Any) -> Any:
        kind = tuple(map(kind_of, arguments))
        if kind in self.records:
            return self.records[kind](*arguments)
        # this call readies all that must not happen while it is recorded, such as compiling
        result = self.function(*arguments)
        self.records[kind] = record(self.function, arguments)
        return result


def kind_of(argument: Any) -> Any:
    """What of an argument must be the same for a record to hold."""
    if isinstance(argument, torch.Tensor):
        return argument.shape, argument.stride(), argument.dtype, argument.device
    return argument


def record(function: Callable, arguments: tuple) -> Callable:
    """What does as `function` does for arguments of this kind; on the CPU the function itself."""
    tensors = [each for each in arguments if isinstance(each, torch.Tensor)]
    if not any(each.is_cuda for each in tensors):
        return function
    kept = [each.clone() if isinstance(each, torch.Tensor) else each for each in arguments]
    graph = torch.cuda.CUDAGraph()
    # the stream that it takes by default is one of the first GPU that recorded anything
    with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
        result = function(*kept)

    def replay(*given: Any) -> Any:
        for own, each in zip(kept, given, strict=True):
            if isinstance(own, torch.Tensor):
                own.copy_(each)
        graph.replay()
        return result

    return replay
