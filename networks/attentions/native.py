"""The C kernels of `simam.c`: built by the system's compiler at first use, and kept.

The library lies in the user's cache folder under a name made of the source, the flags and the
processor, so that machines which share a home folder do not run each other's. Where it can't be
built, a warning says so once, and plain PyTorch serves.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
import warnings
from functools import cache
from math import inf
from pathlib import Path

import torch

SOURCES = [Path(__file__).with_name(name) for name in ("simam.c", "panel.h")]
# no fast-math, which would take a NaN for a number
FLAGS = "-O3 -march=native -fopenmp -fno-math-errno -fno-trapping-math -shared -fPIC"
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
# the steps of a walk, in order
MEASURE, MOMENTS, APPLY, SUMS, SLOPES = 1, 2, 4, 8, 16


class Job(ctypes.Structure):
    """What a walk works on, see panel.h; it keeps no tensor alive."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "channels", "positions")),
        *((name, ctypes.c_int64) for name in ("channels_last", "type", "threads")),
        *((name, ctypes.c_void_p) for name in ("x", "grad", "residual", "out", "stats", "sums")),
        *((name, ctypes.c_void_p) for name in ("mean", "variance", "gamma", "beta", "k0", "k1")),
        *((name, ctypes.c_float) for name in ("e_lambda", "eps", "low", "high")),
    ]


def walk(x: torch.Tensor, steps: int, **fields: torch.Tensor | float | None) -> None:
    """Do the steps for x (N, C, *spatial), contiguous or channels-last; fields: of the Job."""
    images, channels = x.shape[:2]
    positions = x.numel() // max(images * channels, 1)
    job = Job(images, channels, positions, not x.is_contiguous(), TYPES[x.dtype])
    job.threads, job.x, job.low, job.high = torch.get_num_threads(), x.data_ptr(), -inf, inf
    for name, value in fields.items():
        setattr(job, name, value.data_ptr() if isinstance(value, torch.Tensor) else value)
    library().simam_walk(job, steps)


def _processor() -> str:
    """What `-march=native` goes by."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    lines = cpuinfo.read_text().split("\n\n")[0].splitlines()
    names = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU", "Features")
    return "\n".join(line for line in lines if line.startswith(names))


def _folder() -> Path:
    """The cache folder, which only this user may write to; OSError if others may, too."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "simam"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = folder.stat()
    if about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise PermissionError(f"others can write to {folder}")
    return folder


def build() -> Path:
    """The library's path; builds it unless it is there. Raises what keeps it from being built."""
    compiler = os.environ.get("CC", "cc")
    source = b"".join(path.read_bytes() for path in SOURCES)
    facts = "\n".join([compiler, FLAGS, platform.machine(), _processor()])
    name = hashlib.sha256(source + facts.encode()).hexdigest()[:32]
    library = _folder() / f"{name}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            made = Path(scratch) / "simam.so"
            command = [*shlex.split(compiler), *FLAGS.split(), str(SOURCES[0]), "-o", str(made)]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
            os.replace(made, library)  # whole at once, whoever else builds it
    return library


@cache
def library() -> ctypes.CDLL | None:
    """The kernels; None, after a warning, where they can't be built."""
    try:
        kernels = ctypes.CDLL(str(build()))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        cause = " ".join(said.split())[-300:]
        warnings.warn(
            f"SimAM is computed by plain PyTorch, slower: no C compiler builds it ({cause})",
            stacklevel=2,
        )
        return None
    kernels.simam_walk.argtypes = [ctypes.POINTER(Job), ctypes.c_int64]
    return kernels
