"""SimAM, norm and activation as one operator against the modules in float64."""

import copy
import math
from itertools import product

import pytest
import torch
from torch import nn

from networks.attentions import SimAM, fused, simam_norm_act
from networks.attentions.simam import simam_formula
from scripts.bench.costs import kept_for_backward

SHAPES = {
    "ResNet's 56x56": (2, 16, 56, 56),
    "14x14, channels for a part of the lanes": (3, 20, 14, 14),
    "7x7, one channel more than the lanes": (4, 33, 7, 7),
    "1x1: no variance": (3, 5, 1, 1),
    "1x2": (5, 3, 1, 2),
    "not square": (2, 3, 9, 31),
    "primes": (3, 7, 13, 17),
    "one channel": (4, 1, 8, 8),
    "one image": (1, 6, 10, 10),
    "several chunks": (2, 17, 33, 41),
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
# error allowed, relative to the norm of what is expected
ALLOWED = {torch.float32: 2e-6, torch.bfloat16: 1.2e-2, torch.float16: 2e-3}
ENDS = {
    "ReLU": (nn.ReLU, False),
    "ReLU6": (nn.ReLU6, False),
    "no activation": (None, False),
    "residual, ReLU": (nn.ReLU, True),
    "residual, no activation": (None, True),
}


@pytest.fixture(autouse=True)
def _small_maps_too(monkeypatch):
    monkeypatch.setattr(fused, "SMALL", 0)


def modules_in_double(x, attention, norm, act, residual):
    y = norm(simam_formula(x, attention.e_lambda))
    y = y if residual is None else y + residual
    return y if act is None else act(y)


def differentiate(function, maps, grad, modules):
    """Output, gradients of the maps and of the norm, and the norm's buffers."""
    attention, norm, act = modules
    x, residual = (None if m is None else m.detach().requires_grad_() for m in maps)
    norm.zero_grad()
    out = function(x, attention, norm, act, residual)
    out.backward(grad)
    gradients = [t.grad for t in (x, residual, norm.weight, norm.bias) if t is not None]
    return [out.detach(), *gradients, norm.running_mean, norm.running_var]


def relative(found, expected):
    return ((found.double() - expected).norm() / expected.norm().clamp_min(1e-30)).item()


def make_norm(channels, training=True, **options):
    norm = nn.BatchNorm2d(channels, **options).train(training)
    for weight in norm.parameters():
        nn.init.normal_(weight)
    if norm.running_var is not None:
        norm.running_var.uniform_(0.5, 2)
    return norm


def check(shape, layout="contiguous", dtype=torch.float32, end="ReLU", norm=None, **options):
    """Everything found is as near to float64 as it may be; options: mean, scale, e_lambda, times
    (more than the usual error)."""
    mean, scale = options.get("mean", 1), options.get("scale", 2)
    act, has_residual = ENDS[end]
    maps = [(torch.randn(shape) * scale + mean).to(dtype), None]
    if has_residual:
        maps[1] = torch.randn(shape).to(dtype)
    maps = [None if m is None else m.contiguous(memory_format=LAYOUTS[layout]) for m in maps]
    grad = torch.randn(shape).to(dtype)
    attention, act = SimAM(e_lambda=options.get("e_lambda", 0.1)), act and act()
    norm = norm or make_norm(shape[1])
    exactly = copy.deepcopy(norm).double()
    found = differentiate(simam_norm_act, maps, grad, (attention, norm, act))
    assert found[0].dtype == dtype
    assert found[0].stride() == maps[0].stride()
    in_double = [None if m is None else m.double() for m in maps]
    modules = (attention, exactly, act)
    expected = differentiate(modules_in_double, in_double, grad.double(), modules)
    for ours, theirs in zip(found, expected, strict=True):
        assert relative(ours, theirs) <= ALLOWED[dtype] * options.get("times", 1)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("training", [True, False], ids=["training", "frozen"])
@pytest.mark.parametrize("dtype", ALLOWED, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_end_in_every_type(layout, dtype, training, end):
    check((3, 20, 9, 11), layout, dtype, end, make_norm(20, training))


@pytest.mark.parametrize("training", [True, False], ids=["training", "frozen"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_shape(shape, layout, training):
    check(shape, layout, end="ReLU6", norm=make_norm(shape[1], training))


HARD = {
    "mean 300: what float32 leaves of the values": {"mean": 300, "times": 200},
    "lambda 1e-4": {"e_lambda": 1e-4},
    "tiny variances": {"scale": 1e-3, "mean": 0, "times": 5},
    "large values": {"scale": 1e4},
}


@pytest.mark.parametrize("options", HARD.values(), ids=HARD)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_hard_values(layout, options):
    check((4, 20, 14, 14), layout, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gamma_of_zero_and_below(layout):
    norm = make_norm(6)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0, -1, 0, 2, -0.5, 1.0]))
        norm.bias.copy_(torch.tensor([0, 1, 0.5, -1, 0, 0.0]))  # the first: z = 0, no gradient
    check((3, 6, 9, 9), layout, norm=norm)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_passes_back_at_the_edges_of_the_activation(layout):
    norm = make_norm(3)
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.copy_(torch.tensor([0, 6, 3.0]))
    check((3, 3, 9, 9), layout, end="ReLU6", norm=norm)
    assert [value != 0 for value in norm.bias.grad] == [False, False, True]


NORMS = {
    "no weights": {"affine": False},
    "no running statistics": {"track_running_stats": False},
    "cumulative average": {"momentum": None},
    "another momentum and epsilon": {"momentum": 0.3, "eps": 0.1},
}


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("options", NORMS.values(), ids=NORMS)
def test_norms(options, training):
    """Two steps, as the modules do them."""
    ours, theirs = make_norm(8, **options), None
    theirs = copy.deepcopy(ours)
    attention, act = SimAM(e_lambda=0.1), nn.ReLU()
    ours.train(training), theirs.train(training)
    for _ in range(2):
        x = torch.randn(4, 8, 9, 9)
        expected = act(theirs(attention(x)))
        torch.testing.assert_close(simam_norm_act(x, attention, ours, act), expected)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_bits_in_two_runs_and_at_any_number_of_threads(layout):
    x, grad = (torch.randn(5, 36, 17, 19).to(memory_format=LAYOUTS[layout]) for _ in range(2))
    modules = SimAM(e_lambda=0.1), make_norm(36), nn.ReLU6()
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 1, 2, 3):
            torch.set_num_threads(threads)
            kept = copy.deepcopy(modules)
            results.append(differentiate(simam_norm_act, (x, None), grad, kept))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_evaluation_does_not_depend_on_the_batch(layout):
    x = torch.randn(6, 20, 14, 14).to(memory_format=LAYOUTS[layout])
    modules = SimAM(), make_norm(20, training=False), nn.ReLU()
    together = simam_norm_act(x, *modules)
    assert torch.equal(torch.cat([simam_norm_act(each, *modules) for each in x.split(1)]), together)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_hidden(value, layout, training):
    x = torch.randn(3, 20, 8, 9).to(memory_format=LAYOUTS[layout])
    x[1, 7, 3, 4] = value
    out = simam_norm_act(x, SimAM(), make_norm(20, training), nn.ReLU6())
    # in training its channel's statistics are lost, else its map's
    lost = out[:, 7] if training else out[1, 7]
    assert lost.isnan().all()
    assert out.isnan().sum() == lost.numel()
    assert SimAM()(x)[1, 7].isnan().all()


@pytest.mark.parametrize("training", [True, False])
def test_second_derivative(training):
    """In float32 by differences of float64's first one."""
    x, norm = torch.randn(2, 3, 5, 4), make_norm(3, training)
    exactly = copy.deepcopy(norm).double()

    def twice(function, x, norm):
        x = x.detach().requires_grad_()
        out = function(x, SimAM(e_lambda=0.1), norm, nn.ReLU(), None)
        (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), (x, norm.weight))

    expected = twice(modules_in_double, x.double(), exactly)
    for ours, theirs in zip(twice(simam_norm_act, x, norm), expected, strict=True):
        assert relative(ours, theirs) < 1e-4


def test_float64_is_differentiated_by_the_modules():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    norm = make_norm(3).double()
    assert torch.autograd.gradcheck(lambda x: simam_norm_act(x, SimAM(), norm, nn.ReLU()), (x,))


def test_keeps_one_map_for_the_backward_pass():
    x = torch.randn(4, 8, 28, 28, requires_grad=True)
    norm, act = make_norm(8), nn.ReLU()
    kept = kept_for_backward(lambda x: simam_norm_act(x, SimAM(), norm, act), x)
    assert x.nbytes <= kept <= 1.05 * x.nbytes


ALL = list(product(ENDS, LAYOUTS))


@pytest.mark.parametrize(("end", "layout"), ALL)
def test_layouts_that_are_neither(end, layout):
    """A slice of a map, and a gradient and a residual that lie otherwise."""
    act, has_residual = ENDS[end]
    modules = SimAM(e_lambda=0.1), make_norm(6), act and act()
    wide = torch.randn(3, 6, 9, 20).to(memory_format=LAYOUTS[layout])
    maps = wide[..., ::2], torch.randn(3, 9, 10, 6).permute(0, 3, 1, 2) if has_residual else None
    grad = torch.randn(3, 6, 10, 9).transpose(2, 3)
    found = differentiate(simam_norm_act, maps, grad, copy.deepcopy(modules))
    plain = [None if m is None else m.contiguous() for m in maps]
    expected = differentiate(simam_norm_act, plain, grad.contiguous(), modules)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
