"""The networks by name, and what holds for all of them: those of `resnet.py` and `mobilenetv2.py`
against torchvision's and timm's. The ones for CIFAR: `test_cifar_networks.py`."""

import re

import pytest
import timm
import torch
import torchvision
from conftest import ROOT, run_python
from torch import nn

from networks import MODELS, create_model, list_attentions, list_models
from networks.attentions.simam import simam_formula

# a network for each kind of block
KINDS = ("resnet18", "resnet50d", "mobilenet_v2")
KINDS += ("cifar_preresnet20", "cifar_preresnet164", "cifar_mobilenet_v2")

# from the paper's code, and torchvision's table for the last (1,000 classes)
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "mobilenet_v2": 3_504_872,
    "resnext101_32x8d": 88_791_336,
}


# they have the blocks of others, more often or wider
LARGE = ("resnet101", "resnet152", "resnext101_32x8d")
LARGE += ("cifar_wideresnet28_10", "cifar_wideresnet40_10")


def unhurried(names) -> list:
    return [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in names]


def check_trains(arch: str, attention: str) -> None:
    model = create_model(arch, attention, num_classes=7)
    logits = model(torch.randn(2, 3, *(2 * [16 if arch.startswith("cifar") else 64])))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    logits.square().mean().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("arch", unhurried(list_models()))
def test_every_network_trains_with_simam(arch):
    check_trains(arch, "simam")


@pytest.mark.parametrize("arch", KINDS)
def test_every_kind_of_block_trains_with_a_module_in_its_other_place(arch):
    check_trains(arch, "se")


@pytest.mark.parametrize("attention", sorted({*list_attentions()} - {"simam"}))
def test_every_module_trains_in_the_narrowest_blocks(attention):
    check_trains("mobilenet_v2", attention)


@pytest.mark.parametrize(
    "arch", unhurried(sorted(name for name in MODELS if hasattr(torchvision.models, name)))
)
def test_plain_network_is_torchvisions(arch):
    theirs = getattr(torchvision.models, arch)().eval()
    ours, simam = create_model(arch).eval(), create_model(arch, "simam")
    ours.load_state_dict(theirs.state_dict())
    simam.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))
    for each in (ours, simam):
        assert sum(parameter.numel() for parameter in each.parameters()) == PARAMETERS[arch]


def test_resnet50d_is_timms():
    theirs = timm.create_model("resnet50d", num_classes=5).eval()
    weights = {  # timm has a place for a pool in the first shortcut too
        key.replace("layer1.0.downsample.1", "layer1.0.downsample.0").replace(
            "layer1.0.downsample.2", "layer1.0.downsample.1"
        ): value
        for key, value in theirs.state_dict().items()
    }
    ours = create_model("resnet50d", num_classes=5).eval()
    ours.load_state_dict(weights)
    images = torch.randn(2, 3, 72, 80)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize(
    ("arch", "blocks"), [("resnet18", 8), ("resnet50", 16), ("mobilenet_v2", 17)]
)
def test_simam_stands_behind_the_3x3_convolution(arch, blocks):
    """torchvision's network with the formula hooked in where the paper has it."""
    theirs = getattr(torchvision.models, arch)(num_classes=5).double().eval()
    places = [
        module
        for name, module in theirs.named_modules()
        if isinstance(module, nn.Conv2d)
        and module.kernel_size == (3, 3)
        and (name.endswith("conv2") or module.groups == module.in_channels)
    ]
    assert len(places) == blocks
    for module in places:
        module.register_forward_hook(lambda _m, _i, output: simam_formula(output, 0.1))
    ours = create_model(arch, "simam", 0.1, num_classes=5).double().eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 80, 72, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-10)


def test_unknown_names_list_the_known_ones_closest_first():
    with pytest.raises(ValueError, match=r"unknown arch 'resnet81'; known: resnet18, "):
        create_model("resnet81")
    with pytest.raises(ValueError, match=r"unknown attention 'simmam'; known: simam, .*se"):
        create_model("resnet18", "simmam")


@pytest.mark.parametrize(
    ("attention", "param", "message"),
    [
        ("none", 0.1, "takes no attention parameter"),
        ("simam", 0.0, "e_lambda must be positive"),
        ("simam", float("nan"), "e_lambda must be positive"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(attention, param, message):
    with pytest.raises(ValueError, match=message):
        create_model("resnet18", attention, param)


def test_networks_stand_alone():
    """Neither torchvision, triton, utils nor CUDA come with `import networks`, or its first use."""
    code = (
        "import sys, torch, networks; networks.create_model('resnet18', 'simam')"
        "(torch.ones(2, 3, 32, 32)); assert not torch.cuda.is_initialized();"
        "print(*sorted({'torchvision', 'utils', 'PIL', 'triton'} & set(sys.modules)))"
    )
    assert run_python("-c", code).stdout == "\n"


def test_imports_run_one_way():
    """networks knows nothing of utils, and neither knows the command or the scripts."""
    for package, others in {"networks": {"utils"}, "utils": set()}.items():
        for file in (ROOT / package).rglob("*.py"):
            imported = re.findall(r"^ *(?:import|from) (\w+)", file.read_text(), re.MULTILINE)
            assert not set(imported) & {"scripts", "main_imagenet", *others}, file
