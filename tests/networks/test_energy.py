"""The paper's derivation, checked by minimising its energy function numerically."""

import numpy as np
import pytest
from scipy.optimize import minimize

LAMBDAS = [1e-4, 1e-2, 0.1, 1.0]


def energy(wb, t, others, e_lambda):
    """Eq. 2: squared error of a linear neuron that separates t (1) from the others (-1)."""
    w, b = wb
    return np.mean((-1 - (w * others + b)) ** 2) + (1 - (w * t + b)) ** 2 + e_lambda * w**2


@pytest.fixture(params=range(5))
def channel(request):
    rng = np.random.default_rng(request.param)
    return rng.normal(rng.normal(), rng.uniform(0.2, 3), 49)


def minimum(channel, e_lambda):
    t, others = channel[0], channel[1:]
    found = minimize(
        energy, (0.0, 0.0), (t, others, e_lambda), method="BFGS", options={"gtol": 1e-10}
    )
    return t, others, found


@pytest.mark.parametrize("e_lambda", LAMBDAS)
def test_minimal_energy_is_eq_5_with_the_statistics_of_the_others(channel, e_lambda):
    t, others, found = minimum(channel, e_lambda)
    mu, variance = others.mean(), others.var()
    expected = 4 * (variance + e_lambda) / ((t - mu) ** 2 + 2 * variance + 2 * e_lambda)
    assert found.fun == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("e_lambda", LAMBDAS)
def test_the_minimiser_is_eq_3_with_a_plus_sign(channel, e_lambda):
    t, others, found = minimum(channel, e_lambda)
    mu, variance = others.mean(), others.var()
    w = 2 * (t - mu) / ((t - mu) ** 2 + 2 * variance + 2 * e_lambda)
    assert found.x == pytest.approx([w, -(t + mu) * w / 2], rel=1e-4, abs=1e-6)
