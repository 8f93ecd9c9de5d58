"""Errors that a user can mend, and how they are told."""

from collections.abc import Iterable


class UsageError(Exception):
    """A mistake in the command, the data or the machine: shown as one line, exit code 2."""


def reason(error: Exception) -> str:
    """What went wrong, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def some(names: Iterable[str], most: int = 3) -> str:
    """The first of the `names`, with an ellipsis where there are more."""
    names = list(names)
    return ", ".join(names[:most] + ["..."] * (len(names) > most))
