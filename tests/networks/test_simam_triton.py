"""SimAM's Triton kernels against the formula in float64: on a GPU where there is one, and under
Triton's interpreter, which wants a process of its own (this file run as a program)."""

import inspect
import json
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch

from networks.attentions.simam import simam, simam_formula

pytest.importorskip("triton", reason="needs Triton")

ROOT = Path(__file__).resolve().parents[2]
# each reaches a branch: one tile, a loop or a map in parts, several maps a program or one, a part
# of the lanes, sizes of 1 and of multiples of 16, which Triton compiles apart
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
    "16-divisible": (2, 32, 8, 16),
    "in parts": (2, 3, 97, 87),
    "in parts, a part of the lanes": (2, 21, 31, 33),
    "in parts, one channel": (1, 1, 65, 127),
    "a loop": (8, 2, 67, 65),
    "a loop of large tiles": (8, 1, 130, 131),
    "detection's 200x336": (1, 1, 200, 336),
    "one spatial dimension": (2, 5, 40),
    "three spatial dimensions": (2, 5, 3, 6, 4),
}
DTYPES = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 8e-3}
LAYOUTS = ("contiguous", "channels-last")
CASES = {", ".join(case): case for case in product(SHAPES, DTYPES, LAYOUTS)}
# sums of squares would lose a variance this far below the squared mean
FAR_SHAPES = ("56x56", "in parts", "in parts, a part of the lanes", "a loop")
FAR = {
    f"mean 300, {shape}, {layout}": (shape, "float32", layout, 300)
    for shape, layout in product(FAR_SHAPES, LAYOUTS)
}
# a GPU with so few multiprocessors has enough programs for a loop where the interpreter has time
PROCESSORS = 4


def make_case(shape, dtype, layout, mean=1, device="cpu"):
    torch.manual_seed(0)
    x, grad = (torch.randn(SHAPES[shape]) * 2 for _ in range(2))
    x, grad = (t.to(getattr(torch, dtype)) for t in (x + mean, grad + 1))
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

    simam_triton._processors = lambda x: PROCESSORS
    for index, case in enumerate((CASES | FAR).values()):
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
    return {name: torch.load(folder / f"{index}.pt") for index, name in enumerate(CASES | FAR)}


@pytest.mark.parametrize("name", CASES)
def test_interpreted(name, interpreted):
    x, grad = make_case(*CASES[name])
    if x.dtype != torch.bfloat16:
        return assert_as_good_as_the_formula(interpreted[name], x, grad)
    # the interpreter cuts float32 to bfloat16, where a GPU rounds: an error of one unit, not half
    exact = differentiate(simam_formula, x.double(), grad.double(), 0.1)
    for found, expected in zip(interpreted[name], exact, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=2**-7, atol=1e-5)


def assert_as_good_as_the_formula_far_from_zero(found, x, grad):
    exact = differentiate(simam_formula, x.double(), grad.double(), 0.1)
    plain = gaps(differentiate(simam_formula, x, grad, 0.1), exact)
    for gap, limit in zip(gaps(found, exact), plain, strict=True):
        assert gap <= 2 * limit + 1e-5


@pytest.mark.parametrize("name", FAR)
def test_interpreted_far_from_zero(name, interpreted):
    x, grad = make_case(*FAR[name])
    assert_as_good_as_the_formula_far_from_zero(interpreted[name], x, grad)


ONCE, TWICE, PARTS = ("once",), ("twice",), ("sums", "apply")


@pytest.mark.parametrize(
    ("shape", "contiguous", "channels_last"),
    [
        ("56x56", ONCE, PARTS),
        ("in parts", PARTS, PARTS),
        ("in parts, a part of the lanes", ONCE, PARTS),
        ("a loop", TWICE, TWICE),
        ("a loop of large tiles", TWICE, TWICE),
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_shapes_reach_what_their_names_say(
    shape, contiguous, channels_last, layout, monkeypatch
):
    from networks.attentions import simam_triton

    monkeypatch.setattr(simam_triton, "_processors", lambda x: PROCESSORS)
    x, _ = make_case(shape, "float32", layout)
    (_, parts), planned, shared = simam_triton.plan(x)
    assert planned == (contiguous if layout == "contiguous" else channels_last)
    # every position is in one part, and none is empty
    assert (parts - 1) * shared["SPAN"] < shared["M"] <= parts * shared["SPAN"]
    assert parts <= shared["PARTS"]
    assert (shared["BLOCK_C"] * shared["BLOCK_M"] > simam_triton.TILE) == ("large" in shape)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_on_the_gpu(name):
    x, grad = make_case(*CASES[name], device="cuda")
    found = differentiate(simam, x, grad, 0.1)
    assert found[0].stride() == found[1].stride() == x.stride()
    assert_as_good_as_the_formula(found, x, grad)


def compiled(kernel, x, walk, shared, e_lambda="fp32"):
    """The kernel for an H100 (compute capability 9.0), which needs no GPU; as it is launched
    with these arguments: Triton compiles numbers of 1 and multiples of 16 apart."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from networks.attentions import simam_triton

    if "constexprs" not in inspect.signature(ASTSource).parameters:
        pytest.skip(f"Triton {triton.__version__} takes its constants in another form")
    kernel = getattr(simam_triton, kernel)
    element = {"float32": "*fp32", "bfloat16": "*bf16"}[str(x.dtype).removeprefix("torch.")]
    types = {"e_lambda": e_lambda, "stats_ptr": "*fp32", "sums_ptr": "*fp32"}
    values = {**shared, "WALK": walk}
    signature, constants, attributes = {}, {}, {}
    for place, name in enumerate(kernel.arg_names):
        value = values.get(name)
        fixed = kernel.params[place].is_constexpr or value == 1
        if fixed:
            constants[place,] = value
        elif name != "e_lambda" and (value is None or value % 16 == 0):
            attributes[place,] = [["tt.divisibility", 16]]
        whole = "constexpr" if fixed else "i32"
        signature[name] = types.get(name, element) if value is None else whole
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": shared["num_warps"]}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def ptxas(assembly, folder):
    """Registers of a thread, and bytes that it spills, as NVIDIA's assembler says."""
    import triton

    binary = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    if not binary.exists():
        pytest.skip("this Triton comes without ptxas")
    (folder / "kernel.ptx").write_text(assembly)
    command = [binary, "-v", "-arch=sm_90a", folder / "kernel.ptx", "-o", folder / "kernel.o"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr
    registers = re.search(r"Used (\d+) registers", said)[1]
    return int(registers), sum(map(int, re.findall(r"(\d+) bytes spill", said)))


# ResNet's and MobileNetV2's maps, a detector's, and the sizes that Triton compiles apart
COMPILED = {
    "56x56": (256, 64, 56, 56),
    "112x112": (256, 32, 112, 112),
    "28x28": (256, 128, 28, 28),
    "14x14": (256, 256, 14, 14),
    "7x7": (256, 512, 7, 7),
    "detection, 2 images": (2, 64, 200, 336),
    "detection, 32 images": (32, 64, 200, 336),
    "one position": (32, 16, 1, 1),
    "one channel": (4, 1, 65, 65),
    "nothing divisible": (3, 7, 13, 17),
}


@pytest.mark.parametrize("images", [2, 8, 32, 256])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_maps_fill_an_h100(layout, images):
    """A detector's and a network's first maps: two programs for each of 132 multiprocessors."""
    from networks.attentions import simam_triton

    for size in ((64, 200, 336), (64, 112, 112), (128, 100, 168)):
        x = torch.empty((images, *size), dtype=torch.bfloat16, device="meta")
        if layout == "channels-last":
            x = x.contiguous(memory_format=torch.channels_last)
        (groups, parts), _, _ = simam_triton.plan(x)
        assert groups * parts >= 2 * 132


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION is unset")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", COMPILED)
def test_compiles_without_a_gpu(shape, layout, dtype, tmp_path):
    """The interpreter forgives what the compiler does not; nothing is computed in float64, and
    what lies between load and store stays in registers, of at least two programs at once."""
    from networks.attentions import simam_triton

    in_double = re.compile(r"\b(add|sub|mul|fma|div|rcp|neg|max|min)\.\S*f64\b")
    x = torch.empty(COMPILED[shape], dtype=dtype, device="meta")
    if layout == "channels-last":
        x = x.contiguous(memory_format=torch.channels_last)
    _, walks, shared = simam_triton.plan(x)
    for walk, kernel in product(walks, ("_forward_kernel", "_backward_kernel")):
        for e_lambda in ("fp32", "fp64") if "forward" in kernel else ("fp32",):
            assembly = compiled(kernel, x, walk, shared, e_lambda).asm["ptx"]
            assert ".visible .entry" in assembly
            assert not in_double.search(assembly)
        registers, spilled = ptxas(assembly, tmp_path)
        print(f"{shape}, {layout}, {dtype}, {kernel}, {walk}: {registers} registers, {spilled} B")
        assert spilled <= 16
        threads = 32 * shared["num_warps"]
        assert registers * threads <= 65536 // (1 if threads > 256 else 2)


NO_COMPILER = """
import warnings
from triton.backends.nvidia.driver import CudaDriver
from importlib import import_module
simam = import_module("networks.attentions.simam")
CudaDriver.is_active = staticmethod(lambda: True)  # as if there were a GPU
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(simam._triton_starts(), simam._triton_starts(), *(each.message for each in caught))
"""


def test_without_a_c_compiler_one_line_says_so(tmp_path):
    (tmp_path / "libcuda.so.1").touch()
    environment = {key: value for key, value in os.environ.items() if key not in ("CC", "PATH")}
    environment |= {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_LIBCUDA_PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", NO_COMPILER],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("False False SimAM is computed by its formula, slower: Triton starts no")
    assert line.count("Failed to find C compiler") == 1
    assert not done.stderr


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
