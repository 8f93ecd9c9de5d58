"""Errors that a user can mend, and how they are told."""


class UsageError(Exception):
    """A mistake in the command, the data or the machine: shown as one line, exit code 2."""


def reason(error: Exception) -> str:
    """What went wrong, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
