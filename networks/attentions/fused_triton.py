"""The walks of `fused.py` on CUDA in Triton; float32 arithmetic from the load to the store.

`simam_triton.py` says what a tile is. The walk that measures has a program for a few channels of an
image, which looks at them twice: its second look finds them in second-level cache. The others share
a map among programs of ROUNDS tiles each. Arguments and results are those of `fused_cpu.py`; what
is per channel alone is left to PyTorch.
"""

import torch
import triton
import triton.language as tl

from .simam_triton import (
    LOG2E,
    attention,
    channels_of,
    load,
    moments_of,
    save_stats,
    store,
    tile_at,
)

# Elements of a tile where little is kept of each, and where sums are: 16 and 8 for a thread
TILE, SUMS_TILE = 4096, 2048
ROUNDS = 4


@triton.jit
def _measure_kernel(
    x_ptr,
    stats_ptr,
    C,
    M,
    num_channels,
    e_lambda,
    BLOCK_C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    OF_Y: tl.constexpr,
):
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
            d = x - mean[:, None]
            s = attention(d, a * -LOG2E)
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
        shift = tl.sum(one, 1) / M
        r0, r2 = tl.sum(r0, 1), tl.sum(r2, 1)
        row = stats_ptr + 2 * num_channels + index
        tl.store(row, near + shift, mask=exists)
        tl.store(row + num_channels, tl.sum(two, 1) - shift * shift * M, mask=exists)
        tl.store(row + 2 * num_channels, r0, mask=exists)
        tl.store(row + 3 * num_channels, tl.sum(r1, 1) - shift * r0, mask=exists)
        tl.store(row + 4 * num_channels, r2, mask=exists)
        tl.store(row + 5 * num_channels, tl.sum(r3, 1) - shift * r2, mask=exists)


@triton.jit
def _numbers(table_ptr, which, index, exists, count):
    return tl.load(table_ptr + which * count + index, mask=exists, other=0.0)


@triton.jit
def _apply_kernel(
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
    SPAN: tl.constexpr,
    RESIDUAL: tl.constexpr,
):
    index, exists, start, step = channels_of(C, M, num_channels, BLOCK_C, CHANNELS_LAST)
    mean = _numbers(stats_ptr, 0, index, exists, num_channels)
    rate = _numbers(stats_ptr, 1, index, exists, num_channels) * -LOG2E
    scale = _numbers(table_ptr, 0, index % C, exists, C)
    shift = _numbers(table_ptr, 1, index % C, exists, C)
    first = tl.program_id(1) * SPAN
    for begin in range(first, tl.minimum(first + SPAN, M), BLOCK_M):
        offsets, mask = tile_at(start, exists, step, begin, M, BLOCK_M)
        x = load(x_ptr, offsets, mask, "evict_first")
        z = scale[:, None] * (x * attention(x - mean[:, None], rate)) + shift[:, None]
        if RESIDUAL:
            z += load(rest_ptr, offsets, mask, "evict_first")
        z = tl.where(z < low, low, z)  # a NaN stays one
        store(out_ptr, offsets, tl.where(z > high, high, z), mask)


@triton.jit
def _look(x, g, mean, rate, scale, shift, low, high):
    """d, s, y, the gradient that passes the activation and w / g of a tile."""
    d = x - mean[:, None]
    s = attention(d, rate)
    y = x * s
    z = scale[:, None] * y + shift[:, None]
    gz = tl.where((z <= low) | (z >= high), 0.0, g)
    return d, s, y, gz, (y - y * s) * d


@triton.jit
def _sums_kernel(
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
    SPAN: tl.constexpr,
):
    index, exists, start, step = channels_of(C, M, num_channels, BLOCK_C, CHANNELS_LAST)
    mean = _numbers(stats_ptr, 0, index, exists, num_channels)
    rate = _numbers(stats_ptr, 1, index, exists, num_channels) * -LOG2E
    scale = _numbers(table_ptr, 0, index % C, exists, C)
    shift = _numbers(table_ptr, 1, index % C, exists, C)
    centre = _numbers(table_ptr, 2, index % C, exists, C)
    rstd = _numbers(table_ptr, 3, index % C, exists, C)
    p0 = tl.zeros((BLOCK_C, BLOCK_M), tl.float32)
    p1, p2, p3 = p0, p0, p0
    first = tl.program_id(1) * SPAN
    for begin in range(first, tl.minimum(first + SPAN, M), BLOCK_M):
        offsets, mask = tile_at(start, exists, step, begin, M, BLOCK_M)
        x = load(x_ptr, offsets, mask, "evict_first")
        g = load(grad_ptr, offsets, mask, "evict_first")
        d, s, y, gz, w = _look(x, g, mean, rate, scale, shift, low, high)
        gw = gz * w  # 0 outside the map, where g is
        p0 += gz
        p1 += gz * (y - centre[:, None])
        p2 += gw
        p3 += gw * d
    row = sums_ptr + 4 * tl.program_id(1) * num_channels + index
    tl.store(row, tl.sum(p0, 1), mask=exists)
    tl.store(row + num_channels, tl.sum(p1, 1) * rstd, mask=exists)
    tl.store(row + 2 * num_channels, tl.sum(p2, 1), mask=exists)
    tl.store(row + 3 * num_channels, tl.sum(p3, 1), mask=exists)


@triton.jit
def _slopes_kernel(
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
    SPAN: tl.constexpr,
    BATCH: tl.constexpr,
):
    index, exists, start, step = channels_of(C, M, num_channels, BLOCK_C, CHANNELS_LAST)
    mean = _numbers(stats_ptr, 0, index, exists, num_channels)
    a = _numbers(stats_ptr, 1, index, exists, num_channels)
    scale = _numbers(table_ptr, 0, index % C, exists, C)
    shift = _numbers(table_ptr, 1, index % C, exists, C)
    centre = _numbers(table_ptr, 2, index % C, exists, C)
    t = _numbers(sums_ptr, 2, index, exists, num_channels)
    q = _numbers(sums_ptr, 3, index, exists, num_channels)
    if BATCH:
        k0 = _numbers(table_ptr, 4, index % C, exists, C)
        k1 = _numbers(table_ptr, 5, index % C, exists, C)
        apart = _numbers(stats_ptr, 2, index, exists, num_channels) - centre
        r0 = _numbers(stats_ptr, 4, index, exists, num_channels)
        r2 = _numbers(stats_ptr, 6, index, exists, num_channels)
        r1 = _numbers(stats_ptr, 5, index, exists, num_channels) + apart * r0
        r3 = _numbers(stats_ptr, 7, index, exists, num_channels) + apart * r2
        t -= k0 * r0 + k1 * r1
        q -= k0 * r2 + k1 * r3
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
        d, s, y, gz, w = _look(x, g, mean, a * -LOG2E, scale, shift, low, high)
        gy = scale[:, None] * gz
        if BATCH:
            gy -= k0[:, None] + k1[:, None] * (y - centre[:, None])
        dx = gy * s + (twice[:, None] * (gy * w) - (t[:, None] + d * q[:, None]))
        store(dx_ptr, offsets, dx, mask)


def plan(x: torch.Tensor, tile: int, shares: bool) -> tuple[tuple[int, int], dict]:
    """The grid (programs for the channels, parts of a map), and the kernel's other arguments.

    shares: whether programs share a map; then 128 bytes of channels are a row of channels-last.
    """
    images, channels = x.shape[:2]
    positions = x.numel() // max(images * channels, 1)
    channels_last = not x.is_contiguous()
    widest = triton.next_power_of_2(channels if channels_last else images * channels)
    lanes = min((128 if shares else 32) // x.element_size(), widest) if channels_last else 1
    block_m = min(triton.next_power_of_2(positions), tile // lanes)
    block_c = min(max(tile // block_m, lanes), widest)
    groups = images * triton.cdiv(channels, block_c)
    if not channels_last:
        groups = triton.cdiv(images * channels, block_c)
    arguments = {
        "C": channels,
        "M": positions,
        "num_channels": images * channels,
        "BLOCK_C": block_c,
        "BLOCK_M": block_m,
        "CHANNELS_LAST": channels_last,
        "num_warps": max(block_c * block_m * 8 // tile, 4),
    }
    span = ROUNDS * block_m
    arguments |= {"SPAN": span} if shares else {}
    return (groups, triton.cdiv(positions, span) if shares else 1), arguments


def _launch(kernel, x: torch.Tensor, tile: int, shares: bool, *tensors, **scalars) -> None:
    grid, arguments = plan(x, tile, shares)
    with torch.cuda.device_of(x):  # the current device need not be x's: DataParallel
        kernel[grid](*tensors, **scalars, **arguments)


def _table(norm, k: torch.Tensor | None = None) -> torch.Tensor:
    """y's factor and offset, its mean and 1 / deviation, k0 and k1 / deviation: (4 or 6, C)."""
    rstd = (norm.variance + norm.eps).rsqrt()
    scale = rstd if norm.gamma is None else rstd * norm.gamma
    shift = -norm.mean * scale if norm.beta is None else norm.beta - norm.mean * scale
    more = () if k is None else (k[0], k[1] * rstd)
    return torch.stack([scale, shift, norm.mean, rstd, *more])


def _measure(x, e_lambda, rows: int) -> torch.Tensor:
    stats = x.new_empty((rows, *x.shape[:2]), dtype=torch.float32)
    if x.numel():
        settings = {"e_lambda": e_lambda, "OF_Y": rows > 2}
        _launch(_measure_kernel, x, SUMS_TILE, False, x, stats, **settings)
    return stats


def measure(x, e_lambda) -> torch.Tensor:
    return _measure(x, e_lambda, 8)


def batch_moments(x, stats) -> torch.Tensor:
    ybar, own = stats[2:4].double()
    mean = ybar.mean(0)
    positions = x.numel() // ybar.numel()
    return torch.stack([mean, (own + positions * (ybar - mean).square()).sum(0)])


def apply(x, residual, stats, norm, range) -> torch.Tensor:
    out = torch.empty_like(x)
    if x.numel():
        rest = x if residual is None else residual
        tensors = (x, rest, out, stats, _table(norm))
        settings = {"low": range[0], "high": range[1], "RESIDUAL": residual is not None}
        _launch(_apply_kernel, x, TILE, True, *tensors, **settings)
    return out


def infer(x, residual, e_lambda, norm, range) -> tuple[torch.Tensor, torch.Tensor]:
    stats = _measure(x, e_lambda, 2)
    return apply(x, residual, stats, norm, range), stats


def sum_gradients(grad, x, stats, norm, range) -> torch.Tensor:
    if not x.numel():
        return stats.new_zeros((4, *x.shape[:2]))
    (_, parts), _ = plan(x, SUMS_TILE, True)
    sums = stats.new_empty((parts, 4, *x.shape[:2]))
    tensors, settings = (grad, x, stats, _table(norm), sums), {"low": range[0], "high": range[1]}
    _launch(_sums_kernel, x, SUMS_TILE, True, *tensors, **settings)
    return sums.sum(0)


def batch_gradients(x, sums) -> torch.Tensor:
    return sums[:2].double().sum(1)


def slopes(grad, x, stats, sums, k, norm, range) -> torch.Tensor:
    dx = torch.empty_like(x)
    if x.numel():
        tensors = (grad, x, dx, stats, _table(norm, k), sums)
        settings = {"low": range[0], "high": range[1], "BATCH": k is not None}
        _launch(_slopes_kernel, x, TILE, True, *tensors, **settings)
    return dx


def frozen_backward(grad, x, stats, norm, range) -> tuple[torch.Tensor, torch.Tensor]:
    sums = sum_gradients(grad, x, stats, norm, range)
    return slopes(grad, x, stats, sums, None, norm, range), sums
