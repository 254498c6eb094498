from __future__ import annotations

import math

import pytest

from analysis import fit_kernel, fit_minimax, kernel_distance, perturbation_error
from targets import kernels

HORIZON = 1000.0


@pytest.mark.parametrize(("parameterization", "beta0"), [("direct", 0.1), ("exp", 0.1), ("inverse", 0.1)])
def test_the_minimax_fit_lowers_the_perturbed_error(parameterization, beta0):
    kernel = kernels.polynomial(1.5)
    fit = fit_minimax(kernel, 4, HORIZON, beta0, parameterization)
    assert fit.error < 0.95 * fit.start_error
    curve = perturbation_error(fit.model, kernel, None, None, [beta0], error="kernel_l1", horizon=HORIZON, blocks="recurrent")
    # A wider search than the fit's own finds little more.
    assert curve.errors[0] == pytest.approx(fit.error, rel=0.05)


def test_the_minimax_fit_of_an_exponential_hedges_as_the_closed_form_says():
    # One mode a e^-rt against e^-t, w moved by b: |a/(r-b) - 1| above and |a/(r+b) - 1| below are balanced.
    fit = fit_minimax(kernels.exponential(), 1, 200.0, 0.2)
    assert fit.start_error == pytest.approx(0.25, rel=1e-3)
    assert fit.error < 0.2


def test_without_a_perturbation_the_minimax_fit_minimises_the_distance_itself():
    kernel = kernels.polynomial(1.5)
    fit = fit_minimax(kernel, 3, HORIZON, 0.0)
    assert fit.error <= kernel_distance(fit_kernel(kernel, 3, HORIZON), kernel, HORIZON).value * (1 + 1e-6)


def test_the_same_seed_gives_the_same_fit():
    first, again, other = (fit_minimax(kernels.polynomial(1.5), 2, HORIZON, 0.05, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert other.error == pytest.approx(first.error, rel=0.05)


@pytest.mark.parametrize("beta0", [-0.1, math.inf, math.nan, None])
def test_a_radius_that_is_none_is_refused(beta0):
    with pytest.raises(ValueError, match=f"beta0 is {beta0}"):
        fit_minimax(kernels.exponential(), 2, 10.0, beta0)
