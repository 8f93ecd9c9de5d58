"""Optimizers and the average of weights, against PyTorch's own and by hand."""

import pytest
import torch
import torch.nn.functional as F
from operations import Operations
from test_engine import batches, doubled, learner_of, normless, small_network, train, vector
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from networks import create_model
from utils.config import Optim
from utils.training.optim import MovingAverage, make_optimizer

OPTIMIZERS = {
    "sgd": Optim(weight_decay=0.01),
    "plain": Optim(weight_decay=0.01, momentum=0.0),
    "nesterov": Optim(weight_decay=0.01, nesterov=True),
    "adamw": Optim(weight_decay=0.01, optimizer="adamw"),
}


@pytest.mark.parametrize("optim", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_overflow_at_the_first_step_leaves_no_trace(optim):
    """The steps after it are those of PyTorch's plain optimizer, which never saw it."""
    model, reference, data = normless(), normless(), doubled(batches(3, 6))
    # memory that is handed out next, as a momentum that was never written would find it
    used = [torch.full_like(each, 1e3) for each in model.parameters()]
    factors = iter([float("inf"), 1.0, 1.0])
    model[3].weight.register_hook(lambda gradient: gradient * next(factors))
    optimizer = make_optimizer(model, optim)
    del used
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for images, targets in data:
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(images), targets)).backward()
        scaler.step(optimizer)
        scaler.update()
    if optim.optimizer == "adamw":
        plain = torch.optim.AdamW(reference.parameters(), 0.1, weight_decay=0.01, fused=False)
    else:
        settings = {"momentum": optim.momentum, "nesterov": optim.nesterov, "weight_decay": 0.01}
        plain = torch.optim.SGD(reference.parameters(), 0.1, **settings, fused=False)
    for images, targets in data[1:]:
        plain.zero_grad()
        F.cross_entropy(reference(images), targets).backward()
        plain.step()
    torch.testing.assert_close(vector(model), vector(reference), rtol=1e-10, atol=1e-12)


def test_norms_and_biases_are_left_out_of_the_decay():
    model = create_model("resnet18", "cbam", num_classes=3)
    before = {key: value.clone() for key, value in model.named_parameters()}
    for each in model.parameters():
        each.grad = torch.zeros_like(each)
    make_optimizer(model, Optim(weight_decay=0.5, no_wd_norm_bias=True)).step()
    flat = {f"{name}.bias" for name, _ in model.named_modules()}
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    flat |= {f"{name}.weight" for name, each in model.named_modules() if isinstance(each, norms)}
    for key, value in model.named_parameters():
        kept = 1.0 if key in flat else 0.95
        torch.testing.assert_close(value, kept * before[key], msg=key)


def test_the_average_is_pytorchs():
    """Bit for bit, but for batch counters, which are the model's."""
    model = small_network()
    stock = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    learner = learner_of(model, average=MovingAverage(model, 0.9))
    train(learner, batches(5, 6), after_step=lambda *_: stock.update_parameters(model))
    ours = learner.average.state_dict()
    assert stock.state_dict().keys() == ours.keys()
    for key, value in stock.state_dict().items():
        counter = key == "module.1.num_batches_tracked"
        assert torch.equal(model[1].num_batches_tracked if counter else value, ours[key]), key
    assert not torch.equal(learner.average.module[0].weight, model[0].weight)


def test_an_update_is_two_operations():
    model = create_model("resnet18", num_classes=3)
    average = MovingAverage(model, 0.9)
    average.update_parameters(model)
    with Operations() as seen:
        average.update_parameters(model)
    of_the_counter = dict.fromkeys(("eq", "_local_scalar_dense", "add_"), 1)  # on the CPU
    assert seen.counts == {"_foreach_lerp_": 1, "_foreach_copy_": 1} | of_the_counter
