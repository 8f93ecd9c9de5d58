"""Files that are written whole or not at all."""

import os
import socket
from contextlib import suppress


def write_atomically(data: bytes | memoryview, path: str, previous: str | None = None) -> None:
    """Write `data` to `path`: complete, or leaving what was there.

    previous: where the file that was at `path` is kept; None replaces it. Killed at any moment,
    one of the two is whole. Raises OSError where the file can't be written.
    """
    temporary = f"{path}.tmp-{socket.gethostname()}-{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if previous and os.path.exists(path):
            os.replace(path, previous)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
