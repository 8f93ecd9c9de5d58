import math

import pytest
import torch

from utils.schedule import lr_at, step_schedule


def test_step_schedule_by_value():
    values = {epoch: lr_at(epoch, 100, 0.1) for epoch in (0, 29, 30, 59, 60, 89, 90, 99)}
    expected = {0: 1e-1, 29: 1e-1, 30: 1e-2, 59: 1e-2, 60: 1e-3, 89: 1e-3, 90: 1e-4, 99: 1e-4}
    assert values == pytest.approx(expected)


def test_cosine_is_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.05)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=150)
    for epoch in range(150):
        assert lr_at(epoch, 150, 0.05, cosine=True) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert lr_at(75, 150, 0.05, cosine=True) == pytest.approx(0.025)
    assert lr_at(149, 150, 0.05, cosine=True) > 0


def test_warmup_rises_linearly_and_ends_at_the_schedule():
    lr_at_step = step_schedule(epochs=10, lr=1.0, cosine=False, warmup_epochs=2, steps=4)
    values = [lr_at_step(epoch, step) for epoch in range(3) for step in range(4)]
    assert values == pytest.approx([k / 8 for k in range(1, 9)] + [1.0] * 4)


def test_warmup_scales_the_cosine():
    lr_at_step = step_schedule(epochs=10, lr=1.0, cosine=True, warmup_epochs=2, steps=2)
    cosine = 0.5 * (1 + math.cos(math.pi / 10))
    assert lr_at_step(1, 0) == pytest.approx(0.75 * cosine)
    assert lr_at_step(1, 1) == pytest.approx(cosine)
