"""What the Triton kernels need of an H100, compiled where there may be none: a Markdown table.

    python -m scripts.bench.compiled

Registers of a thread, bytes that it spills, and the instructions of its loops for each element of
the map (of the whole kernel, where it has no loop), as NVIDIA's assembler says, which comes with
Triton. float32 and bfloat16, two of ResNet's maps, both layouts.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from networks.attentions import fused_triton, simam_triton
from scripts.bench.common import LAYOUTS
from utils.report.tables import table

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
MAPS = ((256, 64, 56, 56), (256, 256, 14, 14))
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
FIXED = dict.fromkeys(("e_lambda", "low", "high"), "fp32")
FIXED |= dict.fromkeys(("stats_ptr", "sums_ptr", "table_ptr"), "*fp32")


class Launch(NamedTuple):
    """A kernel as it is started for a map: its whole numbers and constants by name."""

    title: str
    kernel: triton.JITFunction
    values: dict[str, Any]


class Needs(NamedTuple):
    """What a kernel takes: see this file's docstring."""

    registers: int
    spilled: int
    instructions: float


def launches(x: torch.Tensor) -> Iterator[Launch]:
    """What SimAM, and SimAM, norm and activation, start in a training step for maps such as x."""
    _, walks, values = simam_triton.plan(x)
    for name, walk in product(("forward", "backward"), walks):
        kernel = getattr(simam_triton, f"{name}_kernel")
        yield Launch(f"SimAM, {name}, {walk}", kernel, values | {"WALK": walk})
    for name, shares, more in (
        ("measure", False, {"OF_Y": True}),
        ("apply", True, {"RESIDUAL": False}),
        ("sums", True, {}),
        ("slopes", True, {"BATCH": True}),
    ):
        _, values = fused_triton.plan(x, shares)
        yield Launch(f"one, {name}", getattr(fused_triton, f"{name}_kernel"), values | more)


def compiled(launch: Launch, dtype: torch.dtype) -> str:
    """Its PTX for an H100 and maps of `dtype`, which needs no GPU.

    As Triton would compile it when it is launched: numbers of 1, and multiples of 16, apart.
    """
    signature, constants, attributes = {}, {}, {}
    for place, name in enumerate(launch.kernel.arg_names):
        value = launch.values.get(name)
        fixed = launch.kernel.params[place].is_constexpr or value == 1
        if fixed:
            constants[place,] = value
        elif name.endswith("_ptr") or (value is not None and value % 16 == 0):
            attributes[place,] = [["tt.divisibility", 16]]
        whole = "constexpr" if fixed else "i32"
        signature[name] = FIXED.get(name, TYPES[dtype]) if value is None else whole
    source = ASTSource(launch.kernel, signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": launch.values["num_warps"]}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]


def needs(launch: Launch, assembly: str) -> Needs:
    with tempfile.TemporaryDirectory() as folder:
        text, binary = Path(folder, "kernel.ptx"), Path(folder, "kernel.o")
        text.write_text(assembly)
        command = [TOOLS / "ptxas", "-v", "-arch=sm_90a", text, "-o", binary]
        said = _output(command)
        listing = _output([TOOLS / "cuobjdump", "-sass", binary])
    registers = re.search(r"Used (\d+) registers", said)[1]
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill", said)))
    values = launch.values
    elements = values["BLOCK_C"] * values["BLOCK_M"] / (32 * values["num_warps"])
    return Needs(int(registers), spilled, in_loops(listing) / elements)


def _output(command: list) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout + done.stderr


def in_loops(listing: str) -> int:
    """Instructions of a kernel's loops, once each; all of them where it has none."""
    code = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?\w+ )?(\w+)\S* ?(.*?) ?;", listing)
    code = [(int(at, 16), name, rest) for at, name, rest in code if name != "NOP"]
    loops = []
    for at, name, rest in code:
        target = re.search(r"0x([0-9a-f]+)$", rest) if name == "BRA" else None
        if target and int(target[1], 16) < at:
            loops.append(range(int(target[1], 16), at + 1))
    return sum(1 for at, *_ in code if not loops or any(at in loop for loop in loops))


def main() -> None:
    print(f"Compiled for compute capability 9.0 by Triton {triton.__version__}\n")
    rows = []
    for shape, layout, dtype in product(MAPS, LAYOUTS, TYPES):
        x = torch.empty(shape, dtype=dtype, device="meta").to(memory_format=LAYOUTS[layout])
        for launch in launches(x):
            found = needs(launch, compiled(launch, dtype))
            row = {
                "kernel": launch.title,
                "maps": "x".join(map(str, shape)),
                "layout": layout,
                "dtype": str(dtype).removeprefix("torch."),
                "threads": 32 * launch.values["num_warps"],
                "registers": found.registers,
                "bytes spilled": found.spilled,
                "instructions an element": f"{found.instructions:.1f}",
            }
            rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
