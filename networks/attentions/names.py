"""The error for a name that a registry does not hold."""

import difflib
from collections.abc import Iterable


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """A ValueError that lists the known names, those closest to `name` first."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    names = ", ".join(close + [each for each in known if each not in close])
    return ValueError(f"unknown {kind} {name!r}; known: {names}")
