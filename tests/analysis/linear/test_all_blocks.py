from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from analysis import fit_kernel, kernel_distance, perturbation_error
from analysis.linear.all_blocks import largest_change, readout_bounds
from analysis.linear.fits import ExponentialSum, laplace_sum
from odernn import ContinuousRNN
from targets import kernels

RATES, T = np.array([0.05, 0.7]), 40.0


def two_modes(c, u, parameterization="direct"):
    model = ExponentialSum(RATES, np.ones(2)).model(parameterization)
    with torch.no_grad():
        model.c.copy_(torch.tensor([c]))
        model.layer_weights[0].U.copy_(torch.tensor(u).unsqueeze(-1))
    return model


def kernel_change(angles, c, u, beta, t, weights):
    """int |rho_hat(perturbed) - rho_hat| by quadrature, for d = beta (cos, sin), e likewise."""
    d, e = (beta * np.array([np.cos(angle), np.sin(angle)]) for angle in angles)
    change = (np.array(c) + d) * (np.array(u) + e) - np.array(c) * np.array(u)
    return weights @ np.abs(np.exp(-np.outer(t, RATES)) @ change)


@pytest.mark.parametrize("beta", [0.01, 0.2, 3.0])
@pytest.mark.parametrize(("c", "u", "positive"), [((0.3, 0.5), (0.9, 0.2), True), ((0.3, 0.5), (0.9, -0.2), False)])
def test_the_largest_change_is_that_of_a_search_over_all_directions(c, u, positive, beta):
    nodes, weights = np.polynomial.legendre.leggauss(200)
    t, weights = T * (nodes + 1) / 2, T * weights / 2

    def minus(angles):
        return -kernel_change(angles, c, u, beta, t, weights)

    starts = list(itertools.product(np.linspace(0, 2 * np.pi, 9)[:-1], repeat=2))
    best = sorted(starts, key=minus)[:4]
    found = max(-minimize(minus, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).fun for start in best)
    formula = largest_change(two_modes(c, u), beta, T)
    if positive:
        assert formula == pytest.approx(found, rel=1e-6)
    else:
        assert found < formula * (1 + 1e-6)


def test_the_largest_change_does_not_depend_on_the_parameterization():
    first, *others = (largest_change(two_modes((0.3, 0.5), (0.9, 0.2), name), 0.1, T) for name in ("direct", "exp", "softplus"))
    np.testing.assert_allclose(others, first, rtol=1e-12)


@pytest.mark.parametrize(
    ("exponent", "horizon", "parameterization"), [(1.1, 1000.0, "softplus"), (2.5, 100.0, "softplus"), (1.1, 16000.0, "lru")]
)
def test_the_bounds_enclose_the_radius_of_the_ascent(exponent, horizon, parameterization):
    kernel = kernels.polynomial(exponent)
    model = fit_kernel(kernel, 6, horizon, parameterization)
    bounds = readout_bounds(model, kernel, horizon)
    assert bounds.least <= bounds.most <= bounds.slowest_mode
    if parameterization != "lru":  # whose rates end at 1, so that amplitudes of both signs make the start of the kernel
        assert bounds.positive
        assert bounds.most < 1.05 * bounds.least
    betas = np.geomspace(0.7, 1.4, 9) * bounds.most

    def radius(blocks):
        search = {"error": "kernel_l1", "horizon": horizon, "draws": 4, "restarts": 1}
        return perturbation_error(model, kernel, None, None, betas, blocks=blocks, **search).tolerance_radius()

    # To what the interpolation between betas leaves.
    assert bounds.least * 0.99 < radius(["U", "c"]) < bounds.most * 1.01
    assert radius("all") < bounds.most * 1.01


@pytest.mark.parametrize("exponent", [0.6, 1.5, 2.5, 4.0])
def test_the_radius_falls_with_the_slowest_rate_for_every_power(exponent):
    kernel = kernels.polynomial(exponent)
    bounds = [readout_bounds(laplace_sum(exponent, m).model("exp"), kernel, 1e4) for m in (4, 16, 64)]
    for narrow, wide in itertools.pairwise(bounds):
        assert wide.slowest_rate < narrow.slowest_rate / 2
        assert wide.most < narrow.most
    # By 1 of the module, with |H| <= 1 / (p - 1) where that is finite.
    if exponent > 1:
        assert bounds[-1].most <= np.sqrt((0.5 / (exponent - 1) + 0.01) * bounds[-1].slowest_rate)


def test_an_exponential_memory_has_a_radius_of_its_own_at_every_width():
    kernel = kernels.exponential()
    radii = [readout_bounds(fit_kernel(kernel, m, 1000.0), kernel, 1000.0).least for m in (1, 2, 4)]
    assert min(radii) > 0.1


def test_a_model_that_is_too_far_off_has_no_radius():
    kernel = kernels.exponential(rate=0.05)
    model = ExponentialSum(np.array([2.0]), np.array([0.1])).model()
    assert kernel_distance(model, kernel, 100.0).value > 10
    assert readout_bounds(model, kernel, 100.0).least == 0


def test_other_models_are_refused():
    kernel = kernels.exponential()
    for model, message in (
        (ContinuousRNN(1, 2, 1, "linear", "dense", dtype=torch.float64), "one real diagonal layer"),
        (ContinuousRNN(1, 2, 1, "linear", "complex", "exp", dtype=torch.float64), "one real diagonal layer"),
        (ContinuousRNN(1, 2, 1, "tanh", "diagonal", dtype=torch.float64), "activation 'linear'"),
        (two_modes((1.0, 1.0), (1.0, 1.0)), None),
    ):
        if message is None:
            model.set_matrix(torch.diag(torch.tensor([-1.0, 0.5], dtype=torch.float64)))
            message = "the slowest rate is -0.5, expected rates > 0"
        with pytest.raises(ValueError, match=message):
            readout_bounds(model, kernel, 10.0)
