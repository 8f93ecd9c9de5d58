"""The operator on the CPU: its C kernels, and plain PyTorch where there is no compiler."""

import math

import pytest
import torch
from formula import assert_as_good_as_the_formula, differentiate
from layouts import channels_last, contiguous

from networks.attentions import native, simam
from networks.attentions.simam import SimAMFunction, simam_formula
from scripts.bench.costs import kept_for_backward

MAPS = {  # shape, mean, standard deviation
    "primes": ((3, 7, 13, 17), 1, 2),
    "1x1, no variance": ((3, 5, 1, 1), 1, 2),
    "1x2": ((2, 3, 1, 2), 1, 2),
    "one channel, which is in both layouts": ((4, 1, 8, 8), 1, 2),
    "no image": ((0, 4, 7, 7), 1, 2),
    "no position": ((2, 4, 0, 7), 1, 2),
    "blocks of several rows, or of one": ((2, 16, 200, 200), 1, 2),
    "one spatial dimension": ((2, 5, 40), 1, 2),
    "three spatial dimensions": ((2, 5, 3, 6, 4), 1, 2),
    "constant": ((1, 2, 9, 9), -3, 0),
    "sums of squares would lose this variance": ((2, 8, 32, 32), 300, 1),
}
both_layouts = pytest.mark.parametrize("layout", [contiguous, channels_last])


@pytest.fixture(autouse=True, params=["C", "PyTorch"])
def kernels(request, monkeypatch):
    if request.param == "PyTorch":
        monkeypatch.setattr(native, "library", lambda: None)
    elif not native.library():
        pytest.skip("needs a C compiler")


@both_layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("shape", "mean", "deviation"), MAPS.values(), ids=MAPS)
def test_value_and_gradient(shape, mean, deviation, dtype, layout):
    x, grad = torch.randn(shape) * deviation + mean, torch.randn(shape) + 1
    x, grad = layout(x.to(dtype)), layout(grad.to(dtype))
    found = differentiate(simam, x, grad)
    assert_as_good_as_the_formula(found, x, grad)
    for each in found:
        assert each.dtype == dtype
        assert each.stride() == x.stride()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sums_of_a_large_half_precision_map_do_not_overflow(dtype):
    """The attention would silently become a constant."""
    x = (10 * torch.randn(1, 2, 112, 112) + 20).to(dtype)
    attention = (simam(x).double() / x.double()).nan_to_num()
    expected = (simam_formula(x.double()) / x.double()).nan_to_num()
    assert expected.std() > 0.03
    torch.testing.assert_close(attention, expected, atol=1e-2, rtol=0)


def test_a_single_position_is_weighed_by_the_sigmoid_of_one_half():
    y = simam(torch.full((2, 3, 1, 1), 4.0))
    torch.testing.assert_close(y, torch.full_like(y, 4 / (1 + math.exp(-0.5))))


@pytest.mark.parametrize("e_lambda", [1e-6, 10.0])
def test_e_lambda(e_lambda):
    x, grad = torch.randn(2, 4, 9, 9) / 10, torch.randn(2, 4, 9, 9)
    found = differentiate(simam, x, grad, e_lambda)
    assert_as_good_as_the_formula(found, x, grad, e_lambda)


@both_layouts
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 2, 1, 2)])
def test_closed_form_in_float64(shape, layout):
    """Which `simam` itself would leave to the formula."""
    x = layout(torch.randn(shape, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: SimAMFunction.apply(x, 0.1), x)


def test_keeps_one_map_for_the_backward_pass():
    x = torch.randn(4, 8, 28, 28, requires_grad=True)
    assert x.nbytes <= kept_for_backward(simam, x) <= 1.05 * x.nbytes
    assert kept_for_backward(simam_formula, x) > 3.5 * x.nbytes
    assert kept_for_backward(simam, x.detach()) == 0
