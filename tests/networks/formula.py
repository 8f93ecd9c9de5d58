"""What SimAM's operator is compared with: the formula in float64, which `test_attentions.py`
compares with the paper's equations, and what the formula loses in the operator's dtype."""

import torch

from networks.attentions.simam import simam_formula

FLOORS = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def differentiate(function, x, grad, e_lambda=0.1):
    """The function's value at x, and the gradient there that `grad` leads to."""
    x = x.detach().requires_grad_()
    y = function(x, e_lambda)
    y.backward(grad)
    return y.detach(), x.grad


def gap(found, exact):
    return (found.double() - exact).abs().max().item() if exact.numel() else 0.0


def assert_as_good_as_the_formula(found, x, grad, e_lambda=0.1):
    """Half precision may add a floor to the formula's own error, float32 to twice that: near zero
    it is nothing, but far from zero most of it."""
    exact = differentiate(simam_formula, x.double(), grad.double(), e_lambda)
    plain = differentiate(simam_formula, x, grad, e_lambda)
    times = 2 if x.dtype == torch.float32 else 1
    for ours, theirs, truth in zip(found, plain, exact, strict=True):
        assert gap(ours, truth) <= times * gap(theirs, truth) + FLOORS[x.dtype]
