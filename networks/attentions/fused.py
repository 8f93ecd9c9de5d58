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
from torch.nn.modules import module as torch_modules

from . import fused_cpu, native
from .simam import NARROW, SimAM, dense, is_traced, like, simam_formula, triton_kernels

# The types of device where the operator takes the modules' place, a set that may be changed at any
# time; SIMAM_FUSED=0 empties it. "cuda" has kernels too, which have never run on a GPU.
FUSED = set() if os.environ.get("SIMAM_FUSED") == "0" else {"cpu"}

# Elements of a batch up to which, in training, the sums over it cost what is gained
SMALL = 2**20

# what an activation keeps of z
RANGES = {nn.ReLU: (0.0, math.inf), nn.ReLU6: (0.0, 6.0), type(None): (-math.inf, math.inf)}
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


class NormAct(NamedTuple):
    """What is done to y: its statistics and weights per channel, float32 (C,), None where the norm
    has no weights; and what the activation keeps of z."""

    mean: torch.Tensor
    variance: torch.Tensor
    gamma: torch.Tensor | None
    beta: torch.Tensor | None
    eps: float
    low: float
    high: float


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

    def at(self, mean, variance, gamma, beta) -> NormAct:
        return NormAct(mean, variance, gamma, beta, self.norm.eps, *RANGES[type(self.act)])

    def takes(self, x: torch.Tensor, residual: torch.Tensor | None) -> bool:
        """Whether the operator computes all this for such maps."""
        if type(x) is not torch.Tensor or x.device.type not in FUSED or x.dtype not in NARROW:
            return False
        if x.dim() != 4 or x.shape[1] != self.norm.num_features:
            return False
        for own in (self.norm.weight, self.norm.running_mean):
            if own is not None and (own.dtype != torch.float32 or own.device != x.device):
                return False
        if residual is not None and (
            type(residual) is not torch.Tensor
            or residual.shape != x.shape
            or residual.dtype != x.dtype
            or type(self.act) is nn.ReLU6
        ):
            return False
        # what the modules say of one value per channel, or none, is said
        if not self.group and x.numel() <= self.uses_batch * max(x.shape[1], SMALL):
            return False
        return _has_kernels(x.device)


class _Kept(NamedTuple):
    """What the backward pass needs besides tensors of the map's shape."""

    stats: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    count: float | None  # values per channel, where the norm went by them


def _kernels(x: torch.Tensor):
    """The module that does the walks where x is."""
    if x.is_cuda:
        from . import fused_triton  # here, so that nothing else imports triton

        return fused_triton
    return fused_cpu


def _moments(x: torch.Tensor, stats: torch.Tensor) -> torch.Tensor:
    """Per channel, y's mean and its squared distances from it: (2, C), float64."""
    means, squares = stats[2:4].double()
    mean = means.sum(0) / max(len(x), 1)
    apart = (means - mean).square() * math.prod(x.shape[2:])
    return torch.stack([mean, (squares + apart).sum(0)])


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


def _forward(x, residual, layer: _Layer) -> tuple[torch.Tensor, _Kept]:
    """The result for dense x and residual of x's strides."""
    kernels, norm = _kernels(x), layer.norm
    if not layer.uses_batch:
        mean, variance = norm.running_mean, norm.running_var
        behind = layer.at(mean, variance, norm.weight, norm.bias)
        out, stats = kernels.infer(x, residual, layer.e_lambda, behind)
        return out, _Kept(stats, mean, variance, None)
    stats = kernels.measure(x, layer.e_lambda)
    count, moments = x.numel() // x.shape[1], _moments(x, stats)
    if layer.group:
        count, moments = _pool(count, moments, layer.group)
    _track(norm, moments[0], moments[1] / (count - 1))
    mean, variance = moments[0].float(), (moments[1] / count).float()
    behind = layer.at(mean, variance, norm.weight, norm.bias)
    out = kernels.apply(x, residual, stats, behind)
    return out, _Kept(stats, mean, variance, count)


def _backward(grad, x, kept: _Kept, behind: NormAct, group):
    """dx, and the gradients of gamma and beta, for dense x and grad of x's strides."""
    kernels, stats = _kernels(x), kept.stats
    if kept.count is None:
        dx, sums = kernels.frozen_backward(grad, x, stats, behind)
        beta, gamma = sums[:2].double().sum(1)
        return dx, gamma, beta
    sums = kernels.sum_gradients(grad, x, stats, behind)
    own = sums[:2].double().sum(1)
    k = own / kept.count
    if group:
        distributed.all_reduce(k, group=group)
    beta, gamma = own
    return kernels.slopes(grad, x, stats, sums, k.float(), behind), gamma, beta


def _formula(x, weight, bias, residual, layer: _Layer, kept: _Kept) -> torch.Tensor:
    """The same as plain PyTorch operations, which autograd differentiates any number of times."""
    y = simam_formula(x, layer.e_lambda)
    batch = kept.count is not None
    statistics = (None, None) if batch else (kept.mean, kept.variance)
    z = F.batch_norm(y, *statistics, weight, bias, batch, 0.0, layer.norm.eps)
    z = z if residual is None else z + residual
    return z if layer.act is None else layer.act(z)


class SimAMNormActFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, residual, layer):
        lies_well = dense(x)
        rest = None if residual is None else like(residual, lies_well)
        out, kept = _forward(lies_well, rest, layer)
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
            # as views, since x may have come from the residual, by another way than through here
            inputs = [t if t is None else t.view_as(t) for t in (x, weight, bias, residual)]
            needed = ctx.needs_input_grad[:4]
            out = _formula(*inputs, layer, kept)
            asked = [t for t, wanted in zip(inputs, needed, strict=True) if wanted]
            found = iter(torch.autograd.grad(out, asked, grad, create_graph=True))
            return *(next(found) if wanted else None for wanted in needed), None
        x, behind = dense(x), layer.at(kept.mean, kept.variance, weight, bias)
        grad = like(grad, x)
        if out is not None:
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
            behind = behind._replace(low=-math.inf, high=math.inf)
        dx, gamma, beta = _backward(grad, x, kept, behind, ctx.group)
        return (
            dx,
            None if weight is None else gamma.to(weight.dtype),
            None if bias is None else beta.to(bias.dtype),
            grad if ctx.needs_input_grad[3] else None,
            None,
        )


def _has_kernels(device: torch.device) -> bool:
    return (native.library() if device.type == "cpu" else triton_kernels(device)) is not None


def how_computed(device: torch.device) -> str:
    """How networks compute SimAM there, in words for a log."""
    if not _has_kernels(device):
        return "by itself, in PyTorch"
    together = "one with norm and activation" if device.type in FUSED else "by itself"
    return f"{together}, in {'C' if device.type == 'cpu' else 'Triton'}"


def _is_bare(module: nn.Module) -> bool:
    """Whether a call of the module is its class's forward and no more."""
    before, after = module._forward_pre_hooks, module._forward_hooks
    backward = module._backward_pre_hooks or module._backward_hooks
    return not (before or after or backward or "forward" in module.__dict__)


def _are_watched() -> bool:
    """Whether something is to be called with every module; torch 2.6 has no function for that."""
    kinds = ("forward_pre", "forward", "backward_pre", "backward")
    return any(getattr(torch_modules, f"_global_{kind}_hooks") for kind in kinds)


def _layer_of(attention, norm, act, between) -> _Layer | None:
    """The modules as one; None where they are others, or more is called than their forward."""
    if type(attention) is not SimAM or type(norm) not in NORMS or type(act) not in RANGES:
        return None
    if type(between) not in (nn.Identity, type(None)) or is_traced() or _are_watched():
        return None
    if not all(_is_bare(each) for each in (attention, norm, act, between) if each is not None):
        return None
    return _Layer(attention.e_lambda, norm, act)


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
    layer = _layer_of(attention, norm, act, between)
    if layer is None or not layer.takes(x, residual):
        y = norm(attention(x))
        y = y if between is None else between(y)
        y = y if residual is None else y + residual
        return y if act is None else act(y)
    inputs = (x, norm.weight, norm.bias, residual)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
        return SimAMNormActFunction.apply(*inputs, layer)
    x = dense(x)
    return _forward(x, None if residual is None else like(residual, x), layer)[0]
