"""The operator's Triton kernels: on a GPU where there is one, under Triton's interpreter, which
wants a process of its own (this file run as a program)."""

import copy
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from formula import assert_as_good_as_the_formula, differentiate
from layouts import channels_last, contiguous
from torch import nn

from networks.attentions.simam import SimAM, simam, simam_formula

simam_triton = pytest.importorskip("networks.attentions.simam_triton", reason="needs Triton")
triton = simam_triton.triton

ROOT = Path(__file__).resolve().parents[2]
# each reaches a branch: one tile, a loop or a map in parts, several maps a program or one, a part
# of the lanes, sizes of 1 and of multiples of 16, which Triton compiles apart
SHAPES = {
    "one map a program": (1, 3, 56, 56),
    "several maps a program": (3, 11, 14, 14),
    "more channels than lanes": (2, 70, 7, 7),
    "1x1": (2, 5, 1, 1),
    "1x2": (2, 3, 1, 2),
    "one channel": (3, 1, 8, 8),
    "no image": (0, 4, 7, 7),
    "16-divisible": (2, 32, 8, 16),
    "in parts": (1, 3, 97, 87),
    "in parts, a part of the lanes": (2, 7, 31, 33),
    "in parts, one channel": (1, 1, 65, 127),
    "a loop": (4, 2, 67, 65),
    "a loop of large tiles": (4, 1, 130, 131),
    "one spatial dimension": (2, 5, 40),
    "three spatial dimensions": (2, 5, 3, 6, 4),
}
LAYOUTS = {"contiguous": contiguous, "channels-last": channels_last}
# what is loaded and stored as half precision is float32 in between, whatever the branch
HALF = ("several maps a program", "in parts, a part of the lanes", "a loop")
# sums of squares would lose a variance this far below the squared mean
FAR = ("one map a program", "in parts", "a loop")
CASES = [
    *product(SHAPES, ["float32"], LAYOUTS, [1]),
    *product(HALF, ["bfloat16"], LAYOUTS, [1]),
    *product(HALF[:1], ["float16"], LAYOUTS, [1]),
    *product(FAR, ["float32"], LAYOUTS, [300]),
]
# as many maps as fill a real GPU
MANY = {"many maps, a loop": (600, 2, 67, 65), "many maps, a large loop": (600, 1, 130, 131)}
# a GPU with so few multiprocessors has enough programs for a loop where the interpreter has time
FEW = 2


def make_case(shape, dtype, layout, mean=1, device="cpu"):
    torch.manual_seed(0)
    x, grad = (torch.randn((SHAPES | MANY)[shape]) * 2 for _ in range(2))
    x, grad = (LAYOUTS[layout](t.to(getattr(torch, dtype))) for t in (x + mean, grad + 1))
    return x.to(device), grad.to(device)


def interpret(folder):
    """Run every case through the kernels and save what they return; for the child process."""
    simam_triton.PROCESSORS = FEW
    for index, case in enumerate(CASES):
        x, grad = make_case(*case)
        y, stats = simam_triton.forward(x, 0.1)
        torch.save((y, simam_triton.backward(grad, x, stats)), Path(folder) / f"{index}.pt")


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interpreted")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, __file__, folder], check=True, env=environment, timeout=300)
    return {case: torch.load(folder / f"{index}.pt") for index, case in enumerate(CASES)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_interpreted(case, interpreted):
    x, grad = make_case(*case)
    found = interpreted[case]
    assert found[0].stride() == found[1].stride() == x.stride()
    if x.dtype != torch.bfloat16:
        return assert_as_good_as_the_formula(found, x, grad)
    # the interpreter cuts float32 to bfloat16, where a GPU rounds: an error of one unit, not half
    exact = differentiate(simam_formula, x.double(), grad.double())
    for ours, expected in zip(found, exact, strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=2**-7, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("case", [*CASES, *product(MANY, ["float32"], LAYOUTS, [1, 300])], ids=str)
def test_on_the_gpu(case):
    x, grad = make_case(*case, device="cuda")
    found = differentiate(simam, x, grad)
    assert found[0].stride() == found[1].stride() == x.stride()
    assert_as_good_as_the_formula(found, x, grad)
    assert all(map(torch.equal, found, differentiate(simam, x, grad)))


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", ["one map a program", "in parts"])
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


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [1, 2], ids=["contiguous", "channels-last"])
def test_more_than_2_to_the_31_elements(channels):
    images = 2**31 // (channels * 64 * 64) + 1
    if torch.cuda.mem_get_info()[0] < 24 * 2**30:
        pytest.skip("needs 24 GiB of GPU memory")
    layout = torch.channels_last if channels > 1 else torch.contiguous_format
    shape = images, channels, 64, 64
    x, grad = (
        torch.zeros(shape, dtype=torch.float16, device="cuda").contiguous(memory_format=layout)
        for _ in range(2)
    )
    for tensor in (x, grad):
        tensor[-1] = torch.randn(channels, 64, 64)
    found = differentiate(simam, x, grad)
    assert_as_good_as_the_formula([each[-1:] for each in found], x[-1:], grad[-1:])
    for each in found:
        assert not each[:1000].any()
        assert not each[images // 2 - 500 : images // 2 + 500].any()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_runs_on_the_tensors_device():
    x, grad = make_case("one map a program", "float32", "contiguous", device="cuda:1")
    assert_as_good_as_the_formula(differentiate(simam, x, grad), x, grad)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), SimAM(4, 0.1)).cuda()
    images = torch.randn(4, 3, 9, 9, device="cuda")
    torch.testing.assert_close(nn.DataParallel(copy.deepcopy(net))(images), net(images))


ONCE, TWICE, PARTS = ("once",), ("twice",), ("sums", "apply")
WALKS = {
    ("one map a program", "contiguous"): ONCE,
    ("one map a program", "channels-last"): PARTS,
    ("in parts", "contiguous"): PARTS,
    ("in parts", "channels-last"): PARTS,
    ("in parts, a part of the lanes", "channels-last"): PARTS,
    ("a loop", "contiguous"): TWICE,
    ("a loop", "channels-last"): TWICE,
    ("a loop of large tiles", "contiguous"): TWICE,
}


@pytest.mark.parametrize(("shape", "layout"), WALKS)
def test_the_shapes_reach_what_their_names_say(shape, layout, monkeypatch):
    monkeypatch.setattr(simam_triton, "PROCESSORS", FEW)
    x, _ = make_case(shape, "float32", layout)
    (_, parts), planned, arguments = simam_triton.plan(x)
    assert planned == WALKS[shape, layout]
    # every position is in one part, and none is empty
    assert (parts - 1) * arguments["SPAN"] < arguments["M"] <= parts * arguments["SPAN"]
    assert parts <= arguments["PARTS"]
    tile = arguments["BLOCK_C"] * arguments["BLOCK_M"]
    assert (tile > simam_triton.TILE) == ("large" in shape)


@pytest.mark.parametrize("images", [2, 32])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_maps_fill_an_h100(layout, images):
    """A detector's and a network's first maps: two programs for each of 132 multiprocessors."""
    for size in ((64, 200, 336), (64, 112, 112), (128, 100, 168)):
        x = LAYOUTS[layout](torch.empty((images, *size), dtype=torch.bfloat16, device="meta"))
        (groups, parts), _, _ = simam_triton.plan(x)
        assert groups * parts >= 2 * 132


AS_IF_THERE_WERE_A_GPU = """
from contextlib import nullcontext
from importlib import import_module
import torch
from triton.backends.nvidia.driver import CudaDriver
CudaDriver.is_active = staticmethod(lambda: True)
simam = import_module("networks.attentions.simam")
here = torch.device("cuda")
if not torch.cuda.is_available():
    torch.cuda.device = lambda _: nullcontext()
print(simam.triton_kernels(here), simam.triton_kernels(here))
if torch.cuda.is_available():
    x = torch.randn(2, 3, 9, 9, device="cuda")
    torch.testing.assert_close(simam.simam(x), simam.simam_formula(x))
"""


def test_without_a_c_compiler_one_line_says_so_and_the_formula_serves(tmp_path):
    """As in images made to run PyTorch."""
    (tmp_path / "libcuda.so.1").touch()
    environment = {key: value for key, value in os.environ.items() if key != "CC"}
    environment |= {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_LIBCUDA_PATH": str(tmp_path)}
    command = [sys.executable, "-c", AS_IF_THERE_WERE_A_GPU]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "None None\n"
    assert done.stderr.count("\n") == 1
    assert "Warning: SimAM is computed by its formula, slower: Triton starts no" in done.stderr
    assert done.stderr.count("Failed to find C compiler") == 1


if __name__ == "__main__":
    interpret(sys.argv[1])
