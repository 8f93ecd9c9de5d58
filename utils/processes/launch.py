"""Starting one process per GPU, with torchrun's own machinery, and telling why one ended."""

import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ..errors import UsageError
from .dist import choose_devices, finish
from .memory import lack_of_memory
from .signals import Stopped

# Seconds that a process which lost the others waits for the launcher, which knows why, to end it.
PATIENCE = 10


class Nodes(NamedTuple):
    """The machines of a run: how many, which one this is, HOST:PORT of the first."""

    count: int = 1
    rank: int = 0
    endpoint: str = "localhost:0"


def processes_to_start(
    gpus: str | None, parallel: str, all_gpus: bool, nodes: Nodes, backend: str | None = None
) -> int:
    """How many processes `--gpu` and `--parallel` ask for on this node; 0: this one is it.

    all_gpus: of the machine, where `gpus` names none. backend: as `--dist-backend`. Raises
    UsageError for what is not there, or can't be together.
    """
    if parallel == "dp" and (all_gpus or nodes.count > 1):
        raise UsageError(
            "--parallel dp is one process on one machine; leave it out for a process per GPU, "
            "or leave out --multiprocessing-distributed"
        )
    if torch.distributed.is_torchelastic_launched() or parallel == "dp":
        return 0
    count = len(choose_devices(gpus, shared=backend == "gloo"))
    if all_gpus and not gpus:
        count = torch.cuda.device_count()
        if not count:
            raise UsageError(
                "--multiprocessing-distributed starts a process for each GPU, and there is none; "
                "--gpu=-1,-1 starts two on the CPU"
            )
    return count if count > 1 or nodes.count > 1 else 0


def launch(command: list[str], processes: int, nodes: Nodes) -> int:
    """Run `python command...` as `processes` processes on this node, and wait for them.

    Returns the exit code: of the process that failed first, after a line with its reason; 128 +
    signal when stopped. SIGINT, SIGTERM and SIGUSR1 are passed on. Raises UsageError where the
    nodes don't find each other.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(os.cpu_count() // processes, 1)))
    # until they are killed, for finishing a step and saving
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "120")
    logging.disable(logging.CRITICAL)  # the launcher's own account, in the place of one line
    signal.signal(signal.SIGUSR1, _pass_on)
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=nodes.count,
            max_nodes=nodes.count,
            nproc_per_node=processes,
            run_id="main_imagenet",
            rdzv_backend="c10d" if nodes.count == 1 else "static",
            rdzv_configs={} if nodes.count == 1 else {"rank": nodes.rank},
            rdzv_endpoint=nodes.endpoint,
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-u", *command)
        except SignalException as stop:
            return 128 + (signal.SIGINT if stop.sigval == signal.SIGINT else signal.SIGTERM)
        except ChildFailedError as error:
            return _tell(error)
        except (RendezvousError, torch.distributed.DistError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"the nodes don't meet at {nodes.endpoint}: {reason}") from None
    return 0


def _pass_on(signum: int, _frame) -> None:
    raise SignalException("asked to stop", signal.Signals(signum))


def _tell(error: ChildFailedError) -> int:
    """Say why the first process failed; returns the exit code."""
    rank, failure = error.get_first_failure()
    if failure.exitcode < 0:
        reason = f"killed by {failure.signal_name()}"
        if failure.exitcode == -signal.SIGKILL:
            reason += ", as the system does when memory runs out"
    elif isinstance(failure.message, dict):
        reason = failure.message["message"]
    elif failure.exitcode > 128:
        return failure.exitcode  # stopped by a signal, saved, and said so
    else:
        reason = f"exited with code {failure.exitcode}"
    print(f"error: rank {rank}: {reason}", file=sys.stderr)
    return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode


def guarded(
    command: Callable[[], int | None], needs_less: str = "another program may hold it"
) -> int:
    """Run a training command; its exit code (None: 0), 2 for a mistake, 128 + signal when stopped.

    Of several processes, the first says why they stopped. needs_less: what to say where memory
    ran out, which counts as a mistake.
    """
    launched = torch.distributed.is_torchelastic_launched()
    try:
        code = command() or 0
    except Stopped as stopped:
        if not launched or os.environ["RANK"] == "0":
            print(stopped, file=sys.stderr)
        code = 128 + stopped.signum
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        lack = lack_of_memory(error, needs_less)
        return report(UsageError(lack) if lack else error)
    finish()
    return code


def report(error: Exception) -> int:
    """Tell the user, or the launcher of this process, why it ends; returns the exit code.

    A mistake is one line and code 2, anything else a traceback and code 1. A process that lost the
    others is not the reason: it first gives the launcher time to end it.
    """
    # the loader's handler would raise a lost worker's error again, at the end of each other one
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


def published_nodes(
    together: bool, count: int | None, rank: int | None, address: str | None
) -> Nodes:
    """The nodes that the published flags mean.

    together: --multiprocessing-distributed; count: --world-size; rank: --rank; address: --dist-url.
    Raises UsageError that says what replaces a form that no longer works.
    """
    by_launcher = torch.distributed.is_torchelastic_launched() and address == "env://"
    if count is None and (rank is not None or address is not None) and not by_launcher:
        raise UsageError(
            "--rank and --dist-url say nothing without --world-size, the number of machines, and "
            "--multiprocessing-distributed; on one machine, --gpu 0,1 starts a process per GPU"
        )
    if count is None or count <= 1:
        return Nodes()
    if not together:
        raise UsageError(
            f"--world-size {count} counts machines and goes with --multiprocessing-distributed; "
            "to start processes one by one: torchrun --nnodes N --nproc-per-node K"
        )
    if rank is None or not 0 <= rank < count:
        raise UsageError(f"--world-size {count} needs --rank 0 to {count - 1}, another on each")
    scheme, _, endpoint = (address or "").partition("://")
    if scheme != "tcp" or not endpoint.partition(":")[2].isdecimal():
        raise UsageError(
            f"--world-size {count} needs --dist-url tcp://HOST:PORT of the machine with --rank 0; "
            "for another meeting point: torchrun --rdzv-backend ... --rdzv-endpoint ..."
        )
    return Nodes(count, rank, endpoint)
