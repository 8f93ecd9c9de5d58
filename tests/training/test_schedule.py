import math

import pytest
import torch

from utils.training.schedule import iteration_schedule, lr_at, step_schedule


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


def test_cifar_schedule_is_the_papers():
    lr_at_step = iteration_schedule(64_000, 0.1, steps=391)

    def at(iteration):
        return lr_at_step(*divmod(iteration, 391))

    firsts = {0: 0.1, 31_999: 0.1, 32_000: 0.01, 47_999: 0.01, 48_000: 0.001, 64_123: 0.001}
    assert {iteration: at(iteration) for iteration in firsts} == pytest.approx(firsts)
    # the drops come within the 82nd and the 123rd of 164 epochs
    assert [n // 391 for n in (32_000, 48_000, 63_999)] == [81, 122, 163]


def test_a_shortened_cifar_schedule_keeps_its_shape():
    lr_at_step = iteration_schedule(8, 1.0, steps=3)
    values = [lr_at_step(epoch, step) for epoch in range(3) for step in range(3)]
    assert values == pytest.approx([1.0] * 4 + [0.1] * 2 + [0.01] * 3)
