"""Stopping between two steps when the system or the user asks for it."""

import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A run that was asked to stop has saved its state and ends. signum: the signal's number."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.signum = signum


class StopRequest:
    """Context in which the first SIGINT or SIGTERM is only noted; a second one acts as usual.

    `signum` is the number of the signal that came, None before.
    """

    def __init__(self):
        self.signum: int | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def _note(self, signum: int, _frame) -> None:
        self.signum = signum
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(self, *_exception) -> None:
        self._restore()


def leave_to_parent(_worker: int) -> None:
    """For loader workers: Ctrl-C reaches the whole process group, but only the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
