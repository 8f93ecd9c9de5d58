"""Seeds: one number decides a run."""

import os
import secrets
from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np
import torch


def mix_seed(*numbers: int) -> int:
    """One 64-bit seed from several non-negative numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def seeded(*numbers: int) -> Random:
    """Random numbers that nothing but `numbers` decides; quicker to make than torch's are."""
    return Random(" ".join(map(str, numbers)))


def choose_seed(seed: int | None, checkpoint: Mapping[str, Any]) -> int:
    """The given seed, else that of the checkpoint to go on from, else a new one."""
    if seed is not None:
        return seed
    return checkpoint.get("seed", secrets.randbits(32))


def seed_all(seed: int, deterministic: bool) -> None:
    """Seed torch. deterministic: choose kernels that repeat themselves, where there are any."""
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        # cuBLAS reads it when it starts; without it, its sums depend on what else runs
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # else every new tensor is first filled with NaN, which shows errors but takes time
        torch.utils.deterministic.fill_uninitialized_memory = False
