import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from networks import create_model
from utils.training.complexity import count_flops, count_parameters

pytest.importorskip("thop")

# parameters in millions and GFLOPs as the paper's Table 3 prints them
PAPER = {
    "resnet18": ("11.69", "1.82"),
    "resnet34": ("21.80", "3.67"),
    "resnet50": ("25.56", "4.11"),
    "resnet101": ("44.55", "7.83"),
    "resnext50_32x4d": ("25.03", "4.26"),
    "mobilenet_v2": ("3.50", "0.31"),
}


@pytest.mark.parametrize("arch", PAPER)
def test_simam_rows_are_the_papers_to_the_printed_digit(arch):
    model = create_model(arch, "simam", 0.1)
    counted = f"{count_parameters(model) / 1e6:.2f}", f"{count_flops(model) / 1e9:.2f}"
    assert counted == PAPER[arch]


def test_convolutions_and_linear_layers_agree_with_torchs_counter():
    model = create_model("resnet18").eval()
    norms = []
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _m, inputs, _o: norms.append(inputs[0].numel()))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 96, 96))
    pooling = 512 * (3 * 3 + 1)
    expected = counter.get_total_flops() // 2 + 2 * sum(norms) + pooling
    assert count_flops(create_model("resnet18"), 96) == expected


def test_the_model_is_left_as_it_was():
    model = create_model("resnet18", "simam").train()
    before = copy.deepcopy(model.state_dict())
    count_flops(model, 64)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert model.training
