"""SimAM's Triton kernels against the formula in float64: on a GPU where there is one, and under
Triton's interpreter, which wants a process of its own (this file run as a program)."""

import json
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch

from networks.attentions.simam import SimAM, simam, simam_formula

pytest.importorskip("triton", reason="needs Triton")

ROOT = Path(__file__).resolve().parent.parent
# each reaches a branch: one tile or a loop, several maps a program or one, a part of the lanes
SHAPES = {
    "56x56": (1, 3, 56, 56),
    "several maps a program": (3, 11, 14, 14),
    "7x7, more channels than lanes": (2, 70, 7, 7),
    "1x1": (2, 5, 1, 1),
    "1x2": (2, 3, 1, 2),
    "not square": (2, 5, 9, 31),
    "primes": (3, 7, 13, 17),
    "one channel": (3, 1, 8, 8),
    "no image": (0, 4, 7, 7),
    "a loop": (1, 2, 127, 131),
    "detection's 200x336": (1, 1, 200, 336),
    "one spatial dimension": (2, 5, 40),
    "three spatial dimensions": (2, 5, 3, 6, 4),
}
DTYPES = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 8e-3}
LAYOUTS = ("contiguous", "channels-last")
CASES = {", ".join(case): case for case in product(SHAPES, DTYPES, LAYOUTS)}


def make_case(shape, dtype, layout, device="cpu"):
    torch.manual_seed(0)
    x, grad = ((torch.randn(SHAPES[shape]) * 2 + 1).to(getattr(torch, dtype)) for _ in range(2))
    if layout == "channels-last":
        x, grad = (t.movedim(1, -1).contiguous().movedim(-1, 1) for t in (x, grad))
    return x.to(device), grad.to(device)


def differentiate(function, x, grad, e_lambda):
    x = x.detach().requires_grad_()
    y = function(x, e_lambda)
    y.backward(grad)
    return y.detach(), x.grad


def gaps(found, exact):
    return [
        (a.double() - b).abs().max().item() if a.numel() else 0.0
        for a, b in zip(found, exact, strict=True)
    ]


def assert_as_good_as_the_formula(found, x, grad, e_lambda=0.1):
    """float32 within 1e-5; half precision no worse than the formula in the same dtype."""
    exact = differentiate(simam_formula, x.double(), grad.double(), e_lambda)
    floor = DTYPES[str(x.dtype).removeprefix("torch.")]
    allowed = [floor, floor]
    if x.dtype != torch.float32:
        plain = gaps(differentiate(simam_formula, x, grad, e_lambda), exact)
        allowed = [floor + gap for gap in plain]
    for gap, limit in zip(gaps(found, exact), allowed, strict=True):
        assert gap <= limit


def interpret(folder):
    """Run every case through the kernels and save what they return; for the child process."""
    from networks.attentions import simam_triton

    for index, case in enumerate(CASES.values()):
        x, grad = make_case(*case)
        y, stats = simam_triton.forward(x, 0.1)
        dx = simam_triton.backward(grad, x, stats)
        assert y.stride() == dx.stride() == x.stride()
        torch.save((y, dx), Path(folder) / f"{index}.pt")


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interpreted")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, __file__, folder], check=True, env=environment, timeout=300)
    return {name: torch.load(folder / f"{index}.pt") for index, name in enumerate(CASES)}


@pytest.mark.parametrize("name", CASES)
def test_interpreted(name, interpreted):
    x, grad = make_case(*CASES[name])
    if x.dtype != torch.bfloat16:
        return assert_as_good_as_the_formula(interpreted[name], x, grad)
    # the interpreter cuts float32 to bfloat16, where a GPU rounds: an error of one unit, not half
    exact = differentiate(simam_formula, x.double(), grad.double(), 0.1)
    for found, expected in zip(interpreted[name], exact, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=2**-7, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_on_the_gpu(name):
    x, grad = make_case(*CASES[name], device="cuda")
    found = differentiate(simam, x, grad, 0.1)
    assert found[0].stride() == found[1].stride() == x.stride()
    assert_as_good_as_the_formula(found, x, grad)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck_on_the_gpu(layout):
    x, grad = make_case("primes", "float32", layout, device="cuda")
    _, stats = torch.ops.simam.forward(x, 0.1)
    torch.library.opcheck(torch.ops.simam.forward.default, (x.clone().requires_grad_(), 0.1))
    torch.library.opcheck(torch.ops.simam.backward.default, (grad, x, stats))


@pytest.mark.gpu
def test_compiled_on_the_gpu():
    """torch.compile of the operator itself: its float arguments reach the kernel as they may."""
    x, grad = make_case("56x56", "float32", "channels-last", device="cuda")
    compiled = torch.compile(lambda x, e: torch.ops.simam.forward(x, e)[0], fullgraph=True)
    assert_as_good_as_the_formula(differentiate(compiled, x, grad, 0.1), x, grad)
    compiled = torch.compile(simam, fullgraph=True)
    assert_as_good_as_the_formula(differentiate(compiled, x, grad, 0.1), x, grad)


@pytest.mark.gpu
def test_more_than_2_to_the_31_elements():
    x = torch.zeros(2**31 // (64 * 64) + 1, 1, 64, 64, dtype=torch.float16, device="cuda")
    x[-1] = torch.randn(64, 64)
    y = simam(x, 0.1)
    torch.testing.assert_close(y[-1:], simam_formula(x[-1:], 0.1))
    assert not y[0].any()


@pytest.mark.gpu
def test_runs_on_the_tensors_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    x, grad = make_case("56x56", "float32", "contiguous", device="cuda:1")
    assert_as_good_as_the_formula(differentiate(simam, x, grad, 0.1), x, grad)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), SimAM(4, 0.1)).cuda()
    images = torch.randn(4, 3, 9, 9, device="cuda")
    torch.testing.assert_close(torch.nn.DataParallel(net)(images), net(images))


def ptx(kernel, layout, shape, e_lambda="fp32"):
    """The kernel compiled for an H100 (compute capability 9.0), which needs no GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from networks.attentions import simam_triton

    x = torch.empty(shape, dtype=torch.bfloat16, device="meta")
    if layout == "channels-last":
        x = x.contiguous(memory_format=torch.channels_last)
    _, shared = simam_triton._plan(x)
    warps = shared.pop("num_warps")
    constants = {name: value for name, value in shared.items() if name.isupper() and len(name) > 1}
    types = {"e_lambda": e_lambda, "stats_ptr": "*fp32", "C": "i32", "M": "i32"}
    types |= {"num_channels": "i32"} | dict.fromkeys(constants, "constexpr")
    kernel = getattr(simam_triton, kernel)
    source = ASTSource(
        fn=kernel,
        signature={name: types.get(name, "*bf16") for name in kernel.arg_names},
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
    )
    target = GPUTarget("cuda", 90, 32)
    return triton.compile(source, target=target, options={"num_warps": warps}).asm["ptx"]


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION is unset")
@pytest.mark.parametrize("shape", [(8, 64, 56, 56), (8, 64, 14, 14), (2, 64, 200, 336)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiles_without_a_gpu_in_float32(layout, shape):
    """The interpreter forgives what the compiler does not; and nothing is computed in float64."""
    in_double = re.compile(r"\b(add|sub|mul|fma|div|rcp|neg|max|min)\.\S*f64\b")
    for kernel, e_lambda in (
        ("_forward_kernel", "fp32"),
        ("_forward_kernel", "fp64"),
        ("_backward_kernel", "fp32"),
    ):
        assembly = ptx(kernel, layout, shape, e_lambda)
        assert ".visible .entry" in assembly
        assert not in_double.search(assembly)


def test_import_of_networks_leaves_triton_and_cuda_alone():
    code = (
        "import json, sys, networks, torch; networks.attentions.simam(torch.ones(1, 1, 4, 4)); "
        "print(json.dumps(['triton' in sys.modules, torch.cuda.is_initialized()]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    printed = subprocess.check_output([sys.executable, "-c", code], env=environment, timeout=120)
    assert json.loads(printed) == [False, False]


if __name__ == "__main__":
    interpret(sys.argv[1])
