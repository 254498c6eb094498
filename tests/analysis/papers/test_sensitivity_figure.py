"""The figure vanishing-gradients: what it computes, and that its claims can fail."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from analysis.papers import figures
from analysis.papers.compute.sensitivities import correlated, landscapes, sensitivity_curves, stability_and_curvature
from analysis.papers.compute.teacher_student import teacher_student
from odernn import json_values

DATA = Path(__file__).parents[3] / "reproduction" / "vanishing-gradients" / "data.json"
SMALL = {"teacher_size": 3, "student_size": 4, "horizon": 30, "seeds": [0, 1]}


@pytest.fixture
def data():
    return json_values.loads(DATA.read_bytes())


def outcomes(data):
    return [claim.outcome for claim in figures()["vanishing-gradients"].claims(data)]


def test_all_claims_hold_on_the_stored_data(data):
    assert outcomes(data) == ["held"] * 10


def raise_one(rows, key, factor, **which):
    for row in rows:
        if all(row[name] == value for name, value in which.items()):
            row[key] = (np.array(row[key]) * factor).tolist()


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (lambda data: raise_one(data["modes"], "measured", 1.2, parameterization="softplus"), {0}),
        (lambda data: data["modes"][3].update(parameterization="exp"), {1}),
        (lambda data: raise_one(data["landscapes"], "losses", 1.01, parameterization="exp"), {2}),
        (lambda data: raise_one(data["correlated"], "sensitivities", 0.5, recurrence="lru", correlation=0.9), {3}),
        (lambda data: data["correlated"][-1].update(sensitivities=data["correlated"][-2]["sensitivities"]), {4}),
        (lambda data: raise_one(data["training"], "losses", 1e-3, recurrence="dense"), {5, 7}),
        (lambda data: raise_one(data["training"], "losses", 1e3, recurrence="dense"), {6}),
        (lambda data: raise_one(data["training"], "losses", 1e5, parameterization="inverse"), {7}),
    ],
)
def test_each_claim_about_modes_and_training_fails_on_other_data(data, change, failing):
    change(data)
    assert {k for k, outcome in enumerate(outcomes(data)) if outcome == "failed"} == failing


@pytest.mark.parametrize(
    ("parameterization", "like", "failing"), [("direct", "exp", {8}), ("exp", "direct", {8, 9}), ("softplus", "inverse", set())]
)
def test_claims_about_fits_fail_where_a_protected_parameterisation_is_like_direct(data, parameterization, like, failing):
    known = {(one["parameterization"], one["horizon"]): copy.deepcopy(one) for one in data["fits"]}
    for one in data["fits"]:
        if one["parameterization"] == parameterization:
            other = known[like, one["horizon"]]
            one.update(radii=other["radii"], curvatures=other["curvatures"])
    assert {k for k, outcome in enumerate(outcomes(data)) if outcome == "failed"} == failing


def test_quick_runs_claim_nothing_of_training(data):
    for one in data["training"]:
        one["steps"] = 150
    assert outcomes(data) == ["held"] * 7


def test_students_learn_and_the_power_is_the_loss_of_silence():
    shared = {"slowest": [0.3, 0.9], "recurrence": "lru", "parameterization": "exp", **SMALL}
    first, last = (teacher_student(**shared, learning_rate=0.05, steps=steps) for steps in (1, 60))
    for found in (first, last):
        assert found["losses"].shape == (2, 2)
    assert (last["losses"] < 0.9 * first["losses"]).all()
    assert (last["power"] == first["power"]).all()


def test_an_unstable_student_has_an_infinite_loss_and_spoils_no_other():
    shared = {"slowest": [0.9], "recurrence": "dense", "parameterization": "direct", **SMALL, "steps": 30}
    wild, calm = (teacher_student(**shared, learning_rate=rate)["losses"].numpy() for rate in (1e200, 1e-3))
    assert np.isinf(wild).all()
    assert np.isfinite(calm).all()


def test_modes_and_landscapes_are_those_of_their_formulas():
    rates = [0.5, 0.01]
    found = sensitivity_curves("diagonal", "exp", rates, [0.5], 0.2, 60.0, 100, 0)
    np.testing.assert_allclose(found["sensitivities"].numpy(), [1 / (4 * rate) for rate in rates])
    assert float(found["measured"][0]) == pytest.approx(float(found["expected"][0]), rel=0.3)
    ring = sensitivity_curves("lru", "exp", rates, [0.5], 0.2, 60.0, 100, 0)
    gamma = 1 - np.exp(-2 * np.array(rates))
    np.testing.assert_allclose(ring["sensitivities"].numpy(), gamma / (4 * np.array(rates)), rtol=1e-6)
    n = 0.9
    with_gamma = correlated("lru", 0.0, [1 - n])["sensitivities"].numpy()
    np.testing.assert_allclose(with_gamma, (n * np.log(n)) ** 2 * (1 + n**2) / (1 - n**2) ** 2, rtol=1e-6)
    curves = landscapes("direct", [0.1])
    assert float(curves["losses"][0][len(curves["offsets"]) // 2]) == pytest.approx(0, abs=1e-14)
    np.testing.assert_allclose(curves["moves"][0].numpy(), 0.1 - 0.1 * np.exp(curves["offsets"].numpy()), atol=1e-15)


@pytest.mark.slow
def test_a_fit_has_a_radius_and_a_curvature_for_each_choice_of_weights():
    found = stability_and_curvature("exponential", "exp", 2, 50.0, 0)
    assert found["radii"]["all"] <= found["radii"]["recurrent"]
    assert 0 < found["curvatures"]["recurrent"] <= found["curvatures"]["all"]
    assert found["traces"]["all"] >= found["curvatures"]["all"]
