"""SimAM's operator against its formula in float64, and in every way PyTorch can run it."""

import copy

import pytest
import torch
from layouts import channels_last, sliced, transposed
from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from networks import create_model
from networks.attentions import SimAM, simam, simam_cpu
from networks.attentions.simam import simam_formula

SHAPES = {
    "ResNet's 56x56": (2, 16, 56, 56),
    "14x14": (3, 20, 14, 14),
    "7x7": (4, 33, 7, 7),
    "1x1: no variance": (3, 5, 1, 1),
    "1x2": (2, 3, 1, 2),
    "not square": (2, 3, 9, 31),
    "primes": (3, 7, 13, 17),
    "one channel": (4, 1, 8, 8),
    "one image": (1, 6, 10, 10),
    "no image": (0, 4, 7, 7),
    "no position": (2, 4, 0, 7),
    "detection's 200x336": (1, 3, 200, 336),
    "more than one block": (3, 60, 56, 56),
    "one spatial dimension": (2, 5, 40),
    "three spatial dimensions": (2, 5, 3, 6, 4),
}
FLOOR = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def contiguous(x):
    return x.contiguous()


def run(function, x, grad, e_lambda=1e-4):
    x = x.detach().requires_grad_()
    y = function(x, e_lambda)
    y.backward(grad)
    return y.detach(), x.grad


def errors(function, x, grad, e_lambda=1e-4):
    """Largest error of output and gradient against the formula in float64 on the same values."""
    exact = run(simam_formula, x.double(), grad.double(), e_lambda)
    found = run(function, x, grad, e_lambda)
    return [
        (a.double() - b).abs().max().item() if b.numel() else 0.0
        for a, b in zip(found, exact, strict=True)
    ]


def assert_exact(x, grad, e_lambda=1e-4):
    """float32 within 1e-5; half precision no worse than the formula in the same dtype."""
    ours = errors(simam, x, grad, e_lambda)
    theirs = [0.0, 0.0] if x.dtype == torch.float32 else errors(simam_formula, x, grad, e_lambda)
    for error, reference in zip(ours, theirs, strict=True):
        assert error <= reference + FLOOR[x.dtype]


@pytest.mark.parametrize("dtype", FLOOR, ids=str)
@pytest.mark.parametrize("layout", [contiguous, channels_last, sliced, transposed])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_forward_and_gradient(shape, layout, dtype):
    x = layout((torch.randn(shape) * 2 + 1).to(dtype))
    assert_exact(x, torch.randn(shape).to(dtype))


@pytest.mark.parametrize("layout", [contiguous, channels_last])
def test_large_mean(layout):
    """Sums of squares would lose a variance this far below the squared mean."""
    x = layout(torch.randn(2, 8, 32, 32) + 300)
    grad = torch.randn_like(x)
    ours, theirs = errors(simam, x, grad, 0.1), errors(simam_formula, x, grad, 0.1)
    assert ours[0] <= 2 * theirs[0] + 1e-5
    assert ours[1] <= 2 * theirs[1] + 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_attention_of_a_large_half_precision_map_is_no_constant(dtype):
    x = (10 * torch.randn(1, 2, 112, 112)).to(dtype)
    attention = simam(x).double() / x.double()
    expected = simam_formula(x.double()) / x.double()
    assert attention.nan_to_num().std() > 0.03
    torch.testing.assert_close(attention, expected, atol=1e-2, rtol=0, equal_nan=True)


def test_half_precision_statistics_do_not_overflow():
    x = (torch.randn(1, 2, 112, 112) * 50 + 200).half()
    assert_exact(x, torch.randn_like(x))


def test_constant_and_single_positions():
    y = simam(torch.full((2, 3, 1, 1), 4.0))
    torch.testing.assert_close(y, torch.full_like(y, 4 / (1 + torch.tensor(-0.5).exp().item())))
    assert_exact(torch.full((1, 2, 9, 9), -3.0), torch.ones(1, 2, 9, 9))


@pytest.mark.parametrize("e_lambda", [1e-6, 0.1, 10.0])
def test_e_lambda(e_lambda):
    assert_exact(torch.randn(2, 4, 9, 9) / 10, torch.randn(2, 4, 9, 9), e_lambda)


@pytest.mark.parametrize("dtype", FLOOR, ids=str)
@pytest.mark.parametrize("layout", [contiguous, channels_last])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_keeps_dtype_and_memory_format(shape, layout, dtype):
    x = layout(torch.randn(shape).to(dtype)).requires_grad_()
    y = simam(x)
    assert y.dtype == dtype
    assert y.stride() == x.stride()
    y.backward(torch.ones((), dtype=dtype).expand(shape))
    assert x.grad.stride() == x.stride()


@pytest.mark.parametrize("layout", [contiguous, channels_last])
@pytest.mark.parametrize("grad_layout", [contiguous, channels_last, sliced])
def test_gradient_in_another_layout(layout, grad_layout):
    x, grad = torch.randn(2, 6, 9, 9), torch.randn(2, 6, 9, 9)
    assert_exact(layout(x), grad_layout(grad))
    assert_exact(layout(x), grad[:1, :, :1, :1].expand_as(x))


def saved_bytes(function, x):
    """Bytes of the distinct memory that autograd keeps."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = function(x)
    return sum(kept.values()), y.requires_grad


def test_keeps_one_map_for_the_backward_pass():
    x = torch.randn(4, 8, 28, 28, requires_grad=True)
    kept, _ = saved_bytes(simam, x)
    assert x.nbytes <= kept <= 1.05 * x.nbytes
    assert saved_bytes(simam_formula, x)[0] > 3.5 * x.nbytes
    assert saved_bytes(simam, x.detach()) == (0, False)


def operator(x, e_lambda):
    """The closed form in float64, which `simam` itself would leave to the formula."""
    return torch.ops.simam.forward(x, e_lambda)[0]


@pytest.mark.parametrize("layout", [contiguous, channels_last, sliced])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 1, 1), (1, 2, 1, 2), (2, 3, 6)])
def test_gradcheck(shape, layout):
    x = layout(torch.randn(shape, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(operator, (x, 0.1))
    assert torch.autograd.gradcheck(simam, (x, 0.1))


@pytest.mark.parametrize("function", [operator, simam])
def test_second_derivative(function):
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(function, (x, 0.1))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", [contiguous, channels_last, sliced])
def test_opcheck(layout, dtype):
    x = layout(torch.randn(2, 3, 6, 7, dtype=dtype))
    y, stats = torch.ops.simam.forward(x, 0.1)
    torch.library.opcheck(torch.ops.simam.forward.default, (x, 0.1))
    torch.library.opcheck(torch.ops.simam.forward.default, (x.clone().requires_grad_(), 0.1))
    torch.library.opcheck(torch.ops.simam.backward.default, (torch.randn_like(y), x, stats))


@pytest.mark.slow
@pytest.mark.parametrize("function", [simam, operator], ids=["as used", "operator"])
@pytest.mark.parametrize("layout", [contiguous, channels_last])
def test_compile(layout, function):
    """One graph, static and for a second shape, equal to the formula in float64."""
    compiled = torch.compile(function, fullgraph=True)
    for shape in ((2, 6, 9, 9), (3, 6, 12, 9)):
        x, grad = layout(torch.randn(shape)), layout(torch.randn(shape))
        assert max(errors(compiled, x, grad)) <= 1e-5
        assert compiled(x, 1e-4).stride() == x.stride()


def small_net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), SimAM(8), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3))


@pytest.mark.parametrize("strict", [True, False])
def test_export_holds_plain_operators(strict):
    net, x = small_net().eval(), torch.randn(2, 3, 12, 12)
    exported = torch.export.export(net, (x,), strict=strict)
    names = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert any("sigmoid" in name for name in names)
    assert not any("simam" in name for name in names)
    torch.testing.assert_close(exported.module()(x), net(x))


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated, and warns of every constant
def test_jit_trace_holds_plain_operators():
    net, x = small_net().eval(), torch.randn(2, 3, 12, 12)
    traced = torch.jit.trace(net, x, check_trace=False)
    assert "aten::sigmoid" in str(traced.inlined_graph)
    assert "simam::" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), net(x))


def test_autocast():
    net, x = small_net(), torch.randn(2, 3, 12, 12)
    seen = []
    net[1].register_forward_hook(lambda _, args, y: seen.extend([args[0].dtype, y.dtype]))
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x)
    y.float().square().mean().backward()
    assert seen == [torch.bfloat16, torch.bfloat16]
    assert net[0].weight.grad.isfinite().all()
    assert net[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing(use_reentrant):
    net, x = small_net(), torch.randn(2, 3, 12, 12, requires_grad=True)
    plain = copy.deepcopy(net)
    checkpoint(net, x, use_reentrant=use_reentrant).square().mean().backward()
    plain(x).square().mean().backward()
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_distributed_data_parallel():
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        net, x = small_net(), torch.randn(2, 3, 12, 12)
        plain = copy.deepcopy(net)
        nn.parallel.DistributedDataParallel(net)(x).square().mean().backward()
    finally:
        torch.distributed.destroy_process_group()
    plain(x).square().mean().backward()
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


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


def test_module_repeats_the_function_and_has_no_state():
    module, x = SimAM(64, 0.1), torch.randn(2, 4, 5, 5)
    assert torch.equal(module(x), simam(x, 0.1))
    assert not module.state_dict()


def test_other_devices_use_the_formula():
    y = simam(torch.empty(2, 3, 4, 4, device="meta"))
    assert y.shape == (2, 3, 4, 4)
    assert y.device.type == "meta"


def test_network_gradients_equal_the_formulas():
    """ResNet-18 in float32 with the operator against itself in float64 with the formula."""
    x = torch.randn(4, 3, 64, 64)
    net = create_model("resnet18", "simam", 0.1, num_classes=4).eval()
    exact = copy.deepcopy(net).double()
    net(x).square().sum().backward()
    exact(x.double()).square().sum().backward()
    for ours, theirs in zip(net.parameters(), exact.parameters(), strict=True):
        error = (ours.grad - theirs.grad).abs().max() / theirs.grad.abs().max()
        assert error.item() < 1e-4


@pytest.mark.parametrize("shape", [(4,), (4, 3), (1, 2, 3, 4, 5, 6)])
def test_refuses_other_dimensions(shape):
    with pytest.raises(ValueError, match="one to three spatial dimensions, not"):
        simam(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64], ids=str)
def test_refuses_other_dtypes(dtype):
    with pytest.raises(TypeError, match=f"floating-point tensor, not {dtype}"):
        simam(torch.zeros(2, 3, 4, 4, dtype=dtype))


@pytest.mark.parametrize("layout", [contiguous, channels_last])
def test_block_size_does_not_matter(layout, monkeypatch):
    x, grad = layout(torch.randn(3, 5, 9, 9)), torch.randn(3, 5, 9, 9)
    whole = run(simam, x, grad)
    monkeypatch.setattr(simam_cpu, "BLOCK", 100)
    for ours, theirs in zip(run(simam, x, grad), whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
