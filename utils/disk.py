"""Files that are written whole or not at all, checked before any work, and read line by line."""

import json
import os
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import UsageError


def check_target(path: str, endings: tuple[str, ...] = (), replace: bool = False) -> None:
    """Raise UsageError, before any work, where the file `path` can't be written.

    endings: it must have one of them, where given. replace: it may be there already.
    """
    if endings and not path.lower().endswith(endings):
        raise UsageError(f"the ending of {path} says no format; use {' or '.join(endings)}")
    if os.path.isdir(path):
        raise UsageError(f"can't write {path}: it is a folder")
    if os.path.exists(path) and not replace:
        raise UsageError(f"{path} already exists; remove it or choose another name")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UsageError(f"can't write {path}: there is no folder {folder}; create it first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}") from None


def write_atomically(data: bytes | memoryview, path: str, previous: str | None = None) -> None:
    """Write `data` to `path`: complete, or leaving what was there.

    previous: where the file that was at `path` is kept; None replaces it. Killed at any moment,
    one of the two is whole. Raises OSError where the file can't be written.
    """
    path = os.path.realpath(path)  # a link stays one
    temporary = f"{path}.tmp-{socket.gethostname()}-{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if previous and os.path.exists(path):
            shutil.move(path, previous)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def write_bytes(data: bytes | memoryview, path: str) -> None:
    """Write a result as atomically; raises UsageError where it can't be written."""
    try:
        write_atomically(data, path)
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}") from None


def write_text(text: str, path: str) -> None:
    """The same with text."""
    write_bytes(text.encode(errors="backslashreplace"), path)


def append_line(path: str, text: str) -> None:
    """Write `text` at the end of a file, as a line of its own; raises OSError where it can't."""
    with open(path, "a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":  # a full disk cut off the line before
                file.write(b"\n")
        file.write(text.encode(errors="backslashreplace") + b"\n")


def read_entries(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a file with one a line, without lines that a full disk or a kill cut off.

    Raises OSError where the file can't be read.
    """
    lines = Path(path).read_text(errors="replace").splitlines()
    return [entry for entry in map(_parsed, lines) if entry]


def _parsed(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
