import pytest
import torch
import torchvision

from networks import create_model
from networks.init import zero_init_residual


def test_initialisation_is_the_published_one():
    model = create_model("resnet18", "se")
    for name, parameter in torchvision.models.resnet18().named_parameters():
        if not name.startswith("fc"):
            ours = model.get_parameter(name)
            torch.testing.assert_close(ours.std(), parameter.std(), rtol=0.1, atol=1e-6)
            torch.testing.assert_close(ours.mean(), parameter.mean(), rtol=0.1, atol=2e-2)


@pytest.mark.parametrize(
    ("arch", "branches"),
    [("resnet18", 8), ("resnet50", 16), ("mobilenet_v2", 10), ("cifar_mobilenet_v2", 14)],
)
def test_branches_that_start_at_zero_leave_the_shortcut(arch, branches):
    model = create_model(arch, "simam", num_classes=3).eval()
    checked = []

    def check(block, inputs, output):
        shortcut = block.downsample if "resnet" in arch else block.shortcut
        if shortcut is not None:
            expected = shortcut(inputs[0])
            torch.testing.assert_close(output, expected.relu() if "resnet" in arch else expected)
            checked.append(block)

    for module in model.modules():
        if hasattr(module, "attn_block"):
            module.register_forward_hook(check)
    assert zero_init_residual(model) == branches
    model(torch.randn(2, 3, 32, 32))
    assert len(checked) == branches


def test_branches_that_do_not_end_in_a_norm_are_left_alone():
    model = create_model("cifar_preresnet20")
    before = [parameter.clone() for parameter in model.parameters()]
    assert zero_init_residual(model) == 0
    assert all(map(torch.equal, before, model.parameters()))
