"""The error for a name that a registry does not hold."""

import difflib
from collections.abc import Iterable


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """A ValueError that lists the known names, those closest to `name` first,
    and which of them was likely meant."""
    known = sorted(known)
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    names = ", ".join(close + [each for each in known if each not in close])
    meant = f"; did you mean {close[0]}?" if close else ""
    return ValueError(f"unknown {kind} {name!r}; known: {names}{meant}")
