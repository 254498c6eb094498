"""Balanced truncation: its bounds, and the models made of it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from analysis.hankel import BalancedTruncation, StateSpace, balanced_truncation, h_infinity_distance, hankel_spectrum
from analysis.hankel.reduction import Truncations
from analysis.linear.theory import kernel_distance
from odernn import StateSpaceModel
from targets import kernels

OSCILLATING = kernels.from_callable(lambda t: np.exp(-0.2 * t) * np.cos(t) + np.exp(-2 * t), name="oscillating")
POWER = kernels.polynomial(2.0)


def h_infinity(kernel, reduced, end, nodes=800):
    """The largest |G(iw) - G_m(iw)| of some frequencies, by quadrature of the difference of the kernels."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    t, w = end * (x + 1) / 2, end * w / 2
    difference = kernel.values(t)[:, 0] - reduced(t)
    return max(abs(np.exp(-1j * omega * t) @ (w * difference)) for omega in (0.0, *np.geomspace(0.01, 5, 60)))


@pytest.mark.parametrize("m", [1, 2])
def test_the_error_lies_between_the_floor_and_the_ceiling(m):
    reduced = balanced_truncation(OSCILLATING, m)
    found = h_infinity(OSCILLATING, reduced, 100.0)
    assert reduced.floor <= found * (1 + 1e-6)
    assert found <= reduced.bound * (1 + 1e-6)
    assert found <= kernel_distance(reduced.model(), OSCILLATING).value * (1 + 1e-3)


def test_the_error_of_a_completely_monotone_kernel_is_the_ceiling():
    # at w = 0: (1+t)^-2 has the integral 1
    for m in (1, 3):
        reduced = balanced_truncation(POWER, m)
        gain = float((reduced.c @ np.linalg.solve(-reduced.W, reduced.U)).item())
        assert 1 - gain == pytest.approx(reduced.bound, rel=1e-6)


def test_the_whole_of_a_sum_of_exponentials_is_itself():
    reduced = balanced_truncation(OSCILLATING, 3)
    t = np.linspace(0, 20, 50)
    assert reduced(t) == pytest.approx(OSCILLATING(t), abs=1e-8)
    assert np.sort(np.linalg.eigvals(reduced.W).real) == pytest.approx([-2.0, -0.2, -0.2], rel=1e-7)


def test_a_kernel_and_its_model_have_one_truncation():
    W, U, c = np.diag([-1.0, -0.3, -4.0]), np.ones((3, 1)), np.array([[1.0, 0.5, 2.0]])
    model = StateSpace(W, U, c)
    kernel = kernels.from_callable(lambda t: np.exp(-t) + 0.5 * np.exp(-0.3 * t) + 2 * np.exp(-4 * t), name="sum")
    t = np.linspace(0, 10, 30)
    of_model, of_kernel = balanced_truncation(model, 2), balanced_truncation(kernel, 2)
    assert of_kernel(t) == pytest.approx(of_model(t), abs=1e-9)
    # balanced: its own values are the first two
    assert hankel_spectrum(of_kernel.model()).values == pytest.approx(of_kernel.spectrum.values[:2], rel=1e-9)


def test_several_inputs_and_outputs_are_reduced_together():
    generator = np.random.default_rng(0)
    model = StateSpace(
        -np.diag([0.1, 1, 2, 3.0]) + 0.1 * np.eye(4, k=1), generator.normal(size=(4, 2)), generator.normal(size=(3, 4))
    )
    reduced = balanced_truncation(model, 2)
    worst = 0.0
    for omega in np.append(0, np.geomspace(1e-3, 1e2, 100)):
        G, small = (
            one.c @ np.linalg.solve(1j * omega * np.eye(len(one.W)) - one.W, one.U.astype(complex)) for one in (model, reduced)
        )
        worst = max(worst, np.linalg.norm(G - small, 2))
    assert reduced.floor <= worst <= reduced.bound
    assert reduced(np.array([0.0, 1.0])).shape == (2, 3, 2)


@pytest.mark.parametrize(("kind", "recurrence"), [("rnn", "dense"), ("ssm", "dense"), ("rnn", "diagonal"), ("ssm", "diagonal")])
def test_models_have_the_kernel_of_the_truncation(kind, recurrence):
    reduced = balanced_truncation(POWER, 3)
    model = reduced.model(kind, recurrence)
    field = model.field().layers[0]
    W, U, c = (part.detach().numpy() for part in (field.W.to_dense(), field.U, model.c))
    again = BalancedTruncation(W, U, c, 0.0, 0.0, reduced.spectrum)
    t = np.linspace(0, 5, 20)
    assert again(t) == pytest.approx(reduced(t), abs=1e-9)


def test_pairs_and_input_scales_keep_the_kernel():
    t = np.linspace(0, 5, 20)
    for reduced, recurrence, f in (
        (balanced_truncation(OSCILLATING, 2), "complex", "direct"),
        (balanced_truncation(kernels.polynomial(2.0, scale=10.0), 2), "diagonal", "lru"),
    ):
        field = (model := reduced.model("rnn", recurrence, f)).field().layers[0]
        W, U, c = (part.detach().numpy() for part in (field.W.to_dense(), field.U, model.c))
        assert BalancedTruncation(W, U, c, 0.0, 0.0, reduced.spectrum)(t) == pytest.approx(reduced(t), abs=1e-9)


def test_a_truncation_is_a_system_that_can_be_reduced_again():
    large = balanced_truncation(POWER, 6)
    assert hankel_spectrum(large).values == pytest.approx(large.spectrum.values[:6], rel=1e-8)
    again, direct = balanced_truncation(large, 2), balanced_truncation(POWER, 2)
    for name in ("W", "U", "c"):  # truncations of balanced systems are their corners
        assert getattr(again, name) == pytest.approx(getattr(direct, name), abs=1e-9)
    assert (direct.U >= 0).all()


def test_a_kernel_with_a_delay_becomes_a_dense_model_whose_error_lies_above_the_floor():
    delayed = kernels.from_callable(lambda t: np.where(t > 2, np.exp(2 - t), 0.0), name="delayed")
    errors = []
    for m in (4, 8, 12):
        reduced = balanced_truncation(delayed, m)
        model = reduced.model()
        found = h_infinity_distance(model, delayed)
        assert reduced.floor <= found <= kernel_distance(model, delayed).value * (1 + 1e-3)
        assert math.isnan(reduced.bound)
        errors.append(found)
    assert errors == sorted(errors, reverse=True)


def test_the_kernel_of_a_truncation_is_0_before_0():
    reduced = balanced_truncation(POWER, 2)
    assert reduced(np.array([-1e9, -1.0, 0.0])) == pytest.approx([0.0, 0.0, (reduced.c @ reduced.U).item()])


def test_it_loads_into_a_state_space_model():
    reduced = balanced_truncation(POWER, 3)
    model = StateSpaceModel(1, 3, 1, "linear", bias=False, seed=0, dtype=torch.float64)
    model.set_matrix(torch.from_numpy(reduced.W))
    assert model.field().layers[0].W.to_dense().detach().numpy() == pytest.approx(reduced.W)


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: balanced_truncation(kernels.exponential(), 2), "at most 1"),
        (lambda: balanced_truncation(kernels.exponential(), 0), "m is 0"),
        (lambda: balanced_truncation(kernels.sine(), 2.5), "m is 2.5"),
        (lambda: balanced_truncation("exponential", 1), "system is a str"),
        (lambda: Truncations.build(kernels.polynomial(1.5)).to(64), "not stable to rounding"),
        (lambda: balanced_truncation(kernels.stack([kernels.exponential()] * 2), 1), "one by one"),
        (lambda: balanced_truncation(StateSpace([[0.5]], [[1.0]], [[1.0]], discrete=True), 1), "is a map"),
        (lambda: balanced_truncation(kernels.sine(), 1), "does not converge"),
        (lambda: balanced_truncation(OSCILLATING, 2).model("rnn", "diagonal"), "not real"),
        (lambda: balanced_truncation(POWER, 2).model("rnn", "complex"), "are real"),
        (lambda: balanced_truncation(POWER, 2).model("lstm"), "unknown kind"),
    ],
)
def test_what_cannot_be_reduced_is_refused(call, part):
    with pytest.raises(ValueError, match=part):
        call()


def test_a_truncation_is_the_same_after_json():
    reduced = balanced_truncation(POWER, 2)
    again = BalancedTruncation.from_dict(json.loads(json.dumps(reduced.to_dict())))
    assert again == reduced
    assert math.isfinite(again.bound)
