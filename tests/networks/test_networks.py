import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from networks import ATTENTIONS, MODELS, create_model, list_attentions, list_models

ROOT = Path(__file__).resolve().parents[2]
TORCHVISION = sorted(name for name in MODELS if hasattr(torchvision.models, name))

# shared by the plain and every parameter-free variant; from the paper's code (1,000 classes)
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "mobilenet_v2": 3_504_872,
}


def simam_float64(x: torch.Tensor, e_lambda: float) -> torch.Tensor:
    """The paper's Eq. 5 and 6, one channel of one image at a time."""
    out = torch.empty_like(x)
    for image in range(x.shape[0]):
        for channel in range(x.shape[1]):
            t = x[image, channel]
            mu = t.sum() / t.numel()
            variance = ((t - mu) ** 2).sum() / (t.numel() - 1)
            energy = 4 * (variance + e_lambda) / ((t - mu) ** 2 + 2 * variance + 2 * e_lambda)
            out[image, channel] = t / (1 + torch.exp(-1 / energy))
    return out


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("attention", list_attentions())
@pytest.mark.parametrize("arch", list_models())
def test_every_network_with_every_attention_trains(arch, attention):
    model = create_model(arch, attention, num_classes=7)
    size = 16 if arch.startswith("cifar") else 64
    logits = model(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    logits.square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("attention", ["none", "simam"])
@pytest.mark.parametrize("arch", PARAMETERS)
def test_parameter_counts_are_the_papers(arch, attention):
    with torch.device("meta"):
        assert count(create_model(arch, attention)) == PARAMETERS[arch]


@pytest.mark.parametrize(
    ("arch", "millions"), [("resnet18", 11.7766), ("resnet50", 28.0720), ("mobilenet_v2", 3.5333)]
)
def test_parameter_counts_with_se_are_the_papers(arch, millions):
    with torch.device("meta"):
        assert round(count(create_model(arch, "se")) / 1e6, 4) == millions


@pytest.mark.parametrize("arch", TORCHVISION)
def test_plain_network_equals_torchvisions(arch):
    theirs = getattr(torchvision.models, arch)(num_classes=5).eval()
    ours = create_model(arch, num_classes=5).eval()
    ours.load_state_dict(theirs.state_dict())
    create_model(arch, "simam", num_classes=5).load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


def add_simam_hooks(model: nn.Module, e_lambda: float) -> int:
    """SimAM behind each block's 3x3 convolution of a torchvision network; how many there are."""

    def hook(_module, _inputs, output):
        return simam_float64(output, e_lambda)

    targets = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
        and module.kernel_size == (3, 3)
        and (name.endswith("conv2") or module.groups == module.in_channels)
    ]
    for module in targets:
        module.register_forward_hook(hook)
    return len(targets)


@pytest.mark.parametrize(
    ("arch", "blocks"),
    [("resnet18", 8), ("resnet50", 16), ("resnext50_32x4d", 16), ("mobilenet_v2", 17)],
)
def test_simam_network_equals_torchvisions_with_the_formula_hooked_in(arch, blocks):
    theirs = getattr(torchvision.models, arch)(num_classes=5).double().eval()
    assert add_simam_hooks(theirs, 0.1) == blocks
    ours = create_model(arch, "simam", 0.1, num_classes=5).double().eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 80, 72, dtype=torch.float64)
    with torch.no_grad():
        difference = (ours(images) - theirs(images)).abs().max()
    assert difference < 1e-10


def test_initialisation_is_the_published_one():
    model = create_model("resnet18", "se")
    theirs = torchvision.models.resnet18()
    for name, parameter in theirs.named_parameters():
        if not name.startswith("fc"):
            ours = model.get_parameter(name)
            torch.testing.assert_close(ours.std(), parameter.std(), rtol=0.1, atol=1e-6)
            torch.testing.assert_close(ours.mean(), parameter.mean(), rtol=0.1, atol=2e-2)


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
        ("se", 0.5, "whole number"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(attention, param, message):
    with pytest.raises(ValueError, match=message):
        create_model("resnet18", attention, param)


def test_attention_param_reaches_every_module():
    model = create_model("resnet18", "simam", 0.03)
    simams = [m for m in model.modules() if isinstance(m, ATTENTIONS["simam"].module)]
    assert [module.e_lambda for module in simams] == [0.03] * 8


def test_resnet50d_differs_from_resnet50_by_stem_and_shortcuts():
    keys = set(create_model("resnet50d").state_dict()) ^ set(create_model("resnet50").state_dict())
    assert {key.split(".")[0] for key in keys} == {"conv1", "layer2", "layer3", "layer4"}
    assert "conv1.6.weight" in keys
    assert "layer2.0.downsample.1.weight" in create_model("resnet50d").state_dict()


def test_networks_stand_alone():
    """Neither torchvision, triton, utils nor CUDA come with `import networks`."""
    code = (
        "import sys, torch, networks; networks.create_model('resnet18', 'simam');"
        "assert not torch.cuda.is_initialized();"
        "print(sorted({'torchvision', 'utils', 'PIL'} & set(sys.modules)));"
        "print('networks.attentions.simam_triton' in sys.modules)"
    )
    # torch itself may import triton, so what counts is what comes after torch
    before = "import torch, sys; print('triton' in sys.modules)"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", each], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split("\n")
        for each in (code + "; print('triton' in sys.modules)", before)
    ]
    assert outputs[0][:2] == ["[]", "False"]
    assert outputs[0][2] == outputs[1][0]


def test_imports_run_one_way():
    """networks knows nothing of utils, and neither knows the command or the scripts."""
    forbidden = {
        "networks": {"utils", "scripts", "main_imagenet"},
        "utils": {"scripts", "main_imagenet"},
    }
    for package, others in forbidden.items():
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [node.module]
                assert not {name.split(".")[0] for name in names} & others, file
