"""How every command ends: with an exit code, and a line that says why."""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

import torch

from ..errors import UsageError
from .dist import finish
from .memory import lack_of_memory
from .signals import Stopped

# Seconds that a process which lost the others waits for the launcher, which knows why, to end it.
PATIENCE = 10


def exit_code(
    command: Callable[[], int | None],
    needs_less: str = "another program may hold it",
    interrupted: str = "interrupted",
) -> int:
    """Run a command; its own code (None: 0), 2 for a mistake, 128 + signal when stopped.

    Of several processes, the first says why they stopped. needs_less: what to say where memory
    ran out, which counts as a mistake. interrupted: what to say upon Ctrl-C. Where the reader of
    its output went away, such as head, it ends in silence, with 141.
    """
    launched = torch.distributed.is_torchelastic_launched()
    with suppress(AttributeError):  # a notebook's takes all
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: file names may be no text
    try:
        code = command() or 0
        sys.stdout.flush()
    except Stopped as stopped:
        if not launched or os.environ["RANK"] == "0":
            print(stopped, file=sys.stderr)
        code = 128 + stopped.signum
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # what is still buffered would be written, and fail, when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # SIGPIPE, which is not on Windows
    except UsageError as error:
        return _tell(error)
    except Exception as error:
        lack = lack_of_memory(error, needs_less)
        return _tell(UsageError(lack) if lack else error)
    finish()
    return code


def _tell(error: Exception) -> int:
    """Tell the user, or the launcher of this process, why it ends; returns the exit code.

    A mistake is one line and code 2, anything else a traceback and code 1. A process that lost the
    others is not the reason: it first gives the launcher time to end it.
    """
    # the loader's handler would raise a lost worker's error again, at the end of each other one
    if hasattr(signal, "SIGCHLD"):  # not on Windows
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    launched = torch.distributed.is_torchelastic_launched()
    if isinstance(error, UsageError):
        reason, code = str(error), 2
        if not launched:
            print(f"error: {reason}", file=sys.stderr)
    else:
        if launched and _lost_others(error):
            time.sleep(PATIENCE)
        traceback.print_exc()
        reason, code = f"{type(error).__name__}: {error}".splitlines()[0], 1
    if launched:
        _leave_reason(reason)
    return code


def _lost_others(error: Exception) -> bool:
    # gloo's errors are plain RuntimeErrors, which begin with the place in its source, but for the
    # one of a connection that an earlier time-out closed
    gloo = "/gloo/" in str(error) or "caused pair closure" in str(error)
    return gloo or isinstance(error, torch.distributed.DistError)


def _leave_reason(reason: str) -> None:
    """Write what the launcher shows of a failed process, in the form that it reads."""
    details = {"py_callstack": reason, "timestamp": str(int(time.time()))}
    with open(os.environ["TORCHELASTIC_ERROR_FILE"], "w") as file:
        json.dump({"message": {"message": reason, "extraInfo": details}}, file)
