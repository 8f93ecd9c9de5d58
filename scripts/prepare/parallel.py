"""The same work on many items, on several processes, with a progress bar."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

from utils.errors import UsageError

Item, Result = TypeVar("Item"), TypeVar("Result")


def run_parallel(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    title: str,
    chunk: int = 16,
) -> Iterator[Result]:
    """`function` of every item, in their order; raises the first exception of any.

    chunk: items that a process is given at a time. Raises UsageError where one of the `workers`
    processes is killed.
    """
    fork = "fork" in multiprocessing.get_all_start_methods()  # nothing has to be imported again
    context = multiprocessing.get_context("fork" if fork else "spawn")
    # Ctrl-C reaches every process, but the parent decides
    ignoring = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
    pool = ProcessPoolExecutor(workers, context, **ignoring)
    try:
        # chunks that are begun or handed out are finished even after Ctrl-C
        results = pool.map(function, items, chunksize=chunk)
        yield from tqdm(results, title, len(items), disable=None)
    except BrokenProcessPool:
        raise UsageError(
            "a worker process was killed, for its memory perhaps; fewer of them (-j) take less"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
