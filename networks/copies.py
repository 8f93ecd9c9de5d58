"""Is a copy of SimAM right? Many are twenty lines from somewhere, and some are not the paper's."""

import inspect
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import product
from typing import NamedTuple

import torch
from torch import nn

from .attentions import simam
from .attentions.simam import simam_formula

# of the paper, for who does not say which: CIFAR's and ImageNet's
LAMBDAS = (1e-4, 0.1)
NAMES = ("e_lambda", "lambda_", "lamda", "lam", "lambd")


class Variant(NamedTuple):
    """A formula near Eq. 5, made of choices of which the first of each kind is right."""

    dims: tuple[int, ...] = (2, 3)
    correction: int = 1
    brackets: bool = True
    half: float = 0.5
    gates: bool = True

    def __call__(self, x: torch.Tensor, e_lambda: float) -> torch.Tensor:
        var, mean = torch.var_mean(x, self.dims, correction=self.correction, keepdim=True)
        below = 4 * (var + e_lambda) if self.brackets else 4 * var + e_lambda
        s = torch.sigmoid((x - mean).square() / below + self.half)
        return x * s if self.gates else s

    def faults(self) -> list[str]:
        return [
            fault
            for kind, choice in zip(CHOICES, self, strict=True)
            if (fault := kind[choice]) is not None
        ]


# per choice what is wrong with it; None where nothing is
CHOICES: tuple[dict, ...] = (
    {
        (2, 3): None,
        (1,): "statistics over the channels, not over each channel's positions",
        (1, 2, 3): "statistics over all channels at once, not over each channel's positions",
        (0, 2, 3): "statistics over the batch too, not over each image alone",
        (2,): "statistics over columns, not over height and width",
        (3,): "statistics over rows, not over height and width",
    },
    {1: None, 0: "the variance is divided by H*W, in the paper's code by H*W - 1"},
    {
        True: None,
        False: "no brackets around v + lambda: 4 * (v + lambda), not 4 * v + lambda",
    },
    {0.5: None, 0.0: "no 1/2 is added inside the sigmoid"},
    {True: None, False: "it returns the weights, not x times the weights"},
)


def _variants() -> Iterator[Variant]:
    """All of them, those with the fewest faults first."""
    every = (Variant(*choices) for choices in product(*CHOICES))
    return iter(sorted(every, key=lambda variant: len(variant.faults())))


def _module(copy: type | Callable) -> Callable[[torch.Tensor], torch.Tensor]:
    """What maps x to y: an object of the class `copy`, or `copy` itself."""
    if not isinstance(copy, type):
        return deepcopy(copy).eval() if isinstance(copy, nn.Module) else copy
    for arguments in ((), (6,), (6, 6)):
        try:
            return copy(*arguments).eval()
        except (TypeError, ValueError):
            continue
    raise ValueError(f"{copy.__name__}() wants more arguments: give an object of the class")


def _lambdas(copy: type | Callable, module: Callable) -> tuple[float, ...]:
    """The lambda that the copy names, or those of the paper."""
    for name in NAMES:
        value = getattr(module, name, None)
        if value is None:
            parameter = inspect.signature(copy).parameters.get(name)
            value = parameter and parameter.default
        if isinstance(value, (int, float)):
            return (float(value),)
    return LAMBDAS


def _equation(module: Callable, lambdas: tuple[float, ...]) -> tuple[list[str], float]:
    """What is wrong in float64, and the lambda that was found."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 6, 7, 5, generator=generator, dtype=torch.float64)
    # from maps whose variance lies below lambda to such as hide it
    x = x * torch.logspace(-3, 1, 6, dtype=torch.float64).view(6, 1, 1) + 0.3
    try:
        y = module(x.clone())
    except Exception as error:  # whatever a stranger's code may raise
        return [f"it fails: {type(error).__name__}: {str(error).splitlines()[0]}"], lambdas[0]
    if not isinstance(y, torch.Tensor) or y.shape != x.shape:
        found = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
        return [f"it makes {found} of a map {tuple(x.shape)}"], lambdas[0]
    for variant in _variants():
        for e_lambda in lambdas:
            if torch.allclose(y.double(), variant(x, e_lambda), rtol=1e-5, atol=1e-6):
                return variant.faults(), e_lambda
    apart = (y - simam_formula(x, lambdas[0])).abs().max()
    named = " or ".join(f"{each:g}" for each in lambdas)
    return [f"it is no formula near Eq. 5 with lambda {named}: up to {apart:.2g} off"], lambdas[0]


def _half_precision(module: Callable, e_lambda: float) -> list[str]:
    """Whether the weights stay what they are where sums and squares pass float16's 65504."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(1, 2, 160, 160, generator=generator) * 4).half()
    exact = simam_formula(x.double(), e_lambda)
    try:
        y = module(x.clone()).double()
    except RuntimeError as error:
        return [f"in float16 it fails: {str(error).splitlines()[0]}"]
    ours = (simam(x, e_lambda).double() - exact).abs().max()
    apart = (y - exact).abs().max()
    if apart < 0.05:
        return []
    found = (y / x.double())[x != 0]
    what = "is not finite"
    if y.isfinite().all():
        what = f"collapses, its weights lie in {found.min():.3f} to {found.max():.3f}"
    return [
        f"in float16 it {what}: up to {apart:.2g} off, where statistics in float32 are {ours:.1g}"
    ]


def _one_position(module: Callable) -> list[str]:
    if module(torch.ones(1, 6, 1, 1)).isfinite().all():
        return []
    return ["a map of one position gives NaN: H*W - 1 is 0, divide by max(H*W - 1, 1)"]


def check(copy: type[nn.Module] | Callable, e_lambda: float | None = None) -> list[str]:
    """What is wrong with a copy of SimAM, a line for each fault; nothing where it is right.

    copy: a module, its class, or a function that maps x (N, C, H, W) to the same shape. It runs
    against Eq. 5 in float64, on a large map in float16, and on maps of one position. e_lambda: the
    lambda that it works with, by default what it says itself, or else 1e-4 or 0.1.
    Raises ValueError for a class that needs arguments other than the number of channels.
    """
    module = _module(copy)
    lambdas = _lambdas(copy, module) if e_lambda is None else (e_lambda,)
    with torch.no_grad():
        faults, found = _equation(module, lambdas)
        if not faults:
            faults = _half_precision(module, found) + _one_position(module)
    return faults
