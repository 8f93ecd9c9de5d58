"""One run at a time in a folder."""

import functools
import os
import weakref

from ..errors import UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_held: set[int] = set()


class FolderLock:
    """Holds `folder` for this process until `release`, or until it ends, however that comes.

    Raises UsageError where another process holds it. Where a system has no such locks, it holds
    nothing.
    """

    def __init__(self, folder: str):
        if fcntl is None:
            self.release = lambda: None
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise UsageError(
                f"another run is at work in {folder}; wait for its end, or give another --ckpt"
            ) from None
        except OSError:
            pass  # a file system without locks
        _held.add(handle)
        _not_in_children()
        self.release = weakref.finalize(self, _release, handle)


def _release(handle: int) -> None:
    _held.discard(handle)
    os.close(handle)


@functools.cache
def _not_in_children() -> None:
    """Forked loader workers would hold on to the folder after this process was killed."""
    os.register_at_fork(after_in_child=lambda: [os.close(handle) for handle in _held])
