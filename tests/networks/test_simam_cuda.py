"""SimAM on a GPU in every way PyTorch can run it; `test_simam_triton.py` has shapes and dtypes."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from layouts import channels_last, sliced, transposed
from torch import nn
from torch.utils.checkpoint import checkpoint

from networks.attentions.simam import SimAM, simam, simam_formula

pytest.importorskip("triton", reason="needs Triton")

from test_simam_triton import (
    LAYOUTS,
    assert_as_good_as_the_formula,
    assert_as_good_as_the_formula_far_from_zero,
    differentiate,
    make_case,
)

pytestmark = pytest.mark.gpu


ANY_LAYOUT = {
    "contiguous": torch.Tensor.contiguous,
    "channels-last": channels_last,
    "sliced": sliced,
    "transposed": transposed,
}


def random_maps(*shape):
    return (torch.randn(shape, device="cuda") * 2 + 1 for _ in range(2))


@pytest.mark.parametrize("grad_layout", ANY_LAYOUT)
@pytest.mark.parametrize("layout", ANY_LAYOUT)
def test_layouts_of_input_and_gradient(layout, grad_layout):
    x, grad = random_maps(2, 6, 67, 65)
    x, grad = ANY_LAYOUT[layout](x), ANY_LAYOUT[grad_layout](grad)
    found = differentiate(simam, x, grad, 0.1)
    assert found[0].stride() == found[1].stride() == torch.empty_like(x).stride()
    assert_as_good_as_the_formula(found, x, grad)


@pytest.mark.parametrize("layout", ANY_LAYOUT)
def test_expanded_gradient(layout):
    x, grad = random_maps(3, 6, 9, 9)
    x, grad = ANY_LAYOUT[layout](x), grad[:1, :, :1, :1].expand_as(x)
    assert_as_good_as_the_formula(differentiate(simam, x, grad, 0.1), x, grad)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mean", [1, 300])
@pytest.mark.parametrize(
    "shape", [(600, 2, 67, 65), (600, 1, 130, 131), (2, 3, 97, 87)], ids=["loop", "large", "parts"]
)
def test_maps_that_no_tile_holds(shape, mean, layout):
    """With enough maps to fill the GPU, and with few."""
    x, grad = random_maps(*shape)
    x, grad = (ANY_LAYOUT[layout](t) for t in (x + (mean - 1), grad))
    found = differentiate(simam, x, grad, 0.1)
    assert_as_good_as_the_formula_far_from_zero(found, x, grad)
    again = differentiate(simam, x, grad, 0.1)
    assert all(map(torch.equal, found, again))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), SimAM(8), nn.Conv2d(8, 4, 3)).cuda()
    seen = []
    net[1].register_forward_hook(lambda _, args, y: seen.extend([args[0].dtype, y.dtype]))
    with torch.autocast("cuda", dtype):
        y = net(torch.randn(2, 3, 12, 12, device="cuda"))
    y.float().square().mean().backward()
    assert seen == [dtype, dtype]
    assert net[0].weight.grad.isfinite().all()
    assert net[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing(use_reentrant):
    # a convolution's gradient may come from sums in any order
    x = torch.randn(2, 3, 70, 70, device="cuda", requires_grad=True)
    plain = x.detach().clone().requires_grad_()
    net = nn.Sequential(SimAM(3), nn.Softplus(), SimAM(3))
    checkpoint(net, x, use_reentrant=use_reentrant).square().mean().backward()
    net(plain).square().mean().backward()
    assert torch.equal(x.grad, plain.grad)


def test_second_derivative():
    x, grad = (t[:, :, :6, :6] for t in random_maps(2, 3, 8, 8))
    grad.requires_grad_()

    def twice(function, x, grad):
        x = x.detach().requires_grad_()
        (dx,) = torch.autograd.grad(function(x, 0.1), x, grad, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), (x, grad))

    exact = twice(simam_formula, x.double(), grad.detach().double().requires_grad_())
    for found, expected in zip(twice(simam, x, grad), exact, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", ["primes", "in parts"])
def test_opcheck(shape, layout):
    x, grad = make_case(shape, "float32", layout, device="cuda")
    _, stats = torch.ops.simam.forward(x, 0.1)
    torch.library.opcheck(torch.ops.simam.forward.default, (x.clone().requires_grad_(), 0.1))
    torch.library.opcheck(torch.ops.simam.backward.default, (grad, x, stats))


@pytest.mark.filterwarnings("ignore")  # the compiler's, such as that TF32 would be faster
def test_compiled():
    """torch.compile of the operator itself: its float arguments reach the kernel as they may."""
    x, grad = make_case("56x56", "float32", "channels-last", device="cuda")
    compiled = torch.compile(lambda x, e: torch.ops.simam.forward(x, e)[0], fullgraph=True)
    assert_as_good_as_the_formula(differentiate(compiled, x, grad, 0.1), x, grad)
    compiled = torch.compile(simam, fullgraph=True)
    assert_as_good_as_the_formula(differentiate(compiled, x, grad, 0.1), x, grad)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", ["56x56", "in parts"])
def test_cuda_graph(shape, layout):
    """Captured once, replayed for other values."""
    x, grad = make_case(shape, "float32", layout, device="cuda")
    static_x, static_grad = torch.empty_like(x).requires_grad_(), torch.empty_like(grad)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is compiled or allocated once
        torch.autograd.grad(simam(static_x, 0.1), static_x, static_grad)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = simam(static_x, 0.1)
        (dx,) = torch.autograd.grad(y, static_x, static_grad)
    for scale in (1, 0.5):
        with torch.no_grad():
            static_x.copy_(scale * x)
            static_grad.copy_(scale * grad)
        graph.replay()
        assert_as_good_as_the_formula((y.detach(), dx), scale * x, scale * grad)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_more_than_2_to_the_31_elements(layout):
    channels = 1 if layout == "contiguous" else 2  # one channel lies the same way in both
    images = 2**31 // (channels * 64 * 64) + 1
    if torch.cuda.mem_get_info()[0] < 24 * 2**30:
        pytest.skip("needs 24 GiB of GPU memory")
    shape = images, channels, 64, 64
    x, grad = (
        torch.zeros(shape, dtype=torch.float16, device="cuda").contiguous(
            memory_format=torch.channels_last if channels > 1 else torch.contiguous_format
        )
        for _ in range(2)
    )
    for tensor in (x, grad):
        tensor[-1] = torch.randn(channels, 64, 64)
    found = differentiate(simam, x, grad, 0.1)
    assert_as_good_as_the_formula([each[-1:] for each in found], x[-1:], grad[-1:])
    for each in found:
        assert not each[:1000].any()
        assert not each[images // 2 - 500 : images // 2 + 500].any()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_runs_on_the_tensors_device():
    x, grad = make_case("56x56", "float32", "contiguous", device="cuda:1")
    assert_as_good_as_the_formula(differentiate(simam, x, grad, 0.1), x, grad)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), SimAM(4, 0.1)).cuda()
    images = torch.randn(4, 3, 9, 9, device="cuda")
    torch.testing.assert_close(nn.DataParallel(copy.deepcopy(net))(images), net(images))


WITHOUT_COMPILER = """
import torch
from networks.attentions.simam import simam, simam_formula
x = torch.randn(2, 3, 9, 9, device="cuda", requires_grad=True)
for _ in range(2):
    y = simam(x)
    y.square().sum().backward()
torch.testing.assert_close(y, simam_formula(x))
"""


def test_without_a_c_compiler(tmp_path):
    """As in images made to run PyTorch: the formula, and one warning, unless Triton needs none."""
    environment = {key: value for key, value in os.environ.items() if key != "CC"}
    environment |= {"PATH": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER],
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Warning: SimAM is computed by its formula") <= 1
    assert "Traceback" not in done.stderr
