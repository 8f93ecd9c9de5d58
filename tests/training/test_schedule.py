import math

import pytest
import torch

from utils.config import Optim
from utils.training.schedule import lr_at, scaling_hint


def test_step_schedule_by_value():
    optim = Optim(lr=0.1, epochs=100)
    values = {epoch: lr_at(optim, epoch) for epoch in (0, 29, 30, 59, 60, 89, 90, 99)}
    expected = {0: 1e-1, 29: 1e-1, 30: 1e-2, 59: 1e-2, 60: 1e-3, 89: 1e-3, 90: 1e-4, 99: 1e-4}
    assert values == pytest.approx(expected)


def test_cosine_is_torchs():
    optim = Optim(lr=0.05, epochs=150, sched="cosine")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.05)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=150)
    for epoch in range(150):
        assert lr_at(optim, epoch) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert lr_at(optim, 149) > 0


@pytest.mark.parametrize("sched", ["step", "cosine"])
def test_warmup_rises_linearly_and_ends_at_the_schedule(sched):
    optim = Optim(lr=1.0, epochs=10, sched=sched, warmup_epochs=2)
    second = 1.0 if sched == "step" else 0.5 * (1 + math.cos(math.pi / 10))
    values = [lr_at(optim, epoch, step, 4) for epoch in range(2) for step in range(4)]
    expected = [k / 8 for k in range(1, 5)] + [k / 8 * second for k in range(5, 9)]
    assert values == pytest.approx(expected)
    plain = Optim(lr=1.0, epochs=10, sched=sched)
    assert [lr_at(optim, 2, step, 4) for step in range(4)] == 4 * [lr_at(plain, 2)]


def test_cifar_schedule_is_the_papers():
    optim = Optim(lr=0.1, sched="iterations", iterations=64_000)

    def at(iteration):
        return lr_at(optim, *divmod(iteration, 391), 391)

    firsts = {0: 0.1, 31_999: 0.1, 32_000: 0.01, 47_999: 0.01, 48_000: 0.001, 64_123: 0.001}
    assert {iteration: at(iteration) for iteration in firsts} == pytest.approx(firsts)


@pytest.mark.parametrize(
    ("lr", "batch_size", "gives"),
    [
        *((0.1, 256, None), (0.1, 128, None), (0.05, 256, None), (0.001, 16, None)),
        *((0.1, 16, "0.00625"), (0.1, 64, "0.025"), (0.5, 256, "0.1"), (0.1, 1024, "0.4")),
    ],
)
def test_linear_scaling_is_named_where_it_is_far_off(lr, batch_size, gives):
    hint = scaling_hint(Optim(lr=lr), batch_size)
    if gives is None:
        assert hint == []
    else:
        (line,) = hint
        assert line.startswith(f"hint        --lr {lr:g} for {batch_size} images a step: ")
        assert f" gives {gives}" in line
        assert ("explode" in line) == (batch_size < 1024)
    assert scaling_hint(Optim(optimizer="adamw", lr=0.1), 16) == []
