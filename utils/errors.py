"""Errors that a user can mend, and how they are told."""

import importlib
from types import ModuleType


class UsageError(Exception):
    """A mistake in the command, the data or the machine: shown as one line, exit code 2."""


def reason(error: Exception) -> str:
    """What went wrong, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def needed(module: str, package: str) -> ModuleType:
    """The `module` of a `package` that not everyone has; raises UsageError where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"this needs {package} ({error}): pip install {package}") from None
