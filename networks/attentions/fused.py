"""SimAM, batch norm and activation as one operator, which moves no more memory than the last two.

SimAM stands between a convolution and its norm, and both look at whole maps before they write, so
they can look together. Beside the notation of `simam.py`, per channel over N images, L = N M:

    u = (y - m) r,   r = 1 / sqrt(V + eps),   z = gamma u + beta + residual,   out = act(z)

Forward, walk 1 over x: mean and a, then y's mean and squared distances, of which m and V are made;
walk 2: out = act(A y + B + residual) with A = gamma r, B = beta - m A. Backward, for gz the
gradient that passes the activation and w = y (1 - s) d, per image and channel in walk 1

    P0 = sum(gz),   P1 = sum(gz u),   P2 = sum(gz w),   P3 = sum(gz w d)
    R0 = sum(w),    R1 = sum(u w),    R2 = sum(w d),    R3 = sum(u w d)       (made by the forward)

dbeta and dgamma are P0 and P1 over all images, k0 and k1 the same over L, and in walk 2

    gy = A (gz - k0 - u k1),   T = A (P2 - k0 R0 - k1 R1),   Q = A (P3 - k0 R2 - k1 R3),
    dx = gy s + 2 a (gy w - T / M - 4 a d Q / n).

Where m and V are the running ones, k0 = k1 = 0 and each direction is one walk. y is never written:
a training step moves 3 + 5 maps, where batch norm and ReLU alone move 5 + 8.
"""

import math
import os
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import distributed, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

from . import fused_cpu, native
from .simam import NARROW, SimAM, simam_formula, triton_kernels

# The types of device where the operator takes the modules' place, a set that may be changed at any
# time: none, since its speed in whole networks has yet to be measured; SIMAM_FUSED=1: the CPU.
# "cuda" has kernels too, which have never run on a GPU.
FUSED = {"cpu"} if os.environ.get("SIMAM_FUSED") == "1" else set()

# what an activation keeps of z
RANGES = {nn.ReLU: (0.0, math.inf), nn.ReLU6: (0.0, 6.0), type(None): (-math.inf, math.inf)}
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


class Norm(NamedTuple):
    """y's statistics per channel, and what the norm makes of them: float32 (C,) or None."""

    mean: torch.Tensor
    variance: torch.Tensor
    gamma: torch.Tensor | None
    beta: torch.Tensor | None
    eps: float


class _Layer(NamedTuple):
    """What stands behind the convolution."""

    e_lambda: float
    norm: nn.BatchNorm2d
    act: nn.Module | None

    @property
    def uses_batch(self) -> bool:
        """Whether the norm goes by the batch's statistics."""
        return self.norm.training or self.norm.running_mean is None

    @property
    def group(self):
        """The processes whose batches are one for the norm; None for this one's alone."""
        synced = isinstance(self.norm, nn.SyncBatchNorm) and self.norm.training
        if not (synced and distributed.is_available() and distributed.is_initialized()):
            return None
        group = self.norm.process_group or distributed.group.WORLD
        return group if distributed.get_world_size(group) > 1 else None

    def with_statistics(self, mean: torch.Tensor, variance: torch.Tensor) -> Norm:
        return Norm(mean, variance, self.norm.weight, self.norm.bias, self.norm.eps)


def _kernels(x: torch.Tensor):
    """The module that does the walks where x is."""
    if x.is_cuda:
        from . import fused_triton  # here, so that nothing else imports triton

        return fused_triton
    return fused_cpu


def _dense(x: torch.Tensor) -> torch.Tensor:
    """x where it is contiguous or channels-last, which the kernels read as it lies, or a copy."""
    lies_well = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    return x if lies_well else x.contiguous()


def _like(tensor: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`tensor` with x's strides."""
    return tensor if tensor.stride() == x.stride() else torch.empty_like(x).copy_(tensor)


def _pool(count: int, moments: torch.Tensor, group) -> tuple[float, torch.Tensor]:
    """The values per channel and their moments over all processes, by Chan's sums."""
    own = torch.cat([moments.new_full((2, 1), count), moments], 1)
    every = [torch.empty_like(own) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(every, own, group=group)
    every = torch.stack(every)
    counts, means, squares = every[:, 0, :1], every[:, 0, 1:], every[:, 1, 1:]
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    squares = (squares + counts * (means - mean).square()).sum(0)
    return total.item(), torch.stack([mean, squares])


def _track(norm: nn.BatchNorm2d, mean: torch.Tensor, variance: torch.Tensor) -> None:
    """Take the batch's mean and unbiased variance into the running ones."""
    if not norm.training or norm.running_mean is None:
        return
    norm.num_batches_tracked.add_(1)
    share = norm.momentum
    if share is None:
        share = 1 / norm.num_batches_tracked.item()
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), share)


class _Kept(NamedTuple):
    """What the backward pass needs besides tensors of the map's shape."""

    stats: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    count: float | None  # values per channel, where the norm went by them


def _forward(x, residual, layer: _Layer) -> tuple[torch.Tensor, _Kept]:
    """The result for dense x and residual of x's strides."""
    kernels, module, kept_range = _kernels(x), layer.norm, RANGES[type(layer.act)]
    if not layer.uses_batch:
        mean, variance = module.running_mean, module.running_var
        norm = layer.with_statistics(mean, variance)
        out, stats = kernels.infer(x, residual, layer.e_lambda, norm, kept_range)
        return out, _Kept(stats, mean, variance, None)
    stats = kernels.measure(x, layer.e_lambda)
    count = x.numel() // x.shape[1]
    moments = kernels.batch_moments(x, stats) if count else stats.new_zeros(2, x.shape[1]).double()
    if layer.group:
        count, moments = _pool(count, moments, layer.group)
    _track(module, moments[0], moments[1] / (count - 1))
    mean, variance = moments[0].float(), (moments[1] / count).float()
    norm = layer.with_statistics(mean, variance)
    out = kernels.apply(x, residual, stats, norm, kept_range)
    return out, _Kept(stats, mean, variance, count)


def _backward(grad, x, kept: _Kept, norm: Norm, kept_range, group):
    """dx, and the gradients of gamma and beta, for dense x and grad of x's strides."""
    kernels, stats = _kernels(x), kept.stats
    if kept.count is None:
        dx, sums = kernels.frozen_backward(grad, x, stats, norm, kept_range)
        beta, gamma = kernels.batch_gradients(x, sums)
        return dx, gamma, beta
    sums = kernels.sum_gradients(grad, x, stats, norm, kept_range)
    own = kernels.batch_gradients(x, sums)
    k = own / kept.count
    if group:
        distributed.all_reduce(k, group=group)
    beta, gamma = own
    return kernels.slopes(grad, x, stats, sums, k.float(), norm, kept_range), gamma, beta


def _formula(x, weight, bias, residual, layer: _Layer, kept: _Kept) -> torch.Tensor:
    """The same as plain PyTorch operations, which autograd differentiates any number of times."""
    y = simam_formula(x, layer.e_lambda)
    batch = kept.count is not None
    statistics = (None, None) if batch else (kept.mean, kept.variance)
    z = F.batch_norm(y, *statistics, weight, bias, batch, 0.0, layer.norm.eps)
    z = z if residual is None else z + residual
    return z if layer.act is None else layer.act(z)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, residual, layer):
        dense = _dense(x)
        rest = None if residual is None else _like(residual, dense)
        out, kept = _forward(dense, rest, layer)
        # where a residual was added, the result alone says what passed the activation
        masks = residual is not None and layer.act is not None
        ctx.save_for_backward(x, weight, bias, residual, out if masks else None, *kept[:3])
        ctx.layer, ctx.count, ctx.group = layer, kept.count, layer.group
        return out

    @staticmethod
    def backward(ctx, grad):
        x, weight, bias, residual, out, *kept = ctx.saved_tensors
        layer, kept = ctx.layer, _Kept(*kept, ctx.count)
        if torch.is_grad_enabled():  # it is to be differentiated itself
            if ctx.group:
                raise RuntimeError("SyncBatchNorm behind SimAM is differentiated once, not twice")
            inputs, needed = [x, weight, bias, residual], ctx.needs_input_grad[:4]
            out = _formula(*inputs, layer, kept)
            asked = [t for t, wanted in zip(inputs, needed, strict=True) if wanted]
            found = iter(torch.autograd.grad(out, asked, grad, create_graph=True))
            return *(next(found) if wanted else None for wanted in needed), None
        dense, kept_range = _dense(x), RANGES[type(layer.act)]
        grad = _like(grad, dense)
        if out is not None:
            grad, kept_range = torch.ops.aten.threshold_backward(grad, out, 0), RANGES[type(None)]
        norm = Norm(kept.mean, kept.variance, weight, bias, layer.norm.eps)
        dx, gamma, beta = _backward(grad, dense, kept, norm, kept_range, ctx.group)
        return (
            dx,
            None if weight is None else gamma.to(weight.dtype),
            None if bias is None else beta.to(bias.dtype),
            grad if ctx.needs_input_grad[3] else None,
            None,
        )


def _has_kernels(device: str) -> bool:
    return (native.library() if device == "cpu" else triton_kernels()) is not None


def how_computed(device: str) -> str:
    """How networks compute SimAM on that type of device, in words for a log."""
    fused = device in FUSED and _has_kernels(device)
    language = {"cpu": "C", "cuda": "Triton"}[device] if _has_kernels(device) else "PyTorch"
    return f"{'one with norm and activation' if fused else 'by itself'}, in {language}"


def _is_bare(module: nn.Module) -> bool:
    """Whether a call of the module is its class's forward and no more."""
    before, after = module._forward_pre_hooks, module._forward_hooks
    backward = module._backward_pre_hooks or module._backward_hooks
    return not (before or after or backward or "forward" in module.__dict__)


def _is_traced() -> bool:
    """Whether something watches the operations, and is to see the modules'."""
    return (
        torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or forward_ad._current_level >= 0
        or _has_any_global_hook()
    )


def _fits(x, attention, norm, act, residual, between) -> bool:
    """Whether the operator can take the modules' place."""
    if type(attention) is not SimAM or type(norm) not in NORMS or type(act) not in RANGES:
        return False
    if type(x) is not torch.Tensor or x.device.type not in FUSED or x.dtype not in NARROW:
        return False
    if type(between) not in (nn.Identity, type(None)):
        return False
    if not all(_is_bare(each) for each in (attention, norm, act, between) if each is not None):
        return False
    if _is_traced() or x.dim() != 4 or x.shape[1] != norm.num_features:
        return False
    for own in (norm.weight, norm.running_mean):
        if own is not None and (own.dtype != torch.float32 or own.device != x.device):
            return False
    if residual is not None and (
        type(residual) is not torch.Tensor
        or residual.shape != x.shape
        or residual.dtype != x.dtype
        or type(act) is nn.ReLU6
    ):
        return False
    if type(norm) is nn.BatchNorm2d and x.numel() <= x.shape[1]:
        return False  # nothing, or one value per channel: what the modules say of it is said
    return _has_kernels(x.device.type)


def simam_norm_act(
    x: torch.Tensor,
    attention: nn.Module,
    norm: nn.Module,
    act: nn.Module | None = None,
    residual: torch.Tensor | None = None,
    between: nn.Module | None = None,
) -> torch.Tensor:
    """`act(between(norm(attention(x))) + residual)`: what a block does behind a convolution.

    x, residual: (N, C, H, W) -> same shape, dtype and memory format. One operator where the modules
    are exactly SimAM, BatchNorm2d or SyncBatchNorm, ReLU, ReLU6 or None, and Identity or None,
    nothing but their forward is to be called (no hooks, no tracing), and `FUSED` names x's device;
    else the modules one by one, whatever they are. The norm's running statistics become the same.
    """
    if torch.compiler.is_compiling() or not _fits(x, attention, norm, act, residual, between):
        y = norm(attention(x))
        y = y if between is None else between(y)
        y = y if residual is None else y + residual
        return y if act is None else act(y)
    layer = _Layer(attention.e_lambda, norm, act)
    if torch.is_grad_enabled():
        inputs = (x, norm.weight, norm.bias, residual)
        if any(t is not None and t.requires_grad for t in inputs):
            return _Fused.apply(*inputs, layer)
    dense = _dense(x)
    return _forward(dense, None if residual is None else _like(residual, dense), layer)[0]
