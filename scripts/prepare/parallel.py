"""Many independent pieces of work, on several processes, with a progress bar."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

from utils.errors import UsageError

Task, Result = TypeVar("Task"), TypeVar("Result")


def run_parallel(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, title: str
) -> Iterator[Result]:
    """`function` of every task, as they get done; raises the first exception of any.

    Raises UsageError where one of the `workers` processes is killed.
    """
    context = multiprocessing.get_context("fork")  # nothing has to be imported again
    pool = ProcessPoolExecutor(workers, context, initializer=_leave_interrupts_to_parent)
    try:
        futures = [pool.submit(function, task) for task in tasks]
        for future in tqdm(as_completed(futures), title, len(tasks), disable=None):
            yield future.result()
    except BrokenProcessPool:
        raise UsageError(
            "a worker process was killed, for its memory perhaps; fewer of them (-j) take less"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def chunks(items: Sequence, size: int) -> list:
    """`items` in slices of `size`, the last one smaller."""
    return [items[first : first + size] for first in range(0, len(items), size)]


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
