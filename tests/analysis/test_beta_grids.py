from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.beta_grids import enclose_radius, spanning
from analysis.linear.fits import ExponentialSum
from analysis.perturbation import PUBLISHED_BETAS, perturbation_error
from targets import kernels


@pytest.mark.parametrize("horizon", [1.0, 10.0, 800.0, 1e5])
def test_betas_reach_what_a_verdict_needs_at_every_horizon(horizon):
    betas = spanning(PUBLISHED_BETAS, horizon)
    assert betas[0] == 0
    assert betas[1] * horizon <= 0.1 * (1 + 1e-9)
    assert betas[-1] * horizon >= 40 * (1 - 1e-9)
    np.testing.assert_allclose(np.diff(np.log(betas[1:])), math.log(2) / 2)
    assert set(PUBLISHED_BETAS) <= set(betas)


def test_betas_that_reach_far_enough_stay_as_they_are():
    betas = [0.0, 1e-4, 1e-3, 1e-2, 0.1]
    np.testing.assert_array_equal(spanning(betas, 1000.0), betas)
    np.testing.assert_array_equal(spanning([0.0], 1000.0), [0.0])


def test_a_radius_below_the_first_beta_is_searched_for_there():
    model = ExponentialSum(np.array([1.0]), np.array([1.0])).model()

    def curve(betas):
        return perturbation_error(
            model, kernels.exponential(), None, None, betas, error="kernel_l1", horizon=1e3, draws=0, restarts=0
        )

    exact = curve(np.geomspace(0.02, 0.5, 80)).tolerance_radius()
    assert curve([0.0, 1.0, 2.0]).radius_bound() == "<"
    found = enclose_radius(curve, [0.0, 1.0, 2.0])
    assert found.radius_bound() == ""
    assert found.tolerance_radius() == pytest.approx(exact, rel=0.15)
    # What is enclosed is not computed again.
    calls = []
    enclose_radius(lambda betas: calls.append(betas) or curve(betas), [0.0, 0.1, 1.0])
    assert len(calls) == 1
