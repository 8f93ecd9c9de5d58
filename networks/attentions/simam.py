"""SimAM, the attention module without parameters (Yang et al., ICML 2021).

Per channel, with M positions, n = max(M - 1, 1), d = x - mean and v = sum(d^2) / n:

    a = 1 / (4 (v + e_lambda)),   s = sigmoid(a d^2 + 1/2),   y = x s     (Eq. 5 and 6)

The paper divides by M (H W in an image), the code that trained its released weights by M - 1; so
does this. Eq. 3 is printed as w = -2 (t - mu) / (...), but what minimises the energy of Eq. 2 is
w = 2 (t - mu) / (...); the minimal energy, Eq. 5, is that of this w (the tests find both
numerically).

The statistics are float32 at least: half-precision sums over a large map overflow, and the
attention would silently become a constant. Written as autograd sees it, SimAM is a dozen passes
over the map and keeps four maps for the backward pass. The operator keeps x, mean and a: for the
gradient g of y, with h = g x s (1 - s),

    dx = g s + 2 a (h d - sum(h d) / M - 4 a d sum(h d^2) / n).
"""

import importlib.util
import warnings
from collections.abc import Sequence
from functools import cache

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.overrides import handle_torch_function, has_torch_function_unary

from . import simam_cpu
from .arguments import e_lambda_of

# What the kernels compute; float64 is left to the formula, which is as exact and differentiates
# any number of times
NARROW = (torch.float32, torch.bfloat16, torch.float16)


def simam_weights(x: torch.Tensor, e_lambda: float = 1e-4) -> torch.Tensor:
    """The attention s that `simam` multiplies x by: float32 at least, from sigmoid(1/2) to 1."""
    dims = list(range(2, x.dim()))
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    d2 = (wide - wide.mean(dims, keepdim=True)).square()
    positions = 1
    for size in x.shape[2:]:
        positions *= size
    squares = d2.sum(dims, keepdim=True)
    # as a tensor: max(positions - 1, 1) would be a choice that a tracer could not follow
    n = (torch.ones_like(squares) * (positions - 1)).clamp(min=1)
    v = squares / n
    return torch.sigmoid(d2 / (4 * (v + e_lambda)) + 0.5)


def simam_formula(x: torch.Tensor, e_lambda: float = 1e-4) -> torch.Tensor:
    """`simam` as plain PyTorch operations: the reference, and what compilers and exporters see."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * simam_weights(wide, e_lambda)).to(x.dtype)


@cache
def triton_kernels(device: torch.device):
    """The module of the kernels for that GPU; None where Triton can't start one there, with a
    warning that says why not, where it is installed.

    It builds its launcher with the machine's C compiler, which images made to run PyTorch lack.
    A lack of memory is raised: it may pass.
    """
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        from . import simam_triton  # here, so that nothing else imports triton

        simam_triton.start_empty_kernel(device)
    except Exception as error:
        if "out of memory" in str(error):
            raise
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        warnings.warn(
            f"SimAM is computed by its formula, slower: Triton starts no kernel ({cause})",
            stacklevel=2,
        )
        return None
    return simam_triton


def dense(x: torch.Tensor) -> torch.Tensor:
    """x where it is contiguous or channels-last, which the kernels read as it lies, or a copy."""
    return x if x.is_contiguous() or x.movedim(1, -1).is_contiguous() else x.contiguous()


def like(tensor: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`tensor` with x's strides."""
    return tensor if tensor.stride() == x.stride() else torch.empty_like(x).copy_(tensor)


def _kernels(x: torch.Tensor):
    """The module whose forward and backward run where x is."""
    return triton_kernels(x.device) if x.is_cuda else simam_cpu


def _forward(x: torch.Tensor, e_lambda: float) -> tuple[torch.Tensor, torch.Tensor]:
    """y, and the statistics that the backward pass takes."""
    lies_well = dense(x)
    y, stats = _kernels(x).forward(lies_well, e_lambda)
    return (y if lies_well is x else torch.empty_like(x).copy_(y)), stats


class SimAMFunction(torch.autograd.Function):
    """SimAM by kernels; keeps x, and two numbers per channel."""

    @staticmethod
    def forward(ctx, x, e_lambda):
        y, stats = _forward(x, e_lambda)
        ctx.save_for_backward(x, stats)
        ctx.e_lambda = e_lambda
        return y

    @staticmethod
    def backward(ctx, grad):
        x, stats = ctx.saved_tensors
        if torch.is_grad_enabled():  # it is to be differentiated itself
            y = simam_formula(x, ctx.e_lambda)
            return torch.autograd.grad(y, x, grad, create_graph=True)[0], None
        x = dense(x)
        return _kernels(x).backward(like(grad, x), x, stats), None


def is_traced() -> bool:
    """Whether something watches the operations, and is to see those of plain PyTorch."""
    return (
        torch.compiler.is_compiling()  # fuses the formula into faster code; torch.export, ONNX
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()  # vmap, jvp, ...
        or torch._C._len_torch_dispatch_stack() > 0  # counters of FLOPs, fake tensors, ...
        or forward_ad._current_level >= 0
    )


def _is_for_kernels(x: torch.Tensor) -> bool:
    """False for what the formula serves: exact dtypes, other devices, whatever traces it."""
    if x.dtype not in NARROW or type(x) is not torch.Tensor or is_traced():
        return False
    return x.device.type == "cpu" or (x.is_cuda and triton_kernels(x.device) is not None)


def simam(x: torch.Tensor, e_lambda: float = 1e-4) -> torch.Tensor:
    """Weigh every neuron of `x` by the inverse of its minimal energy (Eq. 5 and 6).

    x: (N, C, *spatial), one to three spatial dimensions, any float dtype, contiguous or
    channels-last without a copy -> same shape, dtype and memory format. A 1x1 map gives
    x * sigmoid(1/2). One image (C, H, W) would be taken for N sequences: give it as x[None].
    e_lambda: the regulariser of the energy, positive.
    Raises ValueError for another number of dimensions, TypeError for another dtype.
    """
    if torch.jit.is_scripting():
        return simam_formula(x, e_lambda)
    else:  # a branch of its own, which torch.jit.script does not read
        return _simam(x, e_lambda)


def _simam(x: torch.Tensor, e_lambda: float) -> torch.Tensor:
    if has_torch_function_unary(x):  # torch.fx's tracer and the like take the function as a whole
        return handle_torch_function(simam, (x,), x, e_lambda)
    if not 3 <= x.dim() <= 5:
        raise ValueError(
            "SimAM needs a batch, channels and one to three spatial dimensions, "
            f"not the shape {tuple(x.shape)}"
        )
    if not x.is_floating_point():
        raise TypeError(f"SimAM needs a floating-point tensor, not {x.dtype}")
    if not _is_for_kernels(x):
        return simam_formula(x, e_lambda)
    if torch.is_grad_enabled() and x.requires_grad:
        return SimAMFunction.apply(x, e_lambda)
    return _forward(x, e_lambda)[0]


class SimAM(nn.Module):
    """`simam` as a module; it has no parameters and no buffers.

    channels: any number of whole numbers, which public copies and parsers of networks give, and
    which say nothing here; a number with a fraction among them is e_lambda: SimAM(64, 64),
    SimAM(0.1), SimAM(64, 1e-4). e_lambda: the regulariser of the energy, 1e-4 for CIFAR and 0.1
    for ImageNet and COCO in the paper. dims: where the statistics run; None takes all spatial
    dimensions, (-2, -1) each frame of a volume (N, C, T, H, W) alone. device, dtype: ignored,
    there is nothing to place.
    Raises ValueError for a lambda that is not positive, for other dims, and for what could mean
    something else.
    """

    def __init__(
        self,
        *channels: float | str | None,
        e_lambda: float | str = 1e-4,
        dims: Sequence[int] | None = None,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if dims not in (None, (-2, -1), [-2, -1]):
            raise ValueError(f"SimAM's dims are None, all, or (-2, -1), not {dims}")
        self.e_lambda = e_lambda_of(channels, e_lambda, default=1e-4)
        self.dims = dims

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.dims is None:
            return simam(x, self.e_lambda)
        # each frame of a channel as a channel
        return simam(x.flatten(1, -3), self.e_lambda).view_as(x)

    def extra_repr(self) -> str:
        return f"e_lambda={self.e_lambda:g}" + (f", dims={self.dims}" if self.dims else "")


simam_module = SimAM  # its name in the authors' code, and in most copies
