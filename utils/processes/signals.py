"""Stopping between two steps when the system or the user asks for it."""

import atexit
import functools
import multiprocessing.util  # registers its exit handler before `kill_workers_at_exit` does
import os
import signal
import sys

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")  # the last is not on Windows
ENDED = "stopped without saving"
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


class Stopped(Exception):
    """A run that was asked to stop has saved its state and ends. signum: the signal's number."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.signum = signum


class StopRequest:
    """Context in which SIGINT, SIGTERM and SIGUSR1 are only noted; it may be entered several times.

    launched: the parent process is a launcher. It passes on the signals that it gets, often on top
    of the ones sent to all processes, so a repeated signal means nothing. Without one, a second
    SIGINT acts as usual. A launcher that dies counts as SIGTERM: nobody is left to stop the run.
    """

    def __init__(self, launched: bool = False):
        self.launcher = os.getppid() if launched else None
        self.noted = self.entered = 0

    @property
    def signum(self) -> int:
        """The signal to stop for, 0 for none; SIGUSR1, sent ahead of SIGTERM, counts as that."""
        if not self.noted and self.launcher not in (None, os.getppid()):
            self.noted = signal.SIGTERM
        return self.noted

    def __enter__(self) -> "StopRequest":
        if not self.entered:
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        self.entered += 1
        return self

    def _note(self, signum: int, _frame) -> None:
        self.noted = self.noted or (signum if signum == signal.SIGINT else signal.SIGTERM)
        if signum == signal.SIGINT and self.launcher is None:
            signal.signal(signum, self._before[signum])

    def __exit__(self, kind, *_exception) -> None:
        self.entered -= 1
        if self.entered:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.noted and self.launcher and kind not in (None, Stopped):
            # the launcher ends the job because another process failed, and this one with it
            os.kill(os.getpid(), self.noted)


def end_when_asked() -> None:
    """Until there is something to save, signals end the process; SIGUSR1 counts as SIGTERM."""

    def end(signum: int, _frame) -> None:
        if "TORCHELASTIC_RUN_ID" not in os.environ:  # a launcher says why it ends the others
            print("interrupted" if signum == signal.SIGINT else ENDED, file=sys.stderr)
        sys.exit(128 + (signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM))

    for number in SIGNALS:
        signal.signal(number, end)


def leave_to_parent(_worker: int) -> None:
    """For loader workers: signals often reach all processes of a job, but the parent decides."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@functools.cache
def kill_workers_at_exit() -> None:
    """Let no loader worker outlive this process, nor delay its end.

    A worker that ignores SIGTERM would be waited for without end, if its loader was never freed.
    """
    atexit.register(_kill_workers)


def _kill_workers() -> None:
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
