"""Triton's kernels compiled for an H100, which needs no GPU, and what the table says of them."""

import re

import pytest
import torch

pytest.importorskip("triton", minversion="3.2", reason="needs Triton")
from scripts.bench.common import LAYOUTS
from scripts.bench.compiled import TOOLS, compiled, in_loops, launches, needs

# ResNet's maps, a detector's, and the sizes that Triton compiles apart
MAPS = {
    "56x56": (256, 64, 56, 56),
    "7x7": (256, 512, 7, 7),
    "detection, 2 images": (2, 64, 200, 336),
    "detection, 32 images": (32, 64, 200, 336),
    "one position": (32, 16, 1, 1),
    "one channel": (4, 1, 65, 65),
    "nothing divisible": (3, 7, 13, 17),
}
FAST = [("nothing divisible", "contiguous", torch.float32)]
FAST += [("56x56", "channels-last", torch.bfloat16)]
# maps that are trained on, also in bfloat16, which changes loads and stores alone
TRAINED = ("56x56", "7x7", "detection, 2 images", "detection, 32 images")
CASES = [
    pytest.param(*case, marks=() if case in FAST else pytest.mark.slow)
    for case in [
        *((name, layout, torch.float32) for name in MAPS for layout in LAYOUTS),
        *((name, layout, torch.bfloat16) for name in TRAINED for layout in LAYOUTS),
    ]
]
IN_DOUBLE = re.compile(r"\b(add|sub|mul|fma|div|rcp|neg|max|min)\.\S*f64\b")


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION is unset")
@pytest.mark.parametrize(("name", "layout", "dtype"), CASES)
def test_compiles_without_a_gpu(name, layout, dtype):
    """The interpreter forgives what the compiler does not; nothing is computed in float64, and
    what lies between load and store stays in registers."""
    if not TOOLS.joinpath("ptxas").exists():
        pytest.skip("this Triton comes without ptxas")
    x = torch.empty(MAPS[name], dtype=dtype, device="meta").to(memory_format=LAYOUTS[layout])
    for launch in launches(x):
        assembly = compiled(launch, dtype)
        assert ".visible .entry" in assembly
        assert not IN_DOUBLE.search(assembly)
        found = needs(launch, assembly)
        assert found.spilled <= 16, launch.title
        assert found.registers * 32 * launch.values["num_warps"] <= 65536, launch.title


LISTING = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   MUFU.EX2 R2, R3 ;
        /*0020*/              @!P0 FADD R2, R2, 1 ;
        /*0030*/               @P0 BRA 0x10 ;
        /*0040*/                   EXIT ;
        /*0050*/                   BRA 0x50;
        /*0060*/                   NOP;
"""


def test_counts_the_instructions_of_loops():
    assert in_loops(LISTING) == 3
    assert in_loops(LISTING.replace("0x10", "0x40")) == 6
