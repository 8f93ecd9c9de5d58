import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, relu

from networks import create_model
from networks.attentions import SimAM
from networks.attentions.simam import simam_formula

# of the published CIFAR networks, with 10 and with 100 classes
PARAMETERS = {
    "cifar_resnet20": (272_474, 278_324),
    "cifar_resnet32": (466_906, 472_756),
    "cifar_resnet56": (855_770, 861_620),
    "cifar_resnet110": (1_730_714, 1_736_564),
    "cifar_preresnet20": (272_282, 278_132),
    "cifar_preresnet56": (855_578, 861_428),
    "cifar_preresnet110": (1_730_522, 1_736_372),
    "cifar_wideresnet28_10": (36_479_194, 36_536_884),
    "cifar_mobilenet_v2": (2_296_922, 2_412_212),
}


@pytest.mark.parametrize("arch", PARAMETERS)
def test_parameter_counts_are_the_published(arch):
    for classes, count in zip((10, 100), PARAMETERS[arch], strict=True):
        with torch.device("meta"):
            model = create_model(arch, "simam", num_classes=classes)
        assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize(
    ("arch", "layers", "simams"),
    [
        ("cifar_resnet20", 20, 9),
        ("cifar_resnet164", 164, 54),
        ("cifar_preresnet110", 110, 54),
        ("cifar_preresnet164", 164, 54),
        # Wide ResNet counts the three shortcut convolutions, and not the classifier
        ("cifar_wideresnet28_10", 26, 12),
        ("cifar_wideresnet40_10", 38, 18),
    ],
)
def test_depth_and_places_of_the_attention(arch, layers, simams):
    with torch.device("meta"):
        model = create_model(arch, "simam")
    weights = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        and not ("downsample" in name or "shortcut" in name)
    ]
    assert len(weights) == layers
    found = [name for name, module in model.named_modules() if isinstance(module, SimAM)]
    assert len(found) == simams
    assert all(name.endswith("attn_conv") for name in found)


def test_maps_shrink_to_an_eighth_at_most():
    sizes = {}
    for arch in ("cifar_resnet20", "cifar_preresnet20", "cifar_mobilenet_v2"):
        model = create_model(arch)
        model.avgpool.register_forward_hook(
            lambda _m, inputs, _o, arch=arch: sizes.update({arch: inputs[0].shape[-1]})
        )
        model.eval()(torch.zeros(1, 3, 32, 32))
    assert sizes == {"cifar_resnet20": 8, "cifar_preresnet20": 8, "cifar_mobilenet_v2": 4}


def test_a_preactivation_branch_is_norm_relu_convolution():
    """The block against its equation, with the weights of the module (float64)."""
    block = create_model("cifar_preresnet20", "simam", 0.1).double().eval().layer2[0]
    x = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    active = relu(block.bn1(x))
    y = conv2d(active, block.conv1.weight, stride=2, padding=1)
    y = simam_formula(conv2d(relu(block.bn2(y)), block.conv2.weight, padding=1), 0.1)
    expected = y + conv2d(active, block.shortcut.weight, stride=2)
    torch.testing.assert_close(block(x.clone()), expected, rtol=0, atol=1e-12)
