"""SimAM on CUDA in Triton: float32 arithmetic from the load to the store, in both layouts.

`simam.py` holds the mathematics. A program owns a few channels. A map that fits one tile (up to
16384 positions contiguous, 28x28 channels-last) is read once and stays in registers until it is
written. A larger one is walked over twice, first for the sums, then for the result; the second
walk finds in second-level cache what the first has left there.

A tile is (BLOCK_C channels, BLOCK_M positions), whichever of the two lies contiguous in memory.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def _channels(C, M, num_channels, BLOCK_C: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """This program's channels: their index over batch and channels, which exist, and where each
    one begins in memory (int64), with the step from one position to the next."""
    program = tl.program_id(0)
    lane = tl.arange(0, BLOCK_C)
    if CHANNELS_LAST:  # a program stays within one image
        per_image = tl.cdiv(C, BLOCK_C)
        image = (program // per_image).to(tl.int64)
        channel = (program % per_image) * BLOCK_C + lane
        exists = channel < C
        index = image * C + channel
        start = image * C * M + channel
        step = C
    else:
        index = program.to(tl.int64) * BLOCK_C + lane
        exists = index < num_channels
        start = index * M
        step = 1
    return index, exists, start, step


@triton.jit
def _tile(start, exists, step, first, M, BLOCK_M: tl.constexpr):
    """Offsets (int64) and mask of the tile that begins at position `first`."""
    position = first + tl.arange(0, BLOCK_M)
    offsets = start[:, None] + position[None, :].to(tl.int64) * step
    return offsets, exists[:, None] & (position < M)[None, :]


@triton.jit
def _load(pointer, offsets, mask, EVICT: tl.constexpr):
    return tl.load(pointer + offsets, mask=mask, other=0.0, eviction_policy=EVICT).to(tl.float32)


@triton.jit
def _weigh(x, mean, a):
    """d and s of a tile."""
    d = x - mean[:, None]
    return d, tl.sigmoid(a[:, None] * d * d + 0.5)


@triton.jit
def _slope(x, g, d, s, mask):
    """h d of a tile, 0 outside the map."""
    return tl.where(mask, g * x * s * (1 - s) * d, 0.0)


@triton.jit
def _forward_kernel(
    x_ptr,
    y_ptr,
    stats_ptr,
    C,
    M,
    num_channels,
    e_lambda,
    BLOCK_C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    ONE_TILE: tl.constexpr,
):
    index, exists, start, step = _channels(C, M, num_channels, BLOCK_C, CHANNELS_LAST)
    n = tl.maximum(M - 1, 1)
    # torch.compile passes Python floats as float64, which would promote all that follows
    e_lambda = tl.full((BLOCK_C,), e_lambda, tl.float32)
    offsets, mask = _tile(start, exists, step, 0, M, BLOCK_M)
    x = _load(x_ptr, offsets, mask, "evict_last" if not ONE_TILE else "evict_first")
    mean = tl.sum(x, 1) / tl.minimum(M, BLOCK_M)
    if ONE_TILE:
        d = tl.where(mask, x - mean[:, None], 0.0)
        squares = tl.sum(d * d, 1)
    else:
        # sums of the distances to the first tile's mean: one walk, and without the cancellation
        # of E[x^2] - E[x]^2
        d = tl.where(mask, x - mean[:, None], 0.0)
        sums = d
        sums2 = d * d
        for first in range(BLOCK_M, M, BLOCK_M):
            offsets, mask = _tile(start, exists, step, first, M, BLOCK_M)
            x = _load(x_ptr, offsets, mask, "evict_last")
            d = tl.where(mask, x - mean[:, None], 0.0)
            sums += d
            sums2 += d * d
        shift = tl.sum(sums, 1) / M
        mean += shift
        squares = tl.sum(sums2, 1) - shift * shift * M
    a = 1.0 / (4.0 * (squares / n + e_lambda))
    tl.store(stats_ptr + index, mean, mask=exists)
    tl.store(stats_ptr + num_channels + index, a, mask=exists)

    if ONE_TILE:
        d, s = _weigh(x, mean, a)
        tl.store(y_ptr + offsets, (x * s).to(y_ptr.dtype.element_ty), mask=mask)
    else:
        for first in range(0, M, BLOCK_M):
            offsets, mask = _tile(start, exists, step, first, M, BLOCK_M)
            x = _load(x_ptr, offsets, mask, "evict_first")
            d, s = _weigh(x, mean, a)
            tl.store(y_ptr + offsets, (x * s).to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _backward_kernel(
    grad_ptr,
    x_ptr,
    stats_ptr,
    dx_ptr,
    C,
    M,
    num_channels,
    BLOCK_C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    ONE_TILE: tl.constexpr,
):
    index, exists, start, step = _channels(C, M, num_channels, BLOCK_C, CHANNELS_LAST)
    n = tl.maximum(M - 1, 1)
    mean = tl.load(stats_ptr + index, mask=exists, other=0.0)
    a = tl.load(stats_ptr + num_channels + index, mask=exists, other=0.0)
    if ONE_TILE:
        offsets, mask = _tile(start, exists, step, 0, M, BLOCK_M)
        x = _load(x_ptr, offsets, mask, "evict_first")
        g = _load(grad_ptr, offsets, mask, "evict_first")
        d, s = _weigh(x, mean, a)
        hd = _slope(x, g, d, s, mask)
        t = tl.sum(hd, 1) / M
        q = 4.0 * a * tl.sum(hd * d, 1) / n
        dx = g * s + 2.0 * a[:, None] * (hd - t[:, None] - d * q[:, None])
        tl.store(dx_ptr + offsets, dx.to(dx_ptr.dtype.element_ty), mask=mask)
    else:
        sums = tl.zeros((BLOCK_C, BLOCK_M), tl.float32)
        sums2 = tl.zeros((BLOCK_C, BLOCK_M), tl.float32)
        for first in range(0, M, BLOCK_M):
            offsets, mask = _tile(start, exists, step, first, M, BLOCK_M)
            x = _load(x_ptr, offsets, mask, "evict_last")
            g = _load(grad_ptr, offsets, mask, "evict_last")
            d, s = _weigh(x, mean, a)
            hd = _slope(x, g, d, s, mask)
            sums += hd
            sums2 += hd * d
        t = tl.sum(sums, 1) / M
        q = 4.0 * a * tl.sum(sums2, 1) / n
        for first in range(0, M, BLOCK_M):
            offsets, mask = _tile(start, exists, step, first, M, BLOCK_M)
            x = _load(x_ptr, offsets, mask, "evict_first")
            g = _load(grad_ptr, offsets, mask, "evict_first")
            d, s = _weigh(x, mean, a)
            hd = _slope(x, g, d, s, mask)
            dx = g * s + 2.0 * a[:, None] * (hd - t[:, None] - d * q[:, None])
            tl.store(dx_ptr + offsets, dx.to(dx_ptr.dtype.element_ty), mask=mask)


def _plan(x: torch.Tensor) -> tuple[tuple[int], dict]:
    """The grid, and the arguments that both kernels share, by rule: tuning would buy noise."""
    batch, channels = x.shape[:2]
    positions = x[0, 0].numel()
    channels_last = not x.is_contiguous()
    padded = triton.next_power_of_2(positions)
    if channels_last:
        # 32 bytes of channels at least: the smallest piece of memory that is moved at once
        lanes = 32 // x.element_size()
        block_m = min(padded, 16384 // lanes)
        widest = triton.next_power_of_2(channels)
        block_c = min(max(lanes, 4096 // block_m), widest)
        programs = batch * triton.cdiv(channels, block_c)
    else:
        block_m = min(padded, 16384)
        block_c = max(2048 // block_m, 1)
        programs = triton.cdiv(batch * channels, block_c)
    shared = {
        "C": channels,
        "M": positions,
        "num_channels": batch * channels,
        "BLOCK_C": block_c,
        "BLOCK_M": block_m,
        "CHANNELS_LAST": channels_last,
        "ONE_TILE": block_m >= positions,
        "num_warps": min(max(block_c * block_m // 512, 4), 16),
    }
    return (programs,), shared


def forward(x: torch.Tensor, e_lambda: float) -> tuple[torch.Tensor, torch.Tensor]:
    """y and the statistics (2, N, C), float32. x: contiguous or channels-last."""
    y = torch.empty_like(x)
    stats = x.new_empty((2, *x.shape[:2]), dtype=torch.float32)
    if x.numel():
        grid, shared = _plan(x)
        with torch.cuda.device_of(x):  # the current device need not be x's: DataParallel
            _forward_kernel[grid](x, y, stats, e_lambda=e_lambda, **shared)
    return y, stats


def backward(grad: torch.Tensor, x: torch.Tensor, stats: torch.Tensor) -> torch.Tensor:
    """dx for the gradient of y, which has x's strides."""
    dx = torch.empty_like(x)
    if x.numel():
        grid, shared = _plan(x)
        with torch.cuda.device_of(x):
            _backward_kernel[grid](grad, x, stats, dx, **shared)
    return dx
