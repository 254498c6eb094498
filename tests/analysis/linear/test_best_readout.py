from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch

from analysis import ReadoutFit, best_readout
from analysis.linear.best_readout import _cascade, _different
from odernn import ContinuousRNN, StateSpaceModel, initialize
from odernn.spectra import SPECTRA, Spectrum, of_eigenvalues, spectrum
from targets import kernels

F64 = torch.float64
POWER = kernels.polynomial(exponent=1.5)


def exact(rates, T, weight=0):
    """The distance of (1 + t)^-1.5 from exponentials on [0, T], from the normal equations in 120 digits."""
    with mpmath.workdps(120):
        r = [mpmath.mpf(float(rate)) for rate in rates]

        def mode(s):
            """int_0^T (1 + t)^q e^{-st} dt for q = 0 or 1."""
            plain = (1 - mpmath.exp(-s * T)) / s
            return plain if weight == 0 else plain + (plain - T * mpmath.exp(-s * T)) / s

        def power(s):
            """int_0^T (1 + t)^(q - 1.5) e^{-st} dt by incomplete gamma functions."""
            p = mpmath.mpf("1.5") - weight
            return mpmath.exp(s) * s ** (p - 1) * (mpmath.gammainc(1 - p, s) - mpmath.gammainc(1 - p, s * (1 + T)))

        m = len(r)
        G = mpmath.matrix(m, m)
        for i in range(m):
            for j in range(m):
                G[i, j] = mode(r[i] + r[j])
        b = mpmath.matrix([power(s) for s in r])
        square = (1 - mpmath.mpf(1 + T) ** (weight - 2)) / (2 - weight)  # int (1 + t)^(q - 3) dt
        return float(mpmath.sqrt((square - (b.T * mpmath.lu_solve(G, b))[0]) / square))


@pytest.mark.parametrize(
    ("name", "m"), [("geometric", 2), ("geometric", 12), ("linear", 8), ("s4d_real", 12), ("log_uniform", 10)]
)
@pytest.mark.parametrize("weight", [0, 1])
def test_errors_on_real_modes_are_those_of_many_digits(name, m, weight):
    found = spectrum(name, m, horizon=100.0)
    fit = best_readout(POWER, found, 100.0, weight=weight)
    expected = exact(-found.eigenvalues.real, 100.0, weight=weight)
    assert fit.error == pytest.approx(expected, rel=1e-6)
    assert abs(fit.error - expected) <= max(fit.uncertainty, 1e-12 * expected)
    assert fit.uncertainty < 1e-6
    assert fit.attained >= fit.error


@pytest.mark.slow
@pytest.mark.parametrize("m", [24, 32])
def test_many_modes_are_resolved(m):
    found = spectrum("geometric", m, horizon=100.0)
    fit, expected = best_readout(POWER, found, 100.0), exact(-found.eigenvalues.real, 100.0)
    assert fit.error == pytest.approx(expected, rel=1e-5)
    assert abs(fit.error - expected) <= fit.uncertainty


@pytest.mark.parametrize("name", sorted(SPECTRA))
@pytest.mark.parametrize("m", [2, 8])
def test_the_distance_of_an_exponential_is_a_product_over_the_modes(name, m):
    """On [0, inf): |e^-at - span| / |e^-at| = prod |a - l| / |a + l|, the classical formula of Muentz and Szasz."""
    a, found = 0.37, spectrum(name, m, horizon=5.0)
    modes = {complex(round(mode.real, 12), round(mode.imag, 12)) for mode in found.eigenvalues}  # equal ones count once
    expected = math.prod(abs((a + mode) / (a - mode)) for mode in modes)
    fit = best_readout(kernels.exponential(rate=a), found, 300.0)
    assert fit.error == pytest.approx(expected, rel=1e-6, abs=1e-11)
    assert fit.modes == len(modes)


def test_the_cascade_is_orthonormal():
    A, B = _cascade(np.array([-0.3, -1.0]), np.array([-0.5 + 2j, -0.1 + 0.7j]))
    np.testing.assert_allclose(A + A.T, -np.outer(B, B), atol=1e-14)
    expected = [-1.0, -0.5 - 2j, -0.5 + 2j, -0.3, -0.1 - 0.7j, -0.1 + 0.7j]
    np.testing.assert_allclose(np.sort_complex(np.linalg.eigvals(A)), np.sort_complex(np.array(expected)), atol=1e-12)


@pytest.mark.parametrize("name", ["geometric", "s4d_inv", "lru", "s4d_lin"])
def test_the_plain_least_squares_agrees_where_it_is_well_conditioned(name):
    T, kernel = 20.0, kernels.airy(shift=6.0)
    found = spectrum(name, 4, horizon=T, seed=2)
    fit = best_readout(kernel, found, T)
    t = np.linspace(0, T, 40_001)
    modes = np.exp(np.outer(t, found.eigenvalues))
    basis = np.concatenate([modes.real, modes.imag], 1)
    root = np.sqrt(np.where((t == 0) | (t == T), 0.5, 1.0))[:, None]  # trapezoids
    y = root[:, 0] * kernel.values(t)[:, 0]
    residual = y - root * basis @ np.linalg.lstsq(root * basis, y, rcond=None)[0]
    assert fit.error == pytest.approx(np.linalg.norm(residual) / np.linalg.norm(y), rel=1e-5)
    l1 = np.abs(root[:, 0] * residual).sum() / np.abs(root[:, 0] * y).sum()
    assert fit.error_l1 == pytest.approx(l1, rel=1e-2)
    assert fit.attained == pytest.approx(fit.error, rel=1e-6)


def test_a_full_matrix_and_its_modes_span_the_same_and_the_full_one_needs_small_readouts():
    full, modes = (best_readout(POWER, spectrum(name, 8, horizon=50.0), 50.0) for name in ("hippo_legs", "s4d_real"))
    assert full.error == pytest.approx(modes.error, rel=1e-7)
    assert modes.size > 100 * full.size


@pytest.mark.parametrize(
    ("cls", "recurrence", "name"), [(ContinuousRNN, "dense", "hippo_legs"), (StateSpaceModel, "complex", "s4d_inv")]
)
def test_a_model_is_judged_by_its_own_states(cls, recurrence, name):
    model = cls(1, 6, 1, "linear", recurrence, "direct" if recurrence == "dense" else "exp", dtype=F64)
    initialize(model, name, horizon=30.0)
    fit, expected = best_readout(POWER, model, 30.0), best_readout(POWER, spectrum(name, 6, horizon=30.0), 30.0)
    assert fit.error == pytest.approx(expected.error, rel=1e-9)


def test_modes_far_faster_than_the_horizon_are_resolved():
    """A mode that is over before the first of twenty octaves: the kernel has the same."""
    kernel = kernels.from_callable(lambda t: np.exp(-1e9 * t) + np.exp(-t), breakpoints=[1e-9])
    fit = best_readout(kernel, [-1e9, -1.0], 100.0)
    assert fit.error < 1e-12
    assert best_readout(kernel, [-1e9, -2.0], 100.0).error == pytest.approx(1 / 3, rel=1e-6)  # |1 - 2| / |1 + 2|


def test_equal_modes_count_once_and_one_among_them_is_exact():
    fit = best_readout(kernels.exponential(rate=0.5), [-0.5, -0.5, -0.5, -2.0], 10.0)
    assert fit.modes == 2
    assert fit.error < 1e-13
    assert fit.size == pytest.approx(1.0)
    assert len(_different(np.array([-1.0, -1.0 - 1e-17, -1.0 + 1e-9], dtype=complex), 1.0)) == 2


def test_modes_that_grow_or_outlive_the_horizon_are_modes_too():
    T = 10.0
    t = np.linspace(0, T, 20_001)
    for rates in ([0.3, -0.2], [-1e-4, -2e-4, 0.0]):
        basis = np.exp(np.outer(t, rates))
        y = POWER.values(t)[:, 0]
        residual = y - basis @ np.linalg.lstsq(basis, y, rcond=None)[0]
        assert best_readout(POWER, rates, T).error == pytest.approx(np.linalg.norm(residual) / np.linalg.norm(y), rel=1e-2)


def test_modes_that_nearly_agree_span_what_their_derivatives_do():
    """Four modes within a part in 1e9: e^-t, t e^-t, t^2 e^-t, t^3 e^-t, which plain least squares cannot tell apart."""
    t = np.linspace(0, 10, 20_001)
    basis, y = np.stack([t**k * np.exp(-t) for k in range(4)], -1), POWER.values(t)[:, 0]
    residual = y - basis @ np.linalg.lstsq(basis, y, rcond=None)[0]
    fit = best_readout(POWER, -1.0 - 1e-9 * np.arange(4), 10.0)
    assert fit.error == pytest.approx(np.linalg.norm(residual) / np.linalg.norm(y), rel=1e-2)
    assert fit.attained > 2 * fit.error


def test_modes_beyond_double_precision_leave_a_bound_and_no_error():
    fit = best_readout(POWER, spectrum("geometric", 48, horizon=10.0), 10.0)
    assert math.isnan(fit.error)
    assert math.isnan(fit.error_l1)
    assert fit.uncertainty == math.inf
    assert 0 < fit.attained < 1e-3


def test_what_the_nodes_miss_of_a_kernel_is_part_of_the_uncertainty():
    smooth, rough = (
        best_readout(kernel, [-1.0, -0.1], 100.0) for kernel in (POWER, kernels.from_callable(lambda t: (t < 7.7) * 1.0))
    )
    assert smooth.uncertainty < 1e-10
    assert rough.uncertainty > 1e-3
    declared = best_readout(kernels.from_callable(lambda t: (t < 7.7) * 1.0, breakpoints=[7.7]), [-1.0, -0.1], 100.0)
    assert declared.uncertainty < 1e-10
    assert abs(rough.error - declared.error) <= rough.uncertainty


def test_more_modes_never_do_worse():
    errors = [best_readout(POWER, -np.geomspace(0.01, 1, 31)[:: 30 // k], 100.0).error for k in (1, 2, 6, 10, 30)]
    assert errors == sorted(errors, reverse=True)


def test_a_result_is_json_and_back():
    fit = best_readout(POWER, [-1.0], 10.0)
    assert ReadoutFit.from_dict(fit.to_dict()) == fit
    assert "error" in repr(fit)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: best_readout(POWER, [-1.0], 0.0), "horizon"),
        (lambda: best_readout(POWER, [-1.0], math.inf), "horizon"),
        (lambda: best_readout(POWER, [-1.0], 1.0, weight=-1), "weight"),
        (lambda: best_readout(POWER, [], 1.0), "finite numbers"),
        (lambda: best_readout("polynomial", [-1.0], 1.0), "kernel"),
        (lambda: best_readout(kernels.stack([POWER, POWER]), [-1.0], 1.0), "scalar"),
        (lambda: best_readout(kernels.shift(), [-1.0], 5.0), "is 0"),
        (lambda: best_readout(kernels.from_callable(lambda t: np.exp(-((t - 500) ** 2) * 1e4)), [-1.0], 1000.0), "is 0"),
        (lambda: best_readout(POWER, [100.0], 100.0), "grow"),
        (lambda: best_readout(POWER, of_eigenvalues([-1 + 1e6j, -1 - 1e6j]), 100.0), "turn"),
        (lambda: best_readout(POWER, StateSpaceModel(1, 4, 1, "tanh"), 1.0), "tanh"),
        (lambda: best_readout(POWER, StateSpaceModel(2, 4, 1, "linear"), 1.0), "2 input"),
        (lambda: best_readout(POWER, Spectrum("x", np.tril(-np.ones((3, 3))), None, -np.ones(3) + 0j), 1.0), "input"),
    ],
)
def test_bad_input_is_said_in_a_line(call, said):
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
