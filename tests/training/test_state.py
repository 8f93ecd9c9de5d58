"""A checkpoint that anybody may have made: what a training goes on with is what it should be."""

import math

import pytest
import torch
from runs import load, path

from networks import create_model
from utils.checkpoints import Checkpoint, CheckpointError
from utils.config import Optim
from utils.training.optim import load_optimizer, make_optimizer
from utils.training.state import State, checked


@pytest.fixture(scope="module")
def content(undisturbed):
    return load(undisturbed)


def test_a_real_one_is_taken(content, undisturbed):
    state = State.of(checked(Checkpoint(str(path(undisturbed)))))
    assert (state.epoch, state.step, state.best_acc1) == (3, 0, content["best_acc1"])
    assert checked(Checkpoint("a.pth", content | {"best_acc1": -math.inf}))["best_acc1"] < 0


@pytest.mark.parametrize(
    ("entry", "values"),
    {
        "epoch": [-1, 2**70, 1.0, True, None, "1", torch.tensor(1)],
        "step": [-1, 2**70],
        "best_acc1": [math.nan, math.inf, 101, 2**70, "71", torch.ones(2)],
        "seconds": [-1.0, math.nan, math.inf, 2**70, None],
        "counters": [{}, [], {"loss": 1.0}, None],
        "seed": [-1, 2**70, "1", None, torch.ones(2)],
        "rng": [torch.zeros(3).byte(), torch.zeros(5056).byte(), torch.zeros(5056), None, "x"],
        "optimizer": [
            *([], {"state": {}}, {"state": {}, "param_groups": [{}]}),
            *({"state": {0: 1}, "param_groups": []}, {"state": [], "param_groups": []}),
        ],
        "scaler": [None, {"scale": 1.0}, {"scale": "x"}],
        "batch_size": [torch.ones(2), "6"],
        "checksum": [torch.ones(2), 5],
        "ema_updates": [-1, 0.5, 2**70],
    }.items(),
)
def test_what_no_run_writes_is_refused_in_one_line(content, entry, values):
    for value in values:
        with pytest.raises(CheckpointError) as refusal:
            checked(Checkpoint("a.pth", content | {entry: value}))
        said = "checkpoint a.pth is damaged: its {} is no such thing; to start a new training from "
        assert str(refusal.value) == said.format(entry) + "its weights: --weights a.pth"


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 2**70, None, "x"])
def test_odd_counters_of_both_formats_are_refused(content, value):
    old = {name: each for name, each in content.items() if name not in ("counters", "version")}
    sums = list(content["counters"].values())
    assert (
        State.of(checked(Checkpoint("a.pth", old | {"sums": sums}))).counters == content["counters"]
    )
    made = [old | {"sums": [value, *sums[1:]]}]
    made.append(content | {"counters": content["counters"] | {"images": value}})
    for each in made:
        with pytest.raises(CheckpointError, match="is damaged: its counters is no such thing"):
            checked(Checkpoint("a.pth", each))
    for sums in (5, [1.0], None):
        with pytest.raises(CheckpointError, match="holds weights but no training state"):
            checked(Checkpoint("a.pth", old | {"sums": sums}))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize(
    "made",
    [
        *(torch.zeros(1), torch.zeros(0), torch.zeros(16, 3, 3, 3).long(), None, "x", 1.0),
        *(torch.zeros(16, 3, 3, 3, device="meta"), torch.zeros(16, 3, 3, 3).to_sparse()),
        torch.zeros(1).expand(16, 3, 3, 3),
    ],
    ids=str,
)
def test_an_optimizers_state_of_another_shape_is_refused(kind, made):
    """A fused update would write past its end."""
    model = create_model("cifar_resnet20", num_classes=3)
    optimizer = make_optimizer(model, Optim(optimizer=kind))
    for each in model.parameters():
        each.grad = torch.ones_like(each)
    optimizer.step()
    state = optimizer.state_dict()
    load_optimizer(optimizer, state, "a.pth")
    names = list(state["state"][0])
    for name in names if made is not None else names[1:]:  # SGD may have no momentum
        odd = state["state"] | {0: state["state"][0] | {name: made}}
        with pytest.raises(CheckpointError, match="a.pth is damaged: its optimizer's state of wei"):
            load_optimizer(optimizer, state | {"state": odd}, "a.pth")
    for odd in ({10**6: {}}, {"x": {}}, {0: {"other": torch.zeros(16, 3, 3, 3)}}):
        with pytest.raises(CheckpointError, match="is damaged"):
            load_optimizer(optimizer, state | {"state": odd}, "a.pth")
