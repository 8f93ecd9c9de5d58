"""Memory: kept by the C library's allocator, and what is said when there is too little."""

import ctypes
import platform
import re

import torch

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 2**31 - 1
# what libraries say of it, in errors of their own: CUDA, Triton and NCCL; cuBLAS, cuSOLVER and
# cuDNN, the last in two ways; PyTorch, the system, C++
GPU_WORDS = ("out of memory", "_ALLOC_FAILED", "DEVICE_ALLOCATION_FAILED")
CPU_WORDS = ("DefaultCPUAllocator", "Cannot allocate memory", "bad_alloc", "HOST_ALLOCATION_FAILED")


def keep_freed_memory() -> None:
    """Let large tensors take the memory of those freed before.

    By default glibc asks the system for every block above 32 MB and gives it back when it is
    freed, so each step's activations are zeroed pages again, which took up to half of a step on
    the CPU. From here on they come from the process's heap, which keeps its size: the peak of a
    training process, which it has again in every step anyway. Nothing happens under other C
    libraries than glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        for name in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            mallopt(name, LARGEST)


def lack_of_memory(error: Exception, needs_less: str) -> str | None:
    """That memory ran out, where, and what helps, in a line; None for any other error.

    needs_less: what helps where it is a device's.
    """
    if "unable to allocate shared memory" in str(error):  # a worker's, for its batches
        return (
            "out of shared memory; fewer workers (-j) or a smaller -b needs less, "
            "docker run --shm-size gives more"
        )
    if str(error).startswith("DataLoader worker"):  # lost, most often to the system's OOM killer
        lost = " ".join(str(error).split()).rstrip(".")
        return (
            f"{lost}; the system kills what it has no memory for: fewer workers (-j) or a smaller "
            "-b needs less"
        )
    if isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in GPU_WORDS):
        place = "GPU"
    elif isinstance(error, MemoryError) or any(words in str(error) for words in CPU_WORDS):
        place = "CPU"
    else:
        return None
    wanted = re.search(r"allocate ([\d.]+ \w+)", str(error))
    amount = f", which was asked for {wanted[1]}" if wanted else ""
    return f"out of memory on the {place}{amount}; {needs_less}"
