"""The fused operator's Triton kernels against autograd in float64: on a GPU where there is one, and
under Triton's interpreter, which wants a process of its own (this file run as a program)."""

import copy
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

from networks.attentions import SimAM, fused, simam_norm_act
from networks.attentions.simam import simam_formula

pytest.importorskip("triton", reason="needs Triton")

ROOT = Path(__file__).resolve().parents[2]
# each reaches a branch: several maps a program, a part of the lanes, a loop and a map in parts
SHAPES = {
    "7x7": (3, 20, 7, 7),
    "1x1": (3, 5, 1, 1),
    "33x41": (2, 5, 33, 41),
    "47x46, one channel": (2, 1, 47, 46),
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
CASES = [*product(SHAPES, LAYOUTS, ["training"])]
CASES += product(["7x7"], LAYOUTS, ["frozen", "residual"])
CASES = {", ".join(case): case for case in CASES}
DTYPES = {"float32": 1e-5, "bfloat16": 1.2e-2}


def make_case(shape, layout, kind, device="cpu", dtype=torch.float32):
    """Maps x, gradient and residual, the norm and the activation."""
    torch.manual_seed(0)
    maps = [torch.randn(SHAPES[shape]) * 2 + 1, torch.randn(SHAPES[shape])]
    maps.append(torch.randn(SHAPES[shape]) if kind == "residual" else None)
    norm = nn.BatchNorm2d(SHAPES[shape][1]).train(kind != "frozen")
    for weight in norm.parameters():
        nn.init.normal_(weight)
    norm.running_var.uniform_(0.5, 2)
    settings = {"memory_format": LAYOUTS[layout], "dtype": dtype, "device": device}
    maps = [None if m is None else m.to(**settings) for m in maps]
    return maps, norm.to(device), nn.ReLU() if kind == "residual" else nn.ReLU6()


def expected(maps, norm, act):
    x, grad, residual = (None if m is None else m.detach().double().cpu() for m in maps)
    norm, x = copy.deepcopy(norm).double().cpu(), x.requires_grad_()
    y = norm(simam_formula(x, 0.1))
    out = act(y if residual is None else y + residual)
    out.backward(grad)
    return out.detach(), x.grad, norm.weight.grad, norm.bias.grad


def assert_near(found, exact, limit):
    for ours, theirs in zip(found, exact, strict=True):
        error = (ours.double().cpu() - theirs).norm() / theirs.norm().clamp_min(1e-30)
        assert error <= limit


def step(maps, norm, act):
    """The result, and the gradients of x, gamma and beta."""
    x, grad, residual = maps
    x = x.requires_grad_()
    out = simam_norm_act(x, SimAM(e_lambda=0.1), norm, act, residual)
    out.backward(grad)
    return out.detach(), x.grad, norm.weight.grad, norm.bias.grad


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interpreted")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, __file__, folder], check=True, env=environment, timeout=300)
    return {name: torch.load(folder / f"{index}.pt") for index, name in enumerate(CASES)}


@pytest.mark.parametrize("name", CASES)
def test_interpreted(name, interpreted):
    maps, norm, act = make_case(*CASES[name])
    assert_near(interpreted[name], expected(maps, norm, act), 1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_on_the_gpu(name, dtype, monkeypatch):
    maps, norm, act = make_case(*CASES[name], "cuda", getattr(torch, dtype))
    exact = expected(maps, norm, act)
    monkeypatch.setattr(fused, "FUSED", {"cuda"})
    monkeypatch.setattr(fused, "SMALL", 0)
    assert_near(step(maps, norm, act), exact, DTYPES[dtype])


if __name__ == "__main__":
    from networks.attentions import fused_triton

    fused.fused_cpu = fused_triton  # the interpreter runs on the CPU
    fused.SMALL = 0
    fused_triton.ROUNDS = 1  # so that maps for which the interpreter has time come in parts
    for index, case in enumerate(CASES.values()):
        torch.save(step(*make_case(*case)), Path(sys.argv[1]) / f"{index}.pt")
