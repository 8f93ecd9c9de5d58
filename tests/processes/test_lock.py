"""One run at a time in a folder."""

import os
import signal

import pytest

from utils.errors import UsageError
from utils.processes.lock import FolderLock


def test_a_killed_owner_holds_nothing_though_its_worker_lives(tmp_path):
    ready, tell = os.pipe()
    owner = os.fork()
    if owner == 0:
        lock = FolderLock(str(tmp_path))  # noqa: F841 (held until the process is killed)
        worker = os.fork()
        if worker:
            os.write(tell, str(worker).encode())
        signal.pause()
    worker = int(os.read(ready, 20))
    try:
        with pytest.raises(UsageError):
            FolderLock(str(tmp_path))
        os.kill(owner, signal.SIGKILL)
        os.waitpid(owner, 0)
        FolderLock(str(tmp_path)).release()
    finally:
        os.kill(worker, signal.SIGKILL)
