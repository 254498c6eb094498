from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import F64

from analysis.linear.fits import (
    ExponentialSum,
    _VariableProjection,
    fit_amplitudes,
    fit_kernel,
    laplace_sum,
)
from analysis.linear.theory import KernelL1, LogGrid, impulse_kernel, kernel_distance
from targets import kernels

HORIZON = 1000.0


def relative_distance(model, kernel, horizon=HORIZON):
    return kernel_distance(model, kernel, horizon).value / KernelL1.build(kernel, horizon).scale


def gamma():
    return kernels.from_callable(lambda t: t * np.exp(-t), name="gamma")


@settings(max_examples=30, deadline=None)
@given(
    rates=st.lists(st.floats(0.01, 0.9), min_size=1, max_size=6),
    parameterization=st.sampled_from(["direct", "exp", "softplus", "inverse", "lru"]),
    seed=st.integers(0, 100),
)
def test_the_model_of_an_exponential_sum_has_that_sum_as_its_kernel(rates, parameterization, seed):
    fit = ExponentialSum(np.array(rates), np.random.default_rng(seed).normal(size=len(rates)))
    model = fit.model(parameterization)
    grid = LogGrid.build(10.0)
    with torch.no_grad():
        rho = impulse_kernel(model.field(), grid)[0].numpy()
    np.testing.assert_allclose(rho, fit(grid.times.numpy()), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(model.layer_weights[0].U.detach().abs().flatten(), model.c.detach().abs().flatten())


@pytest.mark.parametrize(("exponent", "scale"), [(1.1, 1.0), (1.5, 1.0), (0.5, 2.0), (3.0, 0.5)])
def test_the_laplace_sum_matches_the_power_law_to_its_order(exponent, scale):
    coarse, fine = laplace_sum(exponent, 4, scale), laplace_sum(exponent, 12, scale)
    t = np.linspace(0, 2 * scale, 50)
    target = (1 + t / scale) ** -exponent
    assert np.abs(fine(t) - target).max() < 1e-3 * np.abs(coarse(t) - target).max() + 1e-9
    assert (fine.amplitudes > 0).all()
    # Gauss quadrature is exact on the moments: the value and slope at t = 0.
    assert fine.amplitudes.sum() == pytest.approx(1)
    assert fine.rates @ fine.amplitudes == pytest.approx(exponent / scale)


@settings(max_examples=60, deadline=None)
@given(
    exponent=st.floats(0.1, 20.0),
    scale=st.floats(0.01, 100.0),
    m=st.integers(1, 12),
    times=st.lists(st.floats(0.0, 1e4), min_size=1, max_size=5),
)
def test_a_laplace_sum_is_exact_to_its_order_and_nowhere_above_the_power_law(exponent, scale, m, times):
    fit = laplace_sum(exponent, m, scale)
    assert (np.diff(fit.rates) > 0).all()
    assert (fit.amplitudes >= 0).all()
    # Gauss quadrature is exact on 2 m moments, Gamma(p + k) / Gamma(p), and below an integrand of positive derivatives.
    for k in range(2 * m):
        moment = math.exp(math.lgamma(exponent + k) - math.lgamma(exponent))
        assert fit.amplitudes @ (fit.rates * scale) ** k == pytest.approx(moment, rel=1e-7)
    t = np.array(times)
    assert (fit(t) <= (1 + t / scale) ** -exponent + 1e-12).all()


def test_least_squares_on_a_basis_is_the_minimum():
    kernel, t = kernels.polynomial(1.1), np.arange(1, 101)
    rates = np.array([1.0, 2.0, 3.0, 4.0])
    fit = fit_amplitudes(kernel, rates, t)

    def cost(amplitudes):
        return np.sum((kernel(t.astype(float)) - ExponentialSum(rates, amplitudes)(t)) ** 2)

    for k in range(4):
        for step in (-1e-3, 1e-3):
            assert cost(fit.amplitudes + step * np.eye(4)[k]) > cost(fit.amplitudes)
    exact = fit_amplitudes(kernels.exponential(2.0), rates, t)
    np.testing.assert_allclose(exact(t), np.exp(-2.0 * t), atol=1e-12)


def test_a_ridge_shrinks_the_amplitudes():
    kernel, t = kernels.polynomial(1.1), np.arange(1, 101)
    free, shrunk = (fit_amplitudes(kernel, np.arange(1, 9), t, ridge) for ridge in (0.0, 1e-6))
    assert np.abs(shrunk.amplitudes).max() < 0.1 * np.abs(free.amplitudes).max()


def test_the_slope_of_the_projected_problem_is_that_of_finite_differences():
    problem = _VariableProjection.build(kernels.polynomial(1.1), HORIZON, 20.0)
    q = np.log(np.array([0.1, 0.5, 2.0]))

    def objective(q):
        residual = problem._residual(q)
        return residual @ residual

    # Kaufman's Jacobian leaves a part out that does not show in the gradient.
    gradient = 2 * problem._jacobian(q).T @ problem._residual(q)
    numeric = [(objective(q + 1e-6 * e) - objective(q - 1e-6 * e)) / 2e-6 for e in np.eye(3)]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5)


@pytest.mark.parametrize("parameterization", ["direct", "exp", "softplus", "inverse", "lru"])
def test_fits_improve_with_width_inside_the_range_of_f(parameterization):
    kernel = kernels.polynomial(1.1)
    errors = []
    for m in (2, 4, 8):
        model = fit_kernel(kernel, m, HORIZON, parameterization)
        rates = -model.spectrum().real.detach()
        assert (rates > 0).all()
        assert (rates < -model.parameterization.range[0]).all()
        assert model.parameterization.name == parameterization
        errors.append(relative_distance(model, kernel))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.03


@pytest.mark.parametrize("kernel", [kernels.exponential(), kernels.exponential(base=0.9)])
@pytest.mark.parametrize("m", [2, 8])
def test_an_exponential_is_fitted_without_spurious_slow_modes(kernel, m):
    model = fit_kernel(kernel, m, HORIZON)
    assert relative_distance(model, kernel) < 1e-4
    rate = -math.log(float(kernel(1.0)))
    assert (-model.spectrum().real.detach()).min() > 0.9 * rate


def test_t_e_to_the_minus_t_is_fitted_though_it_is_no_sum_of_positive_exponentials():
    model = fit_kernel(gamma(), 6, HORIZON)
    assert relative_distance(model, gamma()) < 0.01
    assert float(model.c.detach().abs().max()) < 5


def test_the_same_seed_gives_the_same_fit():
    first, again = (fit_kernel(gamma(), 4, HORIZON, seed=3).c for _ in range(2))
    assert torch.equal(first, again)


def test_bad_input_is_refused_in_one_line():
    vector = kernels.stack([kernels.exponential(), kernels.polynomial()])
    for call, message in (
        (lambda: fit_kernel(vector, 2, 10.0), "scalar kernels"),
        (lambda: fit_kernel(gamma(), 0, 10.0), "m is 0, expected an integer of at least 1"),
        (lambda: fit_kernel(gamma(), 2, math.inf), "finite"),
        (lambda: fit_kernel(gamma(), 2, 1e30), "lives before the first nodes"),
        (lambda: fit_kernel(gamma(), 2, 10.0, seed=None), "seed is None"),
        (lambda: fit_kernel("exponential", 2, 10.0), "kernel is a str"),
        (lambda: fit_amplitudes(gamma(), [[1.0, 2.0]], [0.0, 1.0, 2.0]), r"rates have shape \(1, 2\)"),
        (lambda: fit_amplitudes(gamma(), [-500.0], [0.0, 1.0, 2.0]), "each at least 0"),
        (lambda: fit_amplitudes(gamma(), [1.0], [0.0, math.inf]), "t.1. is not finite"),
        (lambda: fit_amplitudes(gamma(), [1.0], [0.0, 1.0], ridge=-1.0), "ridge is -1.0"),
        (lambda: laplace_sum(1e30, 3), "exponent is 1e.30, expected a finite number > 0 and < 171"),
        (lambda: laplace_sum(1.5, 400), "m is 400, expected an integer from 1 to 300"),
        (lambda: fit_kernel(gamma(), 2, 10.0, "cubic"), "unknown parameterization"),
        (lambda: fit_amplitudes(gamma(), [1.0, 2.0, 3.0], [1.0]), "do not determine"),
        (lambda: laplace_sum(-1.0, 3), "exponent is -1.0, expected a finite number > 0"),
        (lambda: ExponentialSum(np.array([5.0]), np.array([1.0])).model("inverse"), "reaches eigenvalues"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_fits_are_in_double_precision():
    assert fit_kernel(gamma(), 2, 10.0).c.dtype == F64
