"""Errors that a user can mend, and how they are told."""

import importlib
from collections.abc import Iterable
from types import ModuleType

LONGEST = 2000  # characters of a line


class UsageError(Exception):
    """A mistake in the command, the data or the machine: shown as one line, exit code 2."""

    def __init__(self, text: str):
        super().__init__(one_line(text))


def one_line(text: str) -> str:
    """`text` for a terminal: words from a file can't move its cursor, nor fill it.

    What can't be printed is escaped, of what is too long the middle is left out.
    """
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def reason(error: Exception) -> str:
    """What went wrong, in one line."""
    return one_line(" ".join(f"{type(error).__name__}: {error}".split()))


def needed(module: str, package: str) -> ModuleType:
    """The `module` of a `package` that not everyone has; raises UsageError where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"this needs {package} ({error}): pip install {package}") from None


def some(names: Iterable[str], most: int = 3) -> str:
    """The first of the `names`, with an ellipsis where there are more."""
    names = list(names)
    return ", ".join(names[:most] + ["..."] * (len(names) > most))
