"""Every module and network, and what `insert` makes, in all the ways that PyTorch takes a module
apart, runs or differentiates it."""

import copy
import io
import pickle
import warnings
from functools import partial

import onnxruntime
import pytest
import torch
from torch import nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.autograd import forward_ad
from torch.autograd.functional import jacobian

from networks import ATTENTIONS, SimAM, create_attention, create_model, insert, list_models, simam
from networks.cifar.preresnet import CifarPreResNet, PreBottleneck
from networks.cifar.resnet import CifarResNet
from networks.resnet import BasicBlock, Bottleneck32x4, BottleneckD, ResNet, deep_stem

# what PyTorch and its exporters say of themselves
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated"),
    pytest.mark.filterwarnings("ignore:The TorchScript type system doesn't support"),
    pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated"),
    pytest.mark.filterwarnings("ignore:.*legacy TorchScript-based ONNX export"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated"),
    pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning"),
]


def inserted():
    net = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
    insert(net, after="0")
    return net


MODULES = {name: partial(create_attention, name, 16) for name in ATTENTIONS} | {
    "inserted": inserted,
    "per frame": partial(SimAM, dims=(-2, -1)),
}


class Together(nn.Module):
    """The modules on the same maps, for the ways that take long to begin, but for SWS: of a map's
    half torch.export assumes that it is two at least."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(made() for name, made in MODULES.items() if name != "sws")

    def forward(self, x):
        return torch.stack([part(x) for part in self.parts])


def mobilenet():
    """The blocks without a shortcut and with one."""
    return create_model("mobilenet_v2", "simam", 0.1).features[:4]


# each kind of block, stem and head
SIMAM = {"attention": "simam", "attention_param": 0.1}
NETWORKS = {
    "plain": partial(ResNet, BasicBlock, (1, 1, 1, 1)),
    "basic": partial(ResNet, BasicBlock, (1, 1, 1, 1), **SIMAM),
    "bottleneck": partial(ResNet, BottleneckD, (1, 1, 1, 1), stem=deep_stem, **SIMAM),
    "grouped": partial(ResNet, Bottleneck32x4, (1, 1, 1, 1), **SIMAM),
    "mobilenet": mobilenet,
    "cifar": partial(CifarResNet, 8, **SIMAM),
    "preactivation": partial(CifarPreResNet, 8, **SIMAM),
    "preactivation bottleneck": partial(ResNet, PreBottleneck, (1, 1, 1, 1), **SIMAM),
}
BOTH = MODULES | NETWORKS
# the whole of them, one for each kind of block
KINDS = ("resnet18", "resnet50d", "mobilenet_v2")
KINDS += ("cifar_resnet20", "cifar_preresnet164", "cifar_mobilenet_v2")


def make(name):
    """With weights of which none is zero, as some are at first."""
    module = (BOTH | {"together": Together})[name]().eval()
    for weight in module.parameters():
        if name not in NETWORKS:
            nn.init.normal_(weight)
    return module


def sizes(name):
    """At the first a module is traced; it is used at all."""
    if name not in {*NETWORKS, *list_models()}:
        return [(2, 16, 6, 8), (3, 16, 7, 5), (1, 16, 1, 1)]
    return [(2, 3, 40, 48), (3, 3, 56, 40)]


def script(module, x):
    return torch.jit.script(module)


def fx(module, x):
    return torch.fx.symbolic_trace(module)


def script_of_fx(module, x):
    return torch.jit.script(torch.fx.symbolic_trace(module))


def trace(module, x):
    return torch.jit.trace(module, x)


def deepcopy(module, x):
    return copy.deepcopy(module)


def pickled(module, x):
    return pickle.loads(pickle.dumps(module))


def compiled(module, x):
    torch.compiler.reset()
    return torch.compile(module, backend="eager", fullgraph=True)


def prepared(module, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prepare_fx(module, get_default_qconfig_mapping(), (x,))


DYNAMIC = {size: torch.export.Dim.DYNAMIC for size in (0, 2, 3)}


def exported(module, x):
    return torch.export.export(module, (x,), dynamic_shapes=(DYNAMIC,)).module()


def session(model):
    run = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (given,) = run.get_inputs()  # of a module that does nothing, an old exporter changes the name
    return lambda x: torch.from_numpy(run.run(None, {given.name: x.numpy()})[0])


def onnx(module, x):
    program = torch.onnx.export(
        module, (x,), input_names=["x"], dynamic_shapes=(DYNAMIC,), dynamo=True, verbose=False
    )
    return session(program.model_proto.SerializeToString())


def old_onnx(module, x):
    file, axes = io.BytesIO(), {"x": {0: "n", 2: "height", 3: "width"}}
    torch.onnx.export(module, (x,), file, input_names=["x"], dynamic_axes=axes, dynamo=False)
    return session(file.getvalue())


WAYS = [script, fx, script_of_fx, trace, deepcopy, pickled, compiled, prepared, exported]
WAYS += [onnx, old_onnx]
LONG = (compiled, exported, onnx)  # where PyTorch translates
QUICK = (("basic", compiled), ("basic", exported))  # of the networks


def assert_near(found, expected, share=1e-4):
    """Apart by a small share of the largest value."""
    assert found.shape == expected.shape
    apart = (found.double() - expected.double()).abs().max()
    assert apart <= share * expected.double().abs().max(), apart


def ways():
    """Each of `BOTH` in each of `WAYS`; in the long ones the modules together, beside networks."""
    alone = ["together", "sws", *NETWORKS]
    for way in WAYS:
        for name in alone if way in LONG else BOTH:
            slow = way in LONG and name in NETWORKS and (name, way) not in QUICK
            marks = [pytest.mark.slow] if slow else []
            yield pytest.param(name, way, id=f"{name}-{way.__name__}", marks=marks)


@torch.no_grad()
@pytest.mark.parametrize(("name", "way"), [*ways()])
def test_is_the_same_in_every_way(name, way):
    module = make(name)
    first, *others = [torch.randn(size) for size in sizes(name)]
    taken = way(module, first)
    if name == "sws" and way is exported:
        others.pop()  # of a map's half torch.export assumes that it is two at least
    for x in (first, *others):
        for found, expected in zip(taken(x), module(x), strict=True):
            assert_near(found, expected)


@torch.no_grad()
@pytest.mark.parametrize("way", [script, fx, pickled], ids=lambda way: way.__name__)
@pytest.mark.parametrize("arch", KINDS)
def test_whole_networks_are_taken_apart(arch, way):
    network = create_model(arch, "simam", 0.1).eval()
    x = torch.randn(1, 3, 40, 48)
    assert_near(way(network, x)(x), network(x))


@pytest.mark.parametrize("name", BOTH)
def test_differentiates_forward(name):
    module = make(name)
    x, tangent = torch.randn(2, *sizes(name)[0])
    exact = copy.deepcopy(module).double()
    exact = torch.autograd.functional.jvp(exact, x.double(), tangent.double())[1]
    with forward_ad.dual_level():
        dual = module(forward_ad.make_dual(x, tangent))
        assert_near(forward_ad.unpack_dual(dual).tangent, exact)
    assert_near(torch.func.jvp(module, (x,), (tangent,))[1], exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_jacobian_is_the_same_forward_and_in_reverse(dtype):
    x = torch.randn(1, 2, 3, 4, dtype=dtype)
    reverse = jacobian(simam, x)
    assert reverse.abs().max() > 0.5
    assert_near(jacobian(simam, x, strategy="forward-mode", vectorize=True), reverse)


@pytest.mark.parametrize("name", BOTH)
def test_differentiates_twice(name):
    torch.manual_seed(1)  # with 0, float32 and float64 are on two sides of a ReLU's edge
    module, x = make(name), torch.randn(sizes(name)[0])

    def twice(module, x):
        x = x.requires_grad_()
        (dx,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), x)[0]

    exact = twice(copy.deepcopy(module).double(), x.double())
    assert_near(twice(module, x.clone()), exact, 1e-3)


@pytest.mark.parametrize("name", BOTH)
def test_vmap(name):
    module, x = make(name), torch.randn(3, *sizes(name)[0])
    assert_near(torch.func.vmap(module)(x), torch.stack([module(each) for each in x]))


@pytest.mark.parametrize("name", BOTH)
def test_autocast(name):
    module, x = make(name), torch.randn(sizes(name)[0], requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    assert_near(y, module(x), 0.1)
    y.float().square().mean().backward()
    assert all(weight.grad.isfinite().all() for weight in [x, *module.parameters()])


@pytest.mark.parametrize("name", [*MODULES, *list_models()])
def test_the_default_device_is_heeded(name):
    made = MODULES.get(name) or partial(create_model, name, "simam")
    torch.set_default_device("meta")
    try:
        y = made()(torch.ones(sizes(name)[0]))
        assert simam(torch.ones(2, 3, 4, 4, device="cpu")).device.type == "cpu"
    finally:
        torch.set_default_device(None)
    assert y.is_meta


def test_pickled_graph_keeps_the_operator():
    graph = pickled(fx(nn.Sequential(nn.Conv2d(3, 4, 3), SimAM()), None), None)
    assert simam in [node.target for node in graph.graph.nodes]
    assert graph(torch.randn(1, 3, 8, 8)).shape == (1, 4, 6, 6)


def test_a_function_that_calls_simam_is_traced():
    graph = torch.fx.symbolic_trace(lambda x: simam(x, e_lambda=0.1) + 1)
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(graph(x), simam(x, 0.1) + 1)


def test_quantisation():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), SimAM(0.1), nn.BatchNorm2d(8), nn.ReLU()).eval()
    x = torch.randn(4, 3, 12, 12)
    observed = prepared(net, x)
    observed(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_near(convert_fx(observed)(x), net(x), 0.05)
