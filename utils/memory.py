"""The C library's allocator."""

import ctypes
import platform

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 2**31 - 1


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
