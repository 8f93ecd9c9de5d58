"""Every call by which public copies and parsers of networks make a module: meant or refused."""

import inspect

import numpy as np
import pytest
import torch

from networks import ATTENTIONS, SimAM, create_attention, simam_module
from networks.attentions import (
    CBAM,
    ECA,
    ELA,
    GC,
    SE,
    SRM,
    SWS,
    CoordinateAttention,
    MultiScaleAttention,
    PfAAM,
    ShuffleAttention,
    TripletAttention,
)

SIMAM = {
    (): 1e-4,
    (64,): 1e-4,
    (64, 64): 1e-4,
    (256, 256, 3, 1): 1e-4,
    (None,): 1e-4,
    (0.1,): 0.1,
    (64, 0.1): 0.1,
    (64, 64, 1e-4): 1e-4,
    (256, 256, 1e-3): 1e-3,
    (None, 0.1): 0.1,
    ("1e-4",): 1e-4,
    ("64", "0.1"): 0.1,
    (np.int64(64), np.float32(0.5)): 0.5,
}


@pytest.mark.parametrize("call", SIMAM, ids=str)
def test_simam_takes_lambda_and_ignores_channels(call):
    assert SimAM(*call).e_lambda == SIMAM[call]


@pytest.mark.parametrize("value", [0.1, "0.1", "1e-1", np.float64(0.1)], ids=repr)
def test_simam_takes_lambda_by_name(value):
    assert SimAM(64, e_lambda=value).e_lambda == 0.1
    assert SimAM(e_lambda=64).e_lambda == 64


@pytest.mark.parametrize(
    "call",
    [
        (0.1, 0.2),
        (64.0,),
        (0,),
        (-3,),
        (0.0,),
        (-0.1,),
        (float("nan"),),
        (float("inf"),),
        (True,),
        ("much",),
        ([0.1],),
        (torch.float16,),
    ],
    ids=str,
)
def test_simam_refuses_all_else_in_one_line(call):
    with pytest.raises(ValueError, match="SimAM") as caught:
        SimAM(*call)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, "", None, True, float("nan"), [1e-4]], ids=repr)
def test_simam_refuses_a_lambda_that_is_none(value):
    with pytest.raises(ValueError, match="SimAM"):
        SimAM(e_lambda=value)


def test_simam_refuses_two_lambdas():
    with pytest.raises(ValueError, match=r"SimAM\(0.1, e_lambda=0.2\) names more than one"):
        SimAM(0.1, e_lambda=0.2)


def test_the_authors_name():
    assert simam_module is SimAM


def test_modules_take_their_setting_as_their_copies_do():
    for module in (SE, CBAM, GC):
        for call in [(64, 8), (64, 64, 8), (64, "8"), (64, None, 8)]:
            ours, named = module(*call), module(64, reduction=8)
            assert [p.shape for p in ours.parameters()] == [p.shape for p in named.parameters()]
    assert ECA(64, 5).conv.kernel_size == ECA(64, 64, 5).conv.kernel_size == (5,)
    assert ECA(64, kernel_size="7").conv.kernel_size == (7,)
    assert SRM(64, 64).cfc.shape == (64, 2)
    assert ELA(64, 5).conv.kernel_size == ELA(64, 64, 5).conv.kernel_size == (5,)
    assert MultiScaleAttention(64, 64, 4).width == MultiScaleAttention(64, 4).width == 16
    assert CoordinateAttention(64, 64, 4).row.in_channels == 16
    assert ShuffleAttention(64, 8).half == 4
    assert SWS(64, 0.1).simam.e_lambda == 0.1
    for module in (TripletAttention, PfAAM):
        for call in [(), (64,), (64, 64)]:
            module(*call)


@pytest.mark.parametrize(
    ("module", "call"),
    [
        (SE, (64, 64)),  # the output's channels or a reduction
        (SE, (64, 128)),
        (SE, (64, 128, 16)),
        (SE, (64, 16, 4)),
        (SE, ()),
        (SE, (64, "many")),
        (GC, (64, 1 / 16)),  # the authors' ratio
        (CBAM, (64, 7)),  # ultralytics' kernel size
        (CBAM, (64, 64, 3)),
        (CBAM, (64, 16, ["avg", "max"])),
        (ECA, (64, 2, 1)),  # gamma and b of the paper's rule
        (ECA, (64, 64)),
        (SRM, (64, 16)),
        (SRM, ()),
        (CoordinateAttention, (64, 128)),
        (ELA, (64, "L")),
        (ShuffleAttention, (64, 64)),
        (TripletAttention, (64, 16)),
        (PfAAM, (64, 0.1)),
        (SWS, (0.1, 0.2)),
    ],
    ids=str,
)
def test_modules_refuse_what_is_ambiguous(module, call):
    with pytest.raises(ValueError, match=r".") as caught:
        module(*call)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(ATTENTIONS) - {"none"}))
def test_the_registrys_parameter_is_an_argument(name):
    spec = ATTENTIONS[name]
    if spec.param:
        assert spec.param in inspect.signature(spec.module).parameters
        assert create_attention(name, 64, 1)
