from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis.curve_sets import crossing
from analysis.linear.fits import ExponentialSum
from analysis.perturbation import PerturbationCurve, perturbation_error
from odernn import json_values
from targets import kernels

ONE_MODE = ExponentialSum(np.array([1.0]), np.array([1.0])).model()
BASE = perturbation_error(ONE_MODE, kernels.exponential(), None, None, [0.1], error="kernel_l1", horizon=100.0, draws=0)


def curve_of(betas, relative, initial=None, **changes) -> PerturbationCurve:
    """A curve with given E / |H|."""
    relative = np.asarray(relative, dtype=float)
    initial = relative[0] if initial is None else initial
    values = {"betas": np.asarray(betas, dtype=float), "errors": relative, "searched": relative, "initial": initial, "scale": 1.0}
    return replace(BASE, **values, **changes)


def test_a_radius_that_the_betas_do_not_enclose_is_marked():
    below = curve_of([0.0, 0.1], [0.1, 0.9])
    assert below.radius_bracket() == (0.0, 0.1)
    assert (below.tolerance_radius(), below.radius_bound()) == (0.1, "<")
    without_zero = curve_of([0.1, 0.2], [0.9, 0.9], initial=0.1)
    assert (without_zero.tolerance_radius(), without_zero.radius_bound()) == (0.1, "<")
    diverges = curve_of([0.0, 0.1, 0.2], [0.1, 0.4, math.inf])
    assert diverges.radius_bracket() == (0.1, 0.2)
    assert (diverges.tolerance_radius(), diverges.radius_bound()) == (0.1, ">")
    at_once = curve_of([0.0, 0.1], [0.1, math.inf])
    assert (at_once.tolerance_radius(), at_once.radius_bound()) == (0.1, "<")
    assert curve_of([0.0, 0.1, 0.2], [0.1, 0.4, 0.9]).radius_bound() == ""
    assert below.to_dict()["tolerance_radius_bound"] == "<"


def test_the_tolerance_radius_is_where_the_error_reaches_half_of_the_target():
    power_law = curve_of([0.0, 0.01, 0.1, 1.0], [0.0, 0.02, 0.2, 2.0])
    assert power_law.tolerance_radius() == pytest.approx(0.25)  # E = 2 beta on the log-log line
    assert power_law.tolerance_radius(0.02) == pytest.approx(0.01)
    assert not power_law.within_tolerance
    assert curve_of([0.0, 0.1], [0.6, 0.9]).tolerance_radius() == 0
    assert curve_of([0.0, 0.1, 0.2], [0.1, 0.4, math.inf]).tolerance_radius() == 0.1
    bound = curve_of([0.0, 0.1, 0.2], [0.1, 0.2, 0.3])
    assert bound.within_tolerance
    assert bound.radius_bound() == ">"
    assert bound.tolerance_radius() == 0.2


def test_squared_errors_are_compared_by_their_root():
    curve = curve_of([0.0, 0.01, 0.1, 1.0], [0.0, 4e-4, 4e-2, 4.0], power=2)
    assert curve.tolerance_radius() == pytest.approx(0.25)


def test_curves_cross_where_the_wider_model_becomes_the_worse_one():
    narrow = curve_of([0.0, 0.01, 0.1, 1.0], [0.1, 0.1, 0.1, 0.1])
    wide = curve_of([0.0, 0.01, 0.1, 1.0], [0.01, 0.01, 1.0, 100.0])
    assert crossing(narrow, wide) == pytest.approx(10**-1.5)
    assert crossing(wide, narrow) is None
    assert crossing(narrow, curve_of([0.0, 0.01, 0.1, 1.0], [0.01] * 4)) is None
    with pytest.raises(ValueError, match="share their betas"):
        crossing(narrow, curve_of([0.0, 0.1], [0.1, 0.2]))


def test_a_curve_is_json():
    curve = curve_of([0.0, 0.1], [0.1, math.inf])
    text = json.dumps(curve.to_dict(), allow_nan=False)
    assert json.loads(text)["errors"] == [0.1, "inf"]
    assert json.loads(text)["betas"] == [0.0, 0.1]
    for values in (curve.to_dict(), json.loads(text), json_values.loads(text)):
        again = PerturbationCurve.from_dict(values)
        assert again == curve
        assert again.worst_case is None
        assert (again.tolerance_radius(), again.radius_bound()) == (curve.tolerance_radius(), curve.radius_bound())
    assert curve != curve_of([0.0, 0.1], [0.1, 0.2])
    assert repr(curve) == "PerturbationCurve(m = 1, T = 100, all: E(0) = 0.1 |H|, r = <0.1, E(0.1) = inf |H|, 2 betas)"


ERRORS = st.floats(0, 1e300) | st.just(math.inf)


@settings(max_examples=50, deadline=None)
@given(
    betas=st.lists(st.floats(0, 10), min_size=1, max_size=6, unique=True),
    errors=arrays(np.float64, 6, elements=ERRORS),
    initial=ERRORS | st.just(math.nan),
    horizon=st.floats(0.1, 1e6) | st.just(math.inf),
    power=st.sampled_from([1, 2]),
)
def test_every_curve_comes_back_from_json(betas, errors, initial, horizon, power):
    curve = curve_of(sorted(betas), errors[: len(betas)], initial=initial, horizon=horizon, power=power)
    again = PerturbationCurve.from_dict(json.loads(json.dumps(curve.to_dict(), allow_nan=False)))
    assert again == curve
    for name in ("betas", "errors", "searched"):
        np.testing.assert_array_equal(getattr(again, name), getattr(curve, name))
    assert type(again.horizon) is type(curve.horizon)
    assert again.blocks == curve.blocks


def test_a_curve_of_an_earlier_version_has_the_name_that_its_recurrence_has_now():
    curve = curve_of([0.0, 0.1], [0.1, 0.2], model={"model": "rnn", "recurrence": "symmetric"})
    earlier = curve.to_dict() | {"model": {"model": "rnn", "recurrence": "orthogonal"}}
    assert PerturbationCurve.from_dict(earlier) == curve
