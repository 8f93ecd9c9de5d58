"""The processes of a run: devices, ranks, and what they exchange."""

import os
import socket
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed

# its defaults hold the group that is there when it is first imported, for good: imported later,
# gloo's threads would outlive `finish`, and now and then abort the process at its end
import torch.distributed.nn
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ..checkpoints.formats import from_bytes, to_bytes
from ..config import Machine
from ..errors import UsageError
from .memory import keep_freed_memory

# How long a process waits for the others, which may be saving or reading from a slow disk. A
# process that dies is noticed at once; only a machine that falls silent takes this long. A program
# may set another before it calls `start`.
TIMEOUT = timedelta(minutes=10)
# the environment's name for the file by which `launch`'s processes find each other
STORE = "SIMAM_STORE"
# how many processes other launchers than torchrun started: of PyTorch jobs, Open MPI, MPICH, Slurm
STARTED = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")


class Replicas(DataParallel):
    """DataParallel whose replicas keep channels-last weights and the caller's autocast type.

    PyTorch sends weights to the other GPUs as one piece, of which it cuts contiguous ones, and its
    threads take over whether there is autocast, but not to which type.
    """

    def replicate(self, module: nn.Module, device_ids: Sequence[int]) -> list[nn.Module]:
        return [in_channels_last(each) for each in super().replicate(module, device_ids)]

    def parallel_apply(self, replicas: Sequence, inputs: Sequence, kwargs: Any) -> list:
        typed = [in_callers_type(replica, self.src_device_obj.type) for replica in replicas]
        return super().parallel_apply(typed, inputs, kwargs)


def in_channels_last(replica: nn.Module) -> nn.Module:
    """`replica`, whose weights are plain tensors, with those of convolutions channels-last."""
    for module in replica.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() == 4:
            module.weight = weight.contiguous(memory_format=torch.channels_last)
    return replica


def in_callers_type(function: Callable, device_type: str) -> Callable:
    """`function` for other threads, under this one's autocast type where there is autocast."""
    dtype = torch.get_autocast_dtype(device_type)

    def call(*inputs, **more):
        torch.set_autocast_dtype(device_type, dtype)
        return function(*inputs, **more)

    return call


class Dist(NamedTuple):
    """This process among all: `rank` of `world`, computing on `device`.

    local_world: processes on this node, the same number on each. replicas: the GPUs of this
    process, several with DataParallel.
    """

    rank: int
    world: int
    device: torch.device
    local_world: int = 1
    replicas: tuple[torch.device, ...] = ()

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def nodes(self) -> int:
        return self.world // self.local_world

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of every process's `tensor`, on every process; a copy, also for one."""
        tensor = tensor.clone()
        if self.world > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def largest(self, *numbers: int) -> list[int]:
        """The largest of every process's `numbers`, one by one.

        It travels between the CPUs and leaves the GPU alone, so it may be asked at every step.
        """
        if self.world == 1:
            return list(numbers)
        tensor = torch.tensor(numbers)
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
        return tensor.tolist()

    def wait(self) -> None:
        """Wait until every process is here; leaves the GPUs alone."""
        self.largest(0)

    def from_main(self, make: Callable[[], Any]) -> Any:
        """What `make()` returns in the main process, in every process; the others don't call it.

        Plain values and tensors, so that nothing which another machine sends is ever run.
        """
        if self.world == 1:
            return make()
        data = to_bytes(make()) if self.is_main else b""
        (size,) = self.largest(len(data))
        sent = torch.frombuffer(bytearray(data or size), dtype=torch.uint8)
        torch.distributed.broadcast(sent, 0)
        return from_bytes(sent.numpy().tobytes())

    def check_same(self, settings: Mapping[str, Any]) -> None:
        """Raise UsageError where this process's `settings` are not the main one's."""
        for name, wanted in self.from_main(lambda: dict(settings)).items():
            if settings[name] != wanted:
                both = f": {settings[name]}, not {wanted}" if isinstance(wanted, int) else ""
                raise UsageError(
                    f"process {self.rank} on {socket.gethostname()} has other {name} than the "
                    f"first process{both}; the data and the command must be the same on all nodes"
                )

    def batch_size(self, per_node: int) -> int:
        """Images per step over all nodes. Raises UsageError where a node's can't be split."""
        parts = max(self.local_world, len(self.replicas))
        below = per_node // parts * parts
        if below != per_node:
            near = f"{below} or {below + parts}" if below else f"{parts}"
            raise UsageError(
                f"-b {per_node} can't be split evenly over {parts} GPUs or processes; "
                f"the nearest that can: {near}"
            )
        return per_node * self.nodes

    def workers(self, per_node: int) -> int:
        """This process's share of a node's loader workers, rounded up."""
        return -(-per_node // self.local_world)

    def place(self, model: nn.Module) -> nn.Module:
        """`model` on this process's device, its weights channels-last in memory, as the images
        are: both GPUs and CPUs convolve faster so."""
        return model.to(self.device, memory_format=torch.channels_last)

    def replicate(self, model: nn.Module) -> nn.Module:
        """`model` on this process's device, or on all of its GPUs with DataParallel."""
        model = self.place(model)
        return Replicas(model, self.replicas) if len(self.replicas) > 1 else model

    def wrap(self, model: nn.Module, sync_bn: bool = False) -> nn.Module:
        """`model` on this process's device, with gradients averaged over the processes.

        sync_bn: batch statistics over all processes, which needs GPUs (UsageError without).
        """
        if self.world == 1:
            return self.replicate(model)
        model = self.place(model)
        if sync_bn and self.device.type == "cpu":
            raise UsageError("--sync-bn needs GPUs: PyTorch's SyncBatchNorm has no CPU version")
        if sync_bn:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
        # training reads none; `for_evaluation` exchanges them. The argument of this name warns from
        # torch 2.13 on, and its successor is not there before
        wrapped.broadcast_buffers = False
        return wrapped

    def for_evaluation(self, wrapped: nn.Module) -> nn.Module:
        """The network in `wrapped`, with the main process's buffers: the ones that are saved.

        It exchanges nothing, so that processes may evaluate different numbers of batches.
        """
        if isinstance(wrapped, DistributedDataParallel):
            wrapped = wrapped.module
        if self.world > 1:
            for buffer in wrapped.buffers():
                torch.distributed.broadcast(buffer, 0)
        return wrapped


def choose_device(gpu: str | None) -> torch.device:
    """The device that one entry of `--gpu` names: "-1" is the CPU, None GPU 0 where there is one.

    Raises UsageError for what is no GPU number, and for a GPU that is not there.
    """
    present = torch.cuda.device_count()
    if gpu is None:
        return torch.device("cuda", 0) if present else torch.device("cpu")
    if gpu == "-1":
        return torch.device("cpu")
    if not gpu.isdecimal():
        raise UsageError(f"--gpu {gpu} is not a GPU number; give one such as 0, or -1 for the CPU")
    if int(gpu) >= present:
        raise UsageError(
            f"--gpu {gpu}: this machine has {present} CUDA GPUs, counted from 0; "
            "--gpu -1 computes on the CPU"
        )
    return torch.device("cuda", int(gpu))


def choose_devices(gpus: str | None, shared: bool = False) -> tuple[torch.device, ...]:
    """The devices that `--gpu` lists; raises UsageError as `choose_device`, and for a mixture.

    shared: processes may have a GPU in common, which NCCL and DataParallel don't allow.
    """
    devices = tuple(choose_device(gpu) for gpu in (gpus.split(",") if gpus else [None]))
    if len({device.type for device in devices}) > 1:
        raise UsageError(f"--gpu {gpus}: a run is on GPUs or on the CPU, not on both")
    if devices[0].type == "cuda" and len(set(devices)) < len(devices) and not shared:
        raise UsageError(f"--gpu {gpus} names one twice, which needs --dist-backend gloo")
    return devices


def alone(gpu: str | None) -> Dist:
    """The only process, on the device that `--gpu` names; raises UsageError as `choose_device`."""
    keep_freed_memory()
    return Dist(0, 1, _take(choose_device(gpu)))


def _take(device: torch.device, backend: str | None = None) -> torch.device:
    """Make `device` this process's own; raises UsageError where `backend` can't serve it."""
    if device.type == "cuda":
        # what names no device, such as the loader's thread that pins memory, would take GPU 0
        torch.cuda.set_device(device)
    elif backend == "nccl":
        raise UsageError("--dist-backend nccl needs GPUs; on the CPU, leave it out")
    return device


def is_launched() -> bool:
    """Whether torchrun, or `launch`, started this process.

    Raises UsageError where another launcher started several: each would train alone.
    """
    if torch.distributed.is_torchelastic_launched():
        return True
    for name in STARTED:
        if os.environ.get(name) not in (None, "", "1"):
            raise UsageError(
                f"{name} is {os.environ[name]}, but torchrun did not start this process; let each "
                "node start one torchrun --nnodes N --nproc-per-node K ..., or unset it"
            )
    return False


def start(machine: Machine) -> Dist:
    """Take this process's place: the only one, or the one that torchrun's environment says.

    gpu: a device for each process of this node, or -1 for all of them. parallel: "dp" gives all
    devices to the only process. dist_backend: "gloo" or "nccl"; None for what the device needs.
    Raises UsageError where this can't be.
    """
    gpus, backend = machine.gpu, machine.dist_backend
    keep_freed_memory()
    if not is_launched():
        devices = choose_devices(gpus)
        if len(devices) > 1 and devices[0].type == "cpu":
            raise UsageError("--parallel dp needs GPUs; on the CPU, leave it out")
        return Dist(0, 1, _take(devices[0], backend), replicas=devices)
    if machine.parallel == "dp":
        raise UsageError("--parallel dp is a single process; start it without torchrun")

    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")
    rank, world, local_rank, local_world, nodes = (int(os.environ[name]) for name in names)
    if world != local_world * nodes:
        raise UsageError("the nodes run different numbers of processes; give each the same")
    if gpus is None and torch.cuda.device_count():
        device = choose_device(str(local_rank))
    elif gpus in (None, "-1"):
        device = torch.device("cpu")
    else:
        devices = choose_devices(gpus, shared=backend == "gloo")
        if len(devices) != local_world:
            raise UsageError(f"--gpu {gpus}: {len(devices)} devices for {local_world} processes")
        device = devices[local_rank]
    if rank:
        warnings.simplefilter("ignore")  # the first process gives them
    _take(device, backend)
    if device.type == "cuda" and backend != "gloo":
        backend = "cpu:gloo,cuda:nccl"
    if world > 1:
        torch.distributed.init_process_group(
            backend or "gloo",
            store=_own_store(rank, world),
            rank=rank,
            world_size=world,
            timeout=TIMEOUT,
        )
    return Dist(rank, world, device, local_world)


def _own_store(rank: int, world: int) -> torch.distributed.Store:
    """The launcher's store, under a name that only the processes of this attempt know.

    torchrun keeps one store over restarts, and the addresses that the dead left there mislead
    their successors (pytorch issue 135712). Here the first process makes up a name and confirms
    to each of the others that it is alive. Raises UsageError where they don't all come.
    """
    if STORE in os.environ:
        return torch.distributed.FileStore(os.environ[STORE], world)
    store, *_ = next(torch.distributed.rendezvous("env://", timeout=TIMEOUT))
    token, end = uuid.uuid4().hex, time.monotonic() + TIMEOUT.total_seconds()
    if rank == 0:
        store.set("attempt", token)
        tokens = [store.get(f"{token}/{other}").decode() for other in range(1, world)]
        store.set(f"{token}/confirmed", " ".join(tokens))
        return torch.distributed.PrefixStore(token, store)
    while time.monotonic() < end:
        attempt = store.get("attempt").decode()
        store.set(f"{attempt}/{rank}", token)
        confirmed = f"{attempt}/confirmed"
        if store.check([confirmed]) and token in store.get(confirmed).decode():
            return torch.distributed.PrefixStore(attempt, store)
        time.sleep(0.05)
    raise UsageError(f"the first of the {world} processes did not answer within {TIMEOUT}")


def finish() -> None:
    """Leave the other processes in good order; after an error, just exit instead."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def devices_in_words(dist: Dist) -> str:
    """The devices in words, for a run's first line."""
    device = dist.device
    if device.type == "cpu":
        words = f"CPU ({torch.get_num_threads()} threads)"
    else:
        several = ", ".join(f"cuda:{replica.index}" for replica in dist.replicas)
        words = f"{several or f'cuda:{device.index}'} ({torch.cuda.get_device_name(device)})"
    if dist.world > 1:
        words += f", {dist.world} processes on {dist.nodes} node{'s' * (dist.nodes > 1)}"
    return words
