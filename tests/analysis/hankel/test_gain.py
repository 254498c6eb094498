"""H-infinity distances: between the floor and the L1 distance, and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.hankel import StateSpace, balanced_truncation, h_infinity_distance, hankel_spectrum
from analysis.linear.fits import fit_kernel
from analysis.linear.theory import kernel_distance
from targets import kernels

ZERO = StateSpace([[-1.0]], [[0.0]], [[1.0]])


@pytest.mark.parametrize("kernel", [kernels.polynomial(2.0), kernels.two_part(), kernels.airy(2.0)], ids=["power", "two", "airy"])
def test_every_model_lies_between_the_floor_and_its_l1_distance(kernel):
    for model in (fit_kernel(kernel, 3, 100.0), balanced_truncation(kernel, 3).model()):
        found = h_infinity_distance(model, kernel)
        assert hankel_spectrum(kernel).floor(3) <= found <= kernel_distance(model, kernel).value * (1 + 1e-4)


def test_a_truncation_keeps_its_bound_and_meets_it_for_powers():
    for m in (1, 5):
        reduced = balanced_truncation(kernels.polynomial(2.0), m)
        assert h_infinity_distance(reduced.model(), kernels.polynomial(2.0)) == pytest.approx(reduced.bound, rel=1e-6)


def test_a_resonance_has_its_closed_form():
    # G(s) = b / ((s + a)^2 + b^2), largest near w = b
    a, b = 0.05, 2.0
    resonance = StateSpace([[-a, -b], [b, -a]], [[1.0], [0.0]], [[0.0, 1.0]])
    assert h_infinity_distance(ZERO, resonance) == pytest.approx(1 / (2 * a), rel=1e-10)
    kernel = kernels.from_callable(lambda t: np.exp(-a * t) * np.sin(b * t), name="resonance")
    assert h_infinity_distance(ZERO, kernel) == pytest.approx(1 / (2 * a), rel=1e-8)


def test_a_sharp_peak_beside_a_broad_one_is_found():
    # gains 4 / 2a of the sharp pair, 1 of the slow mode: neither a grid of powers nor its largest value shows the first
    a, b = 1e-5, 3.3
    W = np.array([[-a, -b, 0], [b, -a, 0], [0, 0, -0.1]])
    pair = StateSpace(W, [[1e-4], [0.0], [0.1]], [[0.0, 4.0, 1.0]])
    assert h_infinity_distance(ZERO, pair) == pytest.approx(4e-4 / (2 * a), rel=1e-2)


def test_truncations_and_matrices_are_models_too():
    reduced = balanced_truncation(kernels.polynomial(2.0), 2)
    assert h_infinity_distance(reduced, kernels.polynomial(2.0)) == pytest.approx(reduced.bound, rel=1e-6)
    assert h_infinity_distance(reduced.model(), reduced) < 1e-14


def test_a_box_has_its_integral():
    box = kernels.from_callable(lambda t: 1.0 * (t < 2), name="box")
    assert h_infinity_distance(ZERO, box) == pytest.approx(2.0, rel=1e-10)


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="several inputs"):
        h_infinity_distance(StateSpace([[-1.0]], [[1.0, 1.0]], [[1.0]]), kernels.exponential())
    with pytest.raises(ValueError, match="the model comes first"):
        h_infinity_distance(kernels.exponential(), ZERO)
    with pytest.raises(ValueError, match="2 channels"):
        h_infinity_distance(ZERO, kernels.stack([kernels.exponential()] * 2))
