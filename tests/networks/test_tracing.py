"""Every module and network through the ways that PyTorch takes a module apart or differentiates."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.autograd.functional import jacobian
from torchvision.models.feature_extraction import create_feature_extractor

from networks import ATTENTIONS, SimAM, create_attention, create_model, simam

# what PyTorch says of itself
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated"),
    pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated"),
]

# every kind of block and stem
KINDS = ("resnet18", "resnet50d", "mobilenet_v2")
KINDS += ("cifar_preresnet20", "cifar_preresnet164", "cifar_mobilenet_v2")
SIZES = [(2, 16, 7, 5), (3, 16, 4, 6), (1, 16, 1, 1)]


def traced(module):
    """By `torch.jit.trace`, at a size that the copy is not used with."""
    return torch.jit.trace(module, torch.randn(2, 16, 6, 6))


def exported(module):
    dynamic = torch.export.Dim.DYNAMIC
    x = torch.randn(2, 16, 6, 8)
    shapes = ({0: dynamic, 2: dynamic, 3: dynamic},)
    return torch.export.export(module, (x,), dynamic_shapes=shapes).module()


def pickled(module):
    return pickle.loads(pickle.dumps(module))


WAYS = [torch.jit.script, torch.fx.symbolic_trace, traced, copy.deepcopy, pickled]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", ATTENTIONS)
def test_modules_work_when_taken_apart(name, way):
    """At every size, also that of one position, and without a warning of the tracer."""
    module = create_attention(name, 16).eval()
    taken = way(module)
    for size in SIZES:
        x = torch.randn(size)
        torch.testing.assert_close(taken(x), module(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_modules_are_exported_with_dynamic_sizes(name):
    module = create_attention(name, 16).eval()
    taken = exported(module)
    for size in SIZES[:2]:
        x = torch.randn(size)
        torch.testing.assert_close(taken(x), module(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", [torch.jit.script, torch.fx.symbolic_trace, pickled])
@pytest.mark.parametrize("arch", KINDS)
def test_networks_work_when_taken_apart(arch, way):
    network = create_model(arch, "simam", 0.1).double().eval()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(way(network)(x), network(x))


def test_pickled_graph_keeps_the_operator():
    graph = pickled(torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3), SimAM())))
    assert simam in [node.target for node in graph.graph.nodes]
    assert graph(torch.randn(1, 3, 8, 8)).shape == (1, 4, 6, 6)


def test_a_function_that_calls_simam_is_traced():
    graph = torch.fx.symbolic_trace(lambda x: simam(x, e_lambda=0.1) + 1)
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(graph(x), simam(x, 0.1) + 1)


def test_torchvision_takes_features_out():
    network = create_model("resnet18", "simam").eval()
    layers = {"layer1": "fine", "layer4": "coarse"}
    features = create_feature_extractor(network, layers)(torch.randn(1, 3, 64, 64))
    assert {name: f.shape[1] for name, f in features.items()} == {"fine": 64, "coarse": 512}


def test_fx_quantisation():
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    network = nn.Sequential(nn.Conv2d(3, 8, 3), SimAM(0.1), nn.BatchNorm2d(8), nn.ReLU()).eval()
    x = torch.randn(4, 3, 12, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = prepare_fx(network, get_default_qconfig_mapping(), (x,))
        prepared(x)
        quantised = convert_fx(prepared)
    assert (quantised(x) - network(x)).abs().max() < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forward_mode_differentiation(dtype):
    x = torch.randn(1, 2, 3, 4, dtype=dtype)
    reverse = jacobian(simam, x)
    assert reverse.abs().max() > 0.5
    forward = jacobian(simam, x, strategy="forward-mode", vectorize=True)
    torch.testing.assert_close(forward, reverse, rtol=1e-4, atol=1e-5)
    tangent = torch.randn_like(x)
    expected = (reverse.flatten(4).flatten(0, 3) @ tangent.flatten()).view_as(x)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(simam(forward_ad.make_dual(x, tangent))).tangent
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    found = torch.func.jvp(simam, (x,), (tangent,))[1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_vmap():
    x = torch.randn(3, 2, 4, 5, 6)
    each = torch.stack([simam(image) for image in x])
    torch.testing.assert_close(torch.func.vmap(simam)(x), each)


def test_the_default_device_is_heeded():
    torch.set_default_device("meta")
    try:
        y = create_model("resnet18", "simam")(torch.ones(1, 3, 64, 64))
    finally:
        torch.set_default_device(None)
    assert y.is_meta
    assert y.shape == (1, 1000)
