import pytest
import torch

from networks.attentions import SimAM, simam


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 5, 6), (2, 3, 3, 4, 2), (1, 1, 1, 2)])
def test_gradcheck(shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: simam(x, 0.1), x)


def test_one_position_has_the_attention_of_zero_deviation():
    x = torch.randn(2, 3, 1, 1)
    torch.testing.assert_close(simam(x), x * torch.sigmoid(torch.tensor(0.5)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_statistics_do_not_overflow(dtype):
    x = (10 * torch.randn(1, 2, 112, 112)).to(dtype)
    attention = simam(x).double() / x.double()
    expected = simam(x.double()) / x.double()
    assert simam(x).dtype == dtype
    assert attention.nan_to_num().std() > 0.03
    torch.testing.assert_close(attention, expected, atol=1e-2, rtol=0, equal_nan=True)


def test_module_repeats_the_function_and_has_no_state():
    module = SimAM(64, 0.1)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(module(x), simam(x, 0.1))
    assert not module.state_dict()
