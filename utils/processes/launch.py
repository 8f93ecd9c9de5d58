"""Starting one process per GPU, with torchrun's own machinery, and telling why one ended."""

import logging
import os
import signal
import socket
import sys
import tempfile

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, PContext, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ..config import Machine
from .dist import STORE, TIMEOUT, choose_devices, is_launched


def processes_to_start(machine: Machine) -> int:
    """How many processes `--gpu` and `--parallel` ask for on this machine; 0: this one is it.

    Raises UsageError for what is not there, or can't be together.
    """
    if is_launched() or machine.parallel == "dp":
        return 0
    count = len(choose_devices(machine.gpu, shared=machine.dist_backend == "gloo"))
    return count if count > 1 else 0


def launch(command: list[str], processes: int) -> int:
    """Run `python command...` as so many processes on this machine, and wait for them.

    Returns the exit code: of the process that failed first, after a line with its reason; 128 +
    signal when stopped. SIGINT, SIGTERM and SIGUSR1 are passed on.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(os.cpu_count() // processes, 1)))
    # one machine: nobody else may reach the processes, or what they agree by
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ[name] = loopback
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    # until they are killed, for finishing a step and saving
    seconds = os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "120")
    PContext.close.__defaults__ = (None, int(seconds))  # before torch 2.12
    logging.disable(logging.CRITICAL)  # the launcher's own account, in the place of one line
    signal.signal(signal.SIGUSR1, _pass_on)
    with tempfile.TemporaryDirectory() as folder:  # which nobody else may enter
        os.environ[STORE] = os.path.join(folder, "store")
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id="main_imagenet",
            rdzv_backend="c10d",
            rdzv_endpoint=os.path.join(folder, "rendezvous"),
            rdzv_configs={"store_type": "file"},
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-u", *command)
        except SignalException as stop:
            return 128 + (signal.SIGINT if stop.sigval == signal.SIGINT else signal.SIGTERM)
        except ChildFailedError as error:
            return _tell(error)
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
        elif failure.exitcode == -signal.SIGABRT:
            reason += f", as NCCL does when the other processes don't answer within {TIMEOUT}"
    elif isinstance(failure.message, dict):
        reason = failure.message["message"]
    elif failure.exitcode > 128:
        return failure.exitcode  # stopped by a signal, saved, and said so
    else:
        reason = f"exited with code {failure.exitcode}"
    print(f"error: rank {rank}: {reason}", file=sys.stderr)
    return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
