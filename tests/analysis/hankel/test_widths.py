"""Errors over the width, and their picture."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from analysis.hankel import WidthErrors, plot_width_errors, width_errors
from analysis.linear.fits import fit_kernel
from analysis.perturbation import perturbation_error
from targets import ConvolutionalFunctional, kernels

POWER = kernels.polynomial(1.5)
HORIZON = 100.0


def curve(m):
    model = fit_kernel(POWER, m, HORIZON)
    return perturbation_error(model, POWER, None, None, [0.0, 1e-3], error="kernel_l1", horizon=HORIZON, draws=1, restarts=0)


@pytest.fixture(scope="module")
def errors():
    return width_errors(
        ConvolutionalFunctional(POWER), (1, 2, 4), HORIZON, ("direct", "exp"), {"trained": [curve(2), curve(4)], "none": []}
    )


def test_nothing_comes_below_the_floor(errors):
    assert (errors.floor > 0).all()
    for found in (errors.reached, *errors.fits.values(), errors.trained["trained"][1:]):
        assert (found >= errors.floor[-found.size :]).all()


def test_floor_ceiling_and_errors_fall_with_the_width(errors):
    for found in (errors.floor, errors.ceiling, errors.reached, errors.fits["direct"]):
        assert (np.diff(found) < 0).all()


def test_trained_models_are_read_off_their_curves(errors):
    assert math.isnan(errors.trained["trained"][0])
    assert errors.trained["trained"][1:] == pytest.approx(errors.fits["direct"][1:], rel=1e-3)
    assert np.isnan(errors.trained["none"]).all()


def test_the_picture_is_written_and_the_numbers_come_back(errors, tmp_path):
    plot_width_errors(errors, tmp_path / "widths.png")
    assert (tmp_path / "widths.png").stat().st_size > 10_000
    assert WidthErrors.from_dict(json.loads(json.dumps(errors.to_dict()))) == errors


@pytest.mark.parametrize("kernel", [kernels.sine(), kernels.shift()], ids=["no decay", "jumps"])
def test_kernels_without_a_ceiling_are_drawn_without_it(kernel, tmp_path):
    errors = width_errors(kernel, (1, 2, 3), 20.0, ())
    assert np.isnan(errors.ceiling).all()
    plot_width_errors(errors, tmp_path / "widths.pdf")


def test_a_kernel_of_finite_rank_has_no_floor_beyond_it(tmp_path):
    errors = width_errors(kernels.exponential(), (1, 2), 20.0, ())
    assert (errors.floor == 0).all()
    assert errors.reached[0] < 1e-8
    plot_width_errors(errors, tmp_path / "widths.png")


def test_a_function_is_a_kernel_and_widths_are_sorted():
    errors = width_errors(lambda t: (1 + t) ** -1.5, (4, 2, 4), HORIZON, ())
    assert errors.widths == (2, 4)
    assert errors.floor == pytest.approx(width_errors(POWER, (2, 4), HORIZON, ()).floor)


def test_wrong_widths_curves_and_targets_are_refused():
    for call, part in (
        (lambda: width_errors(POWER, (), HORIZON), "widths are"),
        (lambda: width_errors(POWER, (0,), HORIZON), "widths is 0"),
        (lambda: width_errors("rho", (1,), HORIZON), "system is a str"),
        (lambda: width_errors(fit_kernel(POWER, 1, HORIZON), (1,), HORIZON), "expected a kernel"),
        (lambda: width_errors(POWER, (1,), HORIZON, "exp"), r"give \('exp',\)"),
        (lambda: width_errors(POWER, (1,), math.inf), "horizon is inf"),
        (lambda: width_errors(POWER, (2,), HORIZON, (), {"a": [replace(curve(2), error="mse")]}), "'mse'"),
        (lambda: width_errors(POWER, (2,), HORIZON, (), {"a": [3]}), "give curves"),
        (lambda: plot_width_errors(None, "widths.png"), "give what width_errors gave"),
    ):
        with pytest.raises(ValueError, match=part):
            call()
