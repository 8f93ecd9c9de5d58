"""Where SimAM, norm and activation are one operator, and where the modules are called."""

import copy

import pytest
import torch
from conftest import run_python
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from networks import create_model
from networks.attentions import FUSED, SimAM, fused, simam_norm_act


@pytest.fixture(autouse=True)
def _small_maps_too(monkeypatch):
    monkeypatch.setattr(fused, "SMALL", 0)


def fresh(arch="cifar_resnet20"):
    torch.manual_seed(3)
    return create_model(arch, "simam", num_classes=4)


@pytest.fixture
def modules_only(monkeypatch):
    """Call with a function: what it returns where the operator is off."""

    def call(function):
        before = set(FUSED)
        FUSED.clear()
        try:
            return function()
        finally:
            FUSED.update(before)

    return call


def ran_fused(call):
    """Whether `call` made use of the operator, which autograd names."""
    with torch.profiler.profile() as profiler:
        call()
    names = {event.key for event in profiler.key_averages()}
    return "SimAMNormActFunction" in names


ARCHS = ["cifar_resnet20", "cifar_preresnet164", "cifar_mobilenet_v2", "resnet50"]


@pytest.mark.parametrize("arch", ARCHS)
def test_networks_use_it_and_compute_the_same(arch, modules_only):
    ours, x = fresh(arch), torch.randn(4, 3, 32, 32)
    theirs = copy.deepcopy(ours)

    def step(net):
        net(x).square().sum().backward()
        return [p.grad for p in net.parameters()]

    assert ran_fused(lambda: step(ours))
    assert not modules_only(lambda: ran_fused(lambda: step(theirs)))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.eval(), theirs.eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(x), modules_only(lambda: theirs(x)), rtol=1e-3, atol=1e-4)


def test_small_batches_are_trained_by_the_modules(monkeypatch):
    monkeypatch.setattr(fused, "SMALL", 1000)
    modules = SimAM(), nn.BatchNorm2d(8), nn.ReLU()
    for positions, expected in ((125, False), (126, True)):
        x = torch.randn(1, 8, 1, positions, requires_grad=True)
        assert ran_fused(lambda x=x: simam_norm_act(x, *modules)) == expected


def test_hooks_and_other_modules_are_called():
    x, relu = torch.randn(2, 8, 6, 6), nn.ReLU()
    seen = []
    for place in range(3):
        modules = [SimAM(), nn.BatchNorm2d(8), nn.ReLU()]
        modules[place].register_forward_hook(lambda module, *_: seen.append(type(module)))
        simam_norm_act(x, *modules)
    assert seen == [SimAM, nn.BatchNorm2d, nn.ReLU]
    assert simam_norm_act(x, nn.Identity(), nn.Identity(), relu).equal(relu(x))
    doubled = SimAM()
    doubled.forward = lambda x: 2 * x
    assert simam_norm_act(x, doubled, nn.Identity(), relu).equal(relu(2 * x))


def test_counters_see_the_modules():
    net, x = fresh(), torch.randn(2, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        net(x)
    assert counter.get_total_flops() > 0


class Tiny(nn.Module):
    """Two residual blocks and a classifier."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, 16, 3, padding=1) for c in (3, 16, 16))
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(3))
        self.attention, self.act, self.fc = SimAM(e_lambda=0.1), nn.ReLU(), nn.Linear(16, 2)

    def forward(self, x):
        rest = None
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = rest = simam_norm_act(conv(x), self.attention, norm, self.act, rest)
        return self.fc(x.mean((2, 3)))


def test_training_follows_the_modules(modules_only):
    """200 steps stay as near to those in float64 as the modules' do."""

    def losses(dtype=torch.float32):
        torch.manual_seed(0)
        net, found = Tiny(), []
        net.to(dtype)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
        for _ in range(200):
            x = torch.randn(16, 3, 9, 9)
            y = (x.mean((1, 2, 3)) > 0).long()
            loss = nn.functional.cross_entropy(net(x.to(dtype)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return torch.tensor(found)

    exact, theirs, ours = losses(torch.float64), modules_only(losses), losses()
    assert ours[-20:].mean() < ours[:20].mean()
    error, usual = ((each - exact).abs().mean().item() for each in (ours, theirs))
    print(f"mean error of the loss: {error:.2g}, of the modules' {usual:.2g}")
    assert error <= 2 * usual + 1e-6


@pytest.mark.parametrize(("value", "devices"), [("0", "[]"), ("", "['cpu']")])
def test_the_environment_switches(value, devices):
    code = "from networks.attentions import FUSED; print(sorted(FUSED))"
    assert run_python("-c", code, SIMAM_FUSED=value).stdout.strip() == devices


def test_says_how_simam_is_computed(modules_only):
    here = torch.device("cpu")
    assert fused.how_computed(here) == "one with norm and activation, in C"
    assert modules_only(lambda: fused.how_computed(here)) == "by itself, in C"
