"""The error that a user can mend."""


class UsageError(Exception):
    """A mistake in the command, the data or the machine: shown as one line, exit code 2."""
