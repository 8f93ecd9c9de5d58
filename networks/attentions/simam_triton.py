"""SimAM on CUDA in Triton: float32 arithmetic from the load to the store, in both layouts.

`simam.py` holds the mathematics. A program owns a few channels. A map that fits one tile is read
once and stays in registers until it is written. A larger one is walked over twice, first for the
sums, then for the result; the second walk finds in cache what the first has left there. Where
there are too few such programs to fill the GPU, as for a detector's few images, each walk is a
kernel of its own, in which several programs share a map: they leave the sums of their parts in a
small buffer, and every program of the second kernel adds them up, in the same order.

A tile is (BLOCK_C channels, BLOCK_M positions), whichever of the two lies contiguous in memory.
"""

import math
from functools import lru_cache

import torch
import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
# Elements of a tile, 16 for each of 256 threads: as many as need no spilling of registers, with
# two to five programs on a multiprocessor
TILE = 4096
# Bytes of maps up to which the programs that fit at once leave them in second-level cache
NEAR = 2**16
# A power of 2; with more parts, adding up their sums would take its time
MOST_PARTS = 256
# Multiprocessors to plan for where x lies on no GPU: an H100's
PROCESSORS = 132


@triton.jit
def aligned(M, ALIGN: tl.constexpr):
    """M, of which the compiler learns that ALIGN divides it: pieces as wide are moved at once."""
    return M // ALIGN * ALIGN


@triton.jit
def channels_of(C, M, num_channels, BLOCK_C: tl.constexpr, CHANNELS_LAST: tl.constexpr):
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
def tile_at(start, exists, step, first, last, BLOCK_M: tl.constexpr):
    """Offsets (int64) and mask of the tile that begins at position `first`, up to `last`."""
    position = first + tl.arange(0, BLOCK_M)
    offsets = start[:, None] + position[None, :].to(tl.int64) * step
    return offsets, exists[:, None] & (position < last)[None, :]


@triton.jit
def load(pointer, offsets, mask, EVICT: tl.constexpr):
    return tl.load(pointer + offsets, mask=mask, other=0.0, eviction_policy=EVICT).to(tl.float32)


@triton.jit
def store(pointer, offsets, values, mask):
    tl.store(pointer + offsets, values.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def attention(d, rate):
    """sigmoid(a d^2 + 1/2) for rate = -a log2(e), by the root of its square: no division."""
    root = tl.rsqrt(1.0 + tl.exp2(rate[:, None] * (d * d) - 0.5 * LOG2E))
    return root * root


@triton.jit
def weigh(x, mean, a):
    """d and s of a tile."""
    d = x - mean[:, None]
    return d, attention(d, a * -LOG2E)


@triton.jit
def _slope(x, g, d, s):
    """h d of a tile, 0 outside the map, where x and g are."""
    return g * ((x * d) * (s - s * s))


@triton.jit
def _gradient(g, d, s, hd, a, t, q):
    """dx of a tile."""
    return g * s + (2.0 * a)[:, None] * (hd - (t[:, None] + d * q[:, None]))


@triton.jit
def save_stats(stats_ptr, index, exists, num_channels, mean, squares, M, e_lambda):
    """Store the mean and a = 1 / (4 (v + lambda)); returns a."""
    a = 1.0 / (4.0 * (squares / tl.maximum(M - 1, 1) + e_lambda))
    tl.store(stats_ptr + index, mean, mask=exists)
    tl.store(stats_ptr + num_channels + index, a, mask=exists)
    return a


@triton.jit
def moments_of(x_ptr, start, exists, step, first, last, BLOCK_M: tl.constexpr):
    """The mean of the positions from `first` to `last`, and their squared distances from it.

    One walk with the first tile's mean for the true one, and without the cancellation of
    E[x^2] - E[x]^2.
    """
    offsets, mask = tile_at(start, exists, step, first, last, BLOCK_M)
    x = load(x_ptr, offsets, mask, "evict_last")
    near = tl.sum(x, 1) / tl.minimum(last - first, BLOCK_M)
    sums = tl.where(mask, x - near[:, None], 0.0)
    sums2 = sums * sums
    for begin in range(first + BLOCK_M, last, BLOCK_M):
        offsets, mask = tile_at(start, exists, step, begin, last, BLOCK_M)
        x = load(x_ptr, offsets, mask, "evict_last")
        d = tl.where(mask, x - near[:, None], 0.0)
        sums += d
        sums2 += d * d
    shift = tl.sum(sums, 1) / (last - first)
    return near + shift, tl.sum(sums2, 1) - shift * shift * (last - first)


@triton.jit
def _write_y(x_ptr, y_ptr, start, exists, step, first, last, mean, a, BLOCK_M: tl.constexpr):
    for begin in range(first, last, BLOCK_M):
        offsets, mask = tile_at(start, exists, step, begin, last, BLOCK_M)
        x = load(x_ptr, offsets, mask, "evict_first")
        d, s = weigh(x, mean, a)
        store(y_ptr, offsets, x * s, mask)


@triton.jit
def _slopes(grad_ptr, x_ptr, start, exists, step, first, last, mean, a, BLOCK_M: tl.constexpr):
    """sum(h d) and sum(h d^2) over the positions from `first` to `last`."""
    sums = tl.zeros((start.shape[0], BLOCK_M), tl.float32)
    sums2 = tl.zeros((start.shape[0], BLOCK_M), tl.float32)
    for begin in range(first, last, BLOCK_M):
        offsets, mask = tile_at(start, exists, step, begin, last, BLOCK_M)
        x = load(x_ptr, offsets, mask, "evict_last")
        g = load(grad_ptr, offsets, mask, "evict_last")
        d, s = weigh(x, mean, a)
        hd = _slope(x, g, d, s)
        sums += hd
        sums2 += hd * d
    return tl.sum(sums, 1), tl.sum(sums2, 1)


@triton.jit
def _write_dx(
    grad_ptr, x_ptr, dx_ptr, start, exists, step, first, last, mean, a, t, q, BLOCK_M: tl.constexpr
):
    for begin in range(first, last, BLOCK_M):
        offsets, mask = tile_at(start, exists, step, begin, last, BLOCK_M)
        x = load(x_ptr, offsets, mask, "evict_first")
        g = load(grad_ptr, offsets, mask, "evict_first")
        d, s = weigh(x, mean, a)
        hd = _slope(x, g, d, s)
        store(dx_ptr, offsets, _gradient(g, d, s, hd, a, t, q), mask)


@triton.jit
def _part(M, SPAN):
    """Where this program's part of the map begins and ends."""
    first = tl.program_id(1) * SPAN
    return first, tl.minimum(first + SPAN, M)


@triton.jit
def _save_sums(sums_ptr, index, exists, num_channels, one, two):
    row = sums_ptr + 2 * tl.program_id(1) * num_channels + index
    tl.store(row, one, mask=exists)
    tl.store(row + num_channels, two, mask=exists)


@triton.jit
def _load_sums(sums_ptr, index, exists, num_channels, PARTS: tl.constexpr):
    """What `_save_sums` was given for every part: two tiles (BLOCK_C, PARTS), 0 beyond them."""
    part = tl.arange(0, PARTS)
    rows = sums_ptr + index[:, None] + 2 * part[None, :] * num_channels
    mask = exists[:, None] & (part < tl.num_programs(1))[None, :]
    return tl.load(rows, mask=mask, other=0.0), tl.load(rows + num_channels, mask=mask, other=0.0)


@triton.jit
def _join_moments(means, squares, M, SPAN, PARTS: tl.constexpr):
    """The `moments_of` of the whole map from those of its parts."""
    part = tl.arange(0, PARTS)
    count = tl.maximum(tl.minimum(M - part.to(tl.int64) * SPAN, SPAN), 0).to(tl.float32)[None, :]
    near = tl.sum(tl.where((part == 0)[None, :], means, 0.0), 1)
    mean = near + tl.sum((means - near[:, None]) * count, 1) / M
    # what a part's squares grow by when its own mean gives way to that of all
    apart = means - mean[:, None]
    return mean, tl.sum(squares + count * apart * apart, 1)


# WALK is "once" where the map fits one tile, "twice" where a program walks over it for the sums
# and for the result, and "sums" and "apply" where each of these is a kernel of its own


@triton.jit
def forward_kernel(
    x_ptr,
    y_ptr,
    stats_ptr,
    sums_ptr,
    C,
    M,
    num_channels,
    SPAN,
    e_lambda,
    BLOCK_C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    PARTS: tl.constexpr,
    WALK: tl.constexpr,
):
    M = aligned(M, ALIGN)
    index, exists, start, step = channels_of(C, M, num_channels, BLOCK_C, CHANNELS_LAST)
    first, last = _part(M, SPAN)
    if WALK == "once":
        offsets, mask = tile_at(start, exists, step, 0, M, BLOCK_M)
        x = load(x_ptr, offsets, mask, "evict_first")
        mean = tl.sum(x, 1) / M
        d = tl.where(mask, x - mean[:, None], 0.0)
        squares = tl.sum(d * d, 1)
    elif WALK == "apply":
        means, squares = _load_sums(sums_ptr, index, exists, num_channels, PARTS)
        mean, squares = _join_moments(means, squares, M, SPAN, PARTS)
    else:
        mean, squares = moments_of(x_ptr, start, exists, step, first, last, BLOCK_M)
    if WALK == "sums":
        _save_sums(sums_ptr, index, exists, num_channels, mean, squares)
    else:
        a = save_stats(stats_ptr, index, exists, num_channels, mean, squares, M, e_lambda)
        if WALK == "once":
            d, s = weigh(x, mean, a)
            store(y_ptr, offsets, x * s, mask)
        else:
            _write_y(x_ptr, y_ptr, start, exists, step, first, last, mean, a, BLOCK_M)


@triton.jit
def backward_kernel(
    grad_ptr,
    x_ptr,
    dx_ptr,
    stats_ptr,
    sums_ptr,
    C,
    M,
    num_channels,
    SPAN,
    BLOCK_C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    PARTS: tl.constexpr,
    WALK: tl.constexpr,
):
    M = aligned(M, ALIGN)
    index, exists, start, step = channels_of(C, M, num_channels, BLOCK_C, CHANNELS_LAST)
    first, last = _part(M, SPAN)
    mean = tl.load(stats_ptr + index, mask=exists, other=0.0)
    a = tl.load(stats_ptr + num_channels + index, mask=exists, other=0.0)
    if WALK == "once":
        offsets, mask = tile_at(start, exists, step, 0, M, BLOCK_M)
        x = load(x_ptr, offsets, mask, "evict_first")
        g = load(grad_ptr, offsets, mask, "evict_first")
        d, s = weigh(x, mean, a)
        hd = _slope(x, g, d, s)
        t, q = tl.sum(hd, 1), tl.sum(hd * d, 1)
    elif WALK == "apply":
        t, q = _load_sums(sums_ptr, index, exists, num_channels, PARTS)
        t, q = tl.sum(t, 1), tl.sum(q, 1)
    else:
        t, q = _slopes(grad_ptr, x_ptr, start, exists, step, first, last, mean, a, BLOCK_M)
    if WALK == "sums":
        _save_sums(sums_ptr, index, exists, num_channels, t, q)
    else:
        t, q = t / M, 4.0 * a * q / tl.maximum(M - 1, 1)
        if WALK == "once":
            store(dx_ptr, offsets, _gradient(g, d, s, hd, a, t, q), mask)
        else:
            _write_dx(
                grad_ptr, x_ptr, dx_ptr, start, exists, step, first, last, mean, a, t, q, BLOCK_M
            )


@triton.jit
def _empty_kernel(number):
    pass


def start_empty_kernel(device: torch.device) -> None:
    """Start a kernel that does nothing; raises whatever keeps Triton's kernels from starting."""
    with torch.cuda.device(device):
        _empty_kernel[(1,)](0)


def plan(x: torch.Tensor) -> tuple[tuple[int, int], tuple[str, ...], dict]:
    """The grid (programs that share the channels, parts of a map), the WALK of each kernel to
    start, and their other arguments; by rule: tuning would buy noise."""
    processors = PROCESSORS
    if x.is_cuda:
        processors = torch.cuda.get_device_properties(x.device).multi_processor_count
    return _planned(x.shape, not x.is_contiguous(), x.element_size(), processors)


@lru_cache(1024)
def _planned(shape: torch.Size, channels_last: bool, size: int, processors: int):
    """`plan` for elements of `size` bytes."""
    images, channels, *spatial = shape
    positions = math.prod(spatial)
    # 32 bytes of channels at least: the smallest piece of memory that is moved at once
    lanes = 32 // size
    if not channels_last:  # rows of memory, whichever image they belong to
        images, channels, lanes = 1, images * channels, 1
    widest = triton.next_power_of_2(channels)
    lanes = min(lanes, widest)
    padded = triton.next_power_of_2(positions)
    programs = images * triton.cdiv(channels, lanes)
    tile, span = TILE, positions
    if padded * lanes <= TILE:
        walks = ("once",)
    elif programs < 2 * processors:
        walks = ("sums", "apply")
        tiles = triton.cdiv(positions, TILE // lanes)
        parts = min(triton.cdiv(4 * processors, programs), MOST_PARTS, tiles)
        span = triton.cdiv(tiles, parts) * (TILE // lanes)
    else:
        walks = ("twice",)
        if lanes * positions * size > NEAR:
            tile = 2 * TILE  # and so fewer programs at once, with more threads each
    block_m = min(padded, tile // lanes)
    block_c = min(max((TILE if channels_last else TILE // 2) // block_m, lanes), widest)
    parts = triton.cdiv(positions, span)
    arguments = {
        "C": channels,
        "M": positions,
        "num_channels": images * channels,
        "SPAN": span,
        "BLOCK_C": block_c,
        "BLOCK_M": block_m,
        "CHANNELS_LAST": channels_last,
        "ALIGN": min(positions & -positions, 16),
        "PARTS": triton.next_power_of_2(parts),
        "num_warps": max(block_c * block_m // 512, 4),
    }
    return (images * triton.cdiv(channels, block_c), parts), walks, arguments


def _launch(kernel, x: torch.Tensor, *tensors: torch.Tensor, **scalars: float) -> None:
    """Run `kernel` with `tensors`, the last of which are the statistics, planned for x."""
    if not x.numel():
        return
    grid, walks, arguments = plan(x)
    sums = tensors[-1]  # not touched where maps are whole
    with torch.cuda.device_of(x):  # the current device need not be x's: DataParallel
        if grid[1] > 1:
            sums = x.new_empty((grid[1], 2, *x.shape[:2]), dtype=torch.float32)
        for walk in walks:
            kernel[grid](*tensors, sums, WALK=walk, **scalars, **arguments)


def forward(x: torch.Tensor, e_lambda: float) -> tuple[torch.Tensor, torch.Tensor]:
    """y and the statistics (2, N, C), float32. x: contiguous or channels-last."""
    y = torch.empty_like(x)
    stats = x.new_empty((2, *x.shape[:2]), dtype=torch.float32)
    _launch(forward_kernel, x, x, y, stats, e_lambda=e_lambda)
    return y, stats


def backward(grad: torch.Tensor, x: torch.Tensor, stats: torch.Tensor) -> torch.Tensor:
    """dx for the gradient of y, which has x's strides."""
    dx = torch.empty_like(x)
    _launch(backward_kernel, x, grad, x, dx, stats)
    return dx
