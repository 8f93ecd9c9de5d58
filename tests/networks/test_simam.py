"""SimAM in every way PyTorch can run it, on the CPU and on a GPU. What the operator's kernels
compute: `test_simam_cpu.py` and `test_simam_triton.py`."""

import numpy as np
import pytest
import torch
from formula import assert_as_good_as_the_formula, differentiate
from layouts import channels_last, contiguous, sliced, transposed
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from networks.attentions import SimAM, simam
from networks.attentions.simam import simam_formula


@pytest.mark.parametrize("e_lambda", [1e-4, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_papers_energy_is_minimal_where_the_docstring_says(seed, e_lambda):
    """Eq. 2, a linear neuron that separates t (1) from the others (-1), minimised numerically."""
    rng = np.random.default_rng(seed)
    t, *others = rng.normal(rng.normal(), rng.uniform(0.2, 3), 49)
    others = np.array(others)

    def energy(wb):
        w, b = wb
        return np.mean((-1 - (w * others + b)) ** 2) + (1 - (w * t + b)) ** 2 + e_lambda * w**2

    from scipy.optimize import minimize  # a machine with a GPU may have no scipy

    found = minimize(energy, (0.0, 0.0), method="BFGS", options={"gtol": 1e-10})
    mu, variance = others.mean(), others.var()
    scale = (t - mu) ** 2 + 2 * variance + 2 * e_lambda
    w = 2 * (t - mu) / scale  # Eq. 3, with a plus sign
    assert found.x == pytest.approx([w, -(t + mu) * w / 2], rel=1e-4, abs=1e-6)
    assert found.fun == pytest.approx(4 * (variance + e_lambda) / scale, rel=1e-6)  # Eq. 5


def expanded(x):
    return x[:1, :, :1, :1].expand_as(x)


@pytest.mark.parametrize("grad_layout", [contiguous, channels_last, sliced, expanded])
@pytest.mark.parametrize("layout", [contiguous, channels_last, sliced, transposed])
def test_layouts_of_input_and_gradient(layout, grad_layout, device):
    x, grad = (torch.randn(2, 6, 67, 65, device=device) * 2 + 1 for _ in range(2))
    x, grad = layout(x), grad_layout(grad)
    found = differentiate(simam, x, grad)
    assert found[0].stride() == found[1].stride() == torch.empty_like(x).stride()
    assert_as_good_as_the_formula(found, x, grad)


def test_second_derivative(device):
    x, grad = (torch.randn(2, 3, 6, 6, device=device) * 2 + 1 for _ in range(2))

    def twice(function, x, grad):
        x, grad = x.detach().requires_grad_(), grad.detach().requires_grad_()
        (dx,) = torch.autograd.grad(function(x, 0.1), x, grad, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), (x, grad))

    exact = twice(simam_formula, x.double(), grad.double())
    for found, expected in zip(twice(simam, x, grad), exact, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's, such as that TF32 would be faster
@pytest.mark.parametrize("layout", [contiguous, channels_last])
def test_compile(layout, device):
    """One graph, static and for a second shape."""
    compiled = torch.compile(simam, fullgraph=True)
    for shape in ((2, 6, 9, 9), (3, 6, 12, 9)):
        x, grad = (layout(torch.randn(shape, device=device)) for _ in range(2))
        found = differentiate(compiled, x, grad)
        assert_as_good_as_the_formula(found, x, grad)
        assert found[0].stride() == x.stride()


def small_net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), SimAM(8), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3))


def test_autocast(device):
    net, x = small_net().to(device), torch.randn(2, 3, 12, 12, device=device)
    seen = []
    net[1].register_forward_hook(lambda _, args, y: seen.extend([args[0].dtype, y.dtype]))
    with torch.autocast(device.type, torch.bfloat16):
        y = net(x)
    y.float().square().mean().backward()
    assert seen == [torch.bfloat16, torch.bfloat16]
    assert net[0].weight.grad.isfinite().all()
    assert net[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing(use_reentrant, device):
    # without a convolution: on a GPU its gradient may come from sums in any order
    net = nn.Sequential(SimAM(3), nn.Softplus(), SimAM(3))
    x = torch.randn(2, 3, 70, 70, device=device)
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    checkpoint(net, one, use_reentrant=use_reentrant).square().mean().backward()
    net(two).square().mean().backward()
    assert torch.equal(one.grad, two.grad)


def test_per_sample_gradients():
    """torch.func: vmap over grad."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), SimAM(4))
    weights = dict(net.named_parameters())
    x = torch.randn(3, 3, 8, 8)

    def loss(weights, image):
        return functional_call(net, weights, (image[None],)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
    for index in range(len(x)):
        alone = torch.func.grad(loss)(weights, x[index])
        torch.testing.assert_close(each["0.weight"][index], alone["0.weight"], rtol=1e-4, atol=1e-4)


def test_fake_tensors_see_the_formula():
    """What estimates memory and time has neither values nor kernels."""
    with FakeTensorMode():
        net, x = small_net(), torch.empty(2, 3, 12, 12)
        y = net(x)
        y.sum().backward()
    assert y.shape == (2, 4, 8, 8)
    assert net[0].weight.grad.shape == net[0].weight.shape


@pytest.mark.parametrize("shape", [(4, 3), (1, 2, 3, 4, 5, 6)])
def test_refuses_other_dimensions(shape):
    with pytest.raises(ValueError, match="one to three spatial dimensions, not"):
        simam(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64], ids=str)
def test_refuses_other_dtypes(dtype):
    with pytest.raises(TypeError, match=f"floating-point tensor, not {dtype}"):
        simam(torch.zeros(2, 3, 4, 4, dtype=dtype))
