"""The walks of `fused.py` on CUDA in Triton; float32 arithmetic from the load to the store.

`simam_triton.py` says what a tile is. The walk that measures has a program for a few channels of an
image, which looks at them twice: its second look finds them in second-level cache. The others share
a map among programs of ROUNDS tiles each. Arguments and results are those of `fused_cpu.py`.
"""

import math
from functools import lru_cache

import torch
import triton
import triton.language as tl

from .simam_triton import aligned, channels_of, load, moments_of, save_stats, store, tile_at, weigh

# Elements of a tile, 8 for each of 256 threads: more, and the numbers of many small maps spill
TILE = 2048
ROUNDS = 4


@triton.jit
def _numbers(pointer, row, index, exists, count):
    """A number of each channel, from a row of a table."""
    return tl.load(pointer + row * count + index, mask=exists, other=0.0)


@triton.jit
def _keep(pointer, row, index, exists, count, numbers):
    tl.store(pointer + row * count + index, numbers, mask=exists)


@triton.jit
def _layer(stats_ptr, table_ptr, index, exists, C, num_channels):
    """Of each channel the mean and a, the factor and offset that make z of y, and y's mean."""
    mean = _numbers(stats_ptr, 0, index, exists, num_channels)
    a = _numbers(stats_ptr, 1, index, exists, num_channels)
    scale = _numbers(table_ptr, 0, index % C, exists, C)
    shift = _numbers(table_ptr, 1, index % C, exists, C)
    return mean, a, scale, shift, _numbers(table_ptr, 2, index % C, exists, C)


@triton.jit
def _look(x, g, mean, a, scale, shift, low, high):
    """d, s, y, the gradient that passes the activation and w of a tile."""
    d, s = weigh(x, mean, a)
    y = x * s
    z = scale[:, None] * y + shift[:, None]
    gz = tl.where((z <= low) | (z >= high), 0.0, g)
    return d, s, y, gz, (y - y * s) * d


@triton.jit
def measure_kernel(
    x_ptr,
    stats_ptr,
    C,
    M,
    num_channels,
    e_lambda,
    BLOCK_C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    OF_Y: tl.constexpr,
):
    M = aligned(M, ALIGN)
    index, exists, start, step = channels_of(C, M, num_channels, BLOCK_C, CHANNELS_LAST)
    mean, squares = moments_of(x_ptr, start, exists, step, 0, M, BLOCK_M)
    a = save_stats(stats_ptr, index, exists, num_channels, mean, squares, M, e_lambda)
    if OF_Y:
        near = mean * 0.62245935  # y where d = 0
        one = tl.zeros((BLOCK_C, BLOCK_M), tl.float32)
        two, r0, r1, r2, r3 = one, one, one, one, one
        for begin in range(0, M, BLOCK_M):
            offsets, mask = tile_at(start, exists, step, begin, M, BLOCK_M)
            x = load(x_ptr, offsets, mask, "evict_first")
            d, s = weigh(x, mean, a)
            y = x * s
            e = tl.where(mask, y - near[:, None], 0.0)
            w = (y - y * s) * d  # 0 outside the map, where x is
            wd = w * d
            one += e
            two += e * e
            r0 += w
            r1 += e * w
            r2 += wd
            r3 += e * wd
        shift, squares = tl.sum(one, 1) / M, tl.sum(two, 1)
        r0, r2 = tl.sum(r0, 1), tl.sum(r2, 1)
        r1, r3 = tl.sum(r1, 1) - shift * r0, tl.sum(r3, 1) - shift * r2
        _keep(stats_ptr, 2, index, exists, num_channels, near + shift)
        _keep(stats_ptr, 3, index, exists, num_channels, squares - shift * shift * M)
        _keep(stats_ptr, 4, index, exists, num_channels, r0)
        _keep(stats_ptr, 5, index, exists, num_channels, r1)
        _keep(stats_ptr, 6, index, exists, num_channels, r2)
        _keep(stats_ptr, 7, index, exists, num_channels, r3)


@triton.jit
def apply_kernel(
    x_ptr,
    rest_ptr,
    out_ptr,
    stats_ptr,
    table_ptr,
    C,
    M,
    num_channels,
    low,
    high,
    BLOCK_C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    SPAN: tl.constexpr,
    RESIDUAL: tl.constexpr,
):
    M = aligned(M, ALIGN)
    index, exists, start, step = channels_of(C, M, num_channels, BLOCK_C, CHANNELS_LAST)
    mean, a, scale, shift, centre = _layer(stats_ptr, table_ptr, index, exists, C, num_channels)
    first = tl.program_id(1) * SPAN
    for begin in range(first, tl.minimum(first + SPAN, M), BLOCK_M):
        offsets, mask = tile_at(start, exists, step, begin, M, BLOCK_M)
        x = load(x_ptr, offsets, mask, "evict_first")
        d, s = weigh(x, mean, a)
        z = scale[:, None] * (x * s) + shift[:, None]
        if RESIDUAL:
            z += load(rest_ptr, offsets, mask, "evict_first")
        z = tl.where(z < low, low, z)  # a NaN stays one
        store(out_ptr, offsets, tl.where(z > high, high, z), mask)


@triton.jit
def sums_kernel(
    grad_ptr,
    x_ptr,
    stats_ptr,
    table_ptr,
    sums_ptr,
    C,
    M,
    num_channels,
    low,
    high,
    BLOCK_C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    SPAN: tl.constexpr,
):
    M = aligned(M, ALIGN)
    index, exists, start, step = channels_of(C, M, num_channels, BLOCK_C, CHANNELS_LAST)
    mean, a, scale, shift, centre = _layer(stats_ptr, table_ptr, index, exists, C, num_channels)
    rstd = _numbers(table_ptr, 3, index % C, exists, C)
    p0 = tl.zeros((BLOCK_C, BLOCK_M), tl.float32)
    p1, p2, p3 = p0, p0, p0
    first = tl.program_id(1) * SPAN
    for begin in range(first, tl.minimum(first + SPAN, M), BLOCK_M):
        offsets, mask = tile_at(start, exists, step, begin, M, BLOCK_M)
        x = load(x_ptr, offsets, mask, "evict_first")
        g = load(grad_ptr, offsets, mask, "evict_first")
        d, s, y, gz, w = _look(x, g, mean, a, scale, shift, low, high)
        gw = gz * w  # 0 outside the map, where g is
        p0 += gz
        p1 += gz * (y - centre[:, None])
        p2 += gw
        p3 += gw * d
    row = 4 * tl.program_id(1)
    _keep(sums_ptr, row, index, exists, num_channels, tl.sum(p0, 1))
    _keep(sums_ptr, row + 1, index, exists, num_channels, tl.sum(p1, 1) * rstd)
    _keep(sums_ptr, row + 2, index, exists, num_channels, tl.sum(p2, 1))
    _keep(sums_ptr, row + 3, index, exists, num_channels, tl.sum(p3, 1))


@triton.jit
def slopes_kernel(
    grad_ptr,
    x_ptr,
    dx_ptr,
    stats_ptr,
    table_ptr,
    sums_ptr,
    C,
    M,
    num_channels,
    low,
    high,
    BLOCK_C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    SPAN: tl.constexpr,
    BATCH: tl.constexpr,
):
    M = aligned(M, ALIGN)
    index, exists, start, step = channels_of(C, M, num_channels, BLOCK_C, CHANNELS_LAST)
    mean, a, scale, shift, centre = _layer(stats_ptr, table_ptr, index, exists, C, num_channels)
    t = _numbers(sums_ptr, 2, index, exists, num_channels)
    q = _numbers(sums_ptr, 3, index, exists, num_channels)
    if BATCH:
        k0 = _numbers(table_ptr, 4, index % C, exists, C)
        k1 = _numbers(table_ptr, 5, index % C, exists, C)
        apart = _numbers(stats_ptr, 2, index, exists, num_channels) - centre
        r0 = _numbers(stats_ptr, 4, index, exists, num_channels)
        r1 = _numbers(stats_ptr, 5, index, exists, num_channels)
        r2 = _numbers(stats_ptr, 6, index, exists, num_channels)
        r3 = _numbers(stats_ptr, 7, index, exists, num_channels)
        t -= k0 * r0 + k1 * (r1 + apart * r0)
        q -= k0 * r2 + k1 * (r3 + apart * r2)
        k0 *= scale
        k1 *= scale
    twice = 2.0 * a
    t *= scale * twice / M
    q *= scale * twice * twice * 2.0 / tl.maximum(M - 1, 1)
    first = tl.program_id(1) * SPAN
    for begin in range(first, tl.minimum(first + SPAN, M), BLOCK_M):
        offsets, mask = tile_at(start, exists, step, begin, M, BLOCK_M)
        x = load(x_ptr, offsets, mask, "evict_first")
        g = load(grad_ptr, offsets, mask, "evict_first")
        d, s, y, gz, w = _look(x, g, mean, a, scale, shift, low, high)
        gy = scale[:, None] * gz
        if BATCH:
            gy -= k0[:, None] + k1[:, None] * (y - centre[:, None])
        dx = gy * s + (twice[:, None] * (gy * w) - (t[:, None] + d * q[:, None]))
        store(dx_ptr, offsets, dx, mask)


def plan(x: torch.Tensor, shares: bool) -> tuple[tuple[int, int], dict]:
    """The grid (programs for the channels, parts of a map), and the kernel's other arguments.

    shares: whether programs share a map; then 128 bytes of channels are a row of channels-last.
    """
    lanes = (128 if shares else 32) // x.element_size() if not x.is_contiguous() else None
    return _planned(x.shape, lanes, ROUNDS if shares else None)


@lru_cache(1024)
def _planned(shape, lanes: int | None, rounds: int | None):
    """`plan` for channels-last with so many channels at least, or contiguous (None); rounds: tiles
    of a program, None for all of the map."""
    images, channels, *spatial = shape
    positions, channels_last = math.prod(spatial), lanes is not None
    widest = triton.next_power_of_2(channels if channels_last else images * channels)
    lanes = min(lanes or 1, widest)
    block_m = min(triton.next_power_of_2(max(positions, 1)), TILE // lanes)
    block_c = min(max(TILE // block_m, lanes), widest)
    rows, own = (images, channels) if channels_last else (1, images * channels)
    arguments = {
        "C": channels,
        "M": positions,
        "num_channels": images * channels,
        "BLOCK_C": block_c,
        "BLOCK_M": block_m,
        "CHANNELS_LAST": channels_last,
        "ALIGN": min(positions & -positions, 16),
        "num_warps": max(block_c * block_m // 256, 4),
    }
    parts = 1
    if rounds:
        arguments["SPAN"] = rounds * block_m
        parts = triton.cdiv(positions, rounds * block_m)
    return (rows * triton.cdiv(own, block_c), parts), arguments


def _launch(kernel, x: torch.Tensor, shares: bool, *tensors, **scalars) -> None:
    if not x.numel():
        return
    grid, arguments = plan(x, shares)
    with torch.cuda.device_of(x):  # the current device need not be x's: DataParallel
        kernel[grid](*tensors, **scalars, **arguments)


def _table(behind, k: torch.Tensor | None = None) -> torch.Tensor:
    """y's factor and offset, its mean and 1 / deviation, k0 and k1 / deviation: (4 or 6, C)."""
    rstd = (behind.variance + behind.eps).rsqrt()
    scale = rstd if behind.gamma is None else rstd * behind.gamma
    shift = -behind.mean * scale
    shift = shift if behind.beta is None else behind.beta + shift
    more = () if k is None else (k[0], k[1] * rstd)
    return torch.stack([scale, shift, behind.mean, rstd, *more])


def _measure(x, e_lambda, rows: int) -> torch.Tensor:
    stats = x.new_empty((rows, *x.shape[:2]), dtype=torch.float32)
    _launch(measure_kernel, x, False, x, stats, e_lambda=e_lambda, OF_Y=rows > 2)
    return stats


def measure(x, e_lambda) -> torch.Tensor:
    return _measure(x, e_lambda, 8)


def apply(x, residual, stats, behind) -> torch.Tensor:
    out = torch.empty_like(x)
    tensors = (x, x if residual is None else residual, out, stats, _table(behind))
    settings = {"low": behind.low, "high": behind.high, "RESIDUAL": residual is not None}
    _launch(apply_kernel, x, True, *tensors, **settings)
    return out


def infer(x, residual, e_lambda, behind) -> tuple[torch.Tensor, torch.Tensor]:
    stats = _measure(x, e_lambda, 2)
    return apply(x, residual, stats, behind), stats


def sum_gradients(grad, x, stats, behind) -> torch.Tensor:
    (_, parts), _ = plan(x, True)
    sums = stats.new_empty((parts, 4, *x.shape[:2]))
    tensors = (grad, x, stats, _table(behind), sums)
    _launch(sums_kernel, x, True, *tensors, low=behind.low, high=behind.high)
    return sums.sum(0)


def slopes(grad, x, stats, sums, k, behind) -> torch.Tensor:
    dx = torch.empty_like(x)
    tensors = (grad, x, dx, stats, _table(behind, k), sums)
    settings = {"low": behind.low, "high": behind.high, "BATCH": k is not None}
    _launch(slopes_kernel, x, True, *tensors, **settings)
    return dx


def frozen_backward(grad, x, stats, behind) -> tuple[torch.Tensor, torch.Tensor]:
    sums = sum_gradients(grad, x, stats, behind)
    return slopes(grad, x, stats, sums, None, behind), sums
