from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.special import eval_legendre

from odernn.spectra import SPECTRA, Spectrum, of_eigenvalues, spectrum

PUBLISHED = ("s4d_lin", "s4d_inv", "s4d_legs", "s4d_real", "hippo_legs", "hippo_legs_normal")


def moments(found, count=6):
    """B^T A^k B: two systems of one impulse response under a normal change of basis have them in common."""
    return np.array([found.input @ np.linalg.matrix_power(found.matrix, k) @ found.input for k in range(count)])


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 4.0])
def test_the_states_of_hippo_legs_are_legendre_polynomials_in_time_on_a_logarithmic_scale(t):
    found, n = spectrum("hippo_legs", 8), np.arange(8)
    expected = np.sqrt(2 * n + 1) * eval_legendre(n, 2 * math.exp(-t) - 1) * math.exp(-t)
    np.testing.assert_allclose(expm(found.matrix * t) @ found.input, expected, atol=1e-12)


def test_hippo_legs_has_the_rates_one_to_m():
    found = spectrum("hippo_legs", 6)
    np.testing.assert_allclose(np.sort(-np.linalg.eigvals(found.matrix).real), np.arange(1, 7), rtol=1e-9)
    np.testing.assert_array_equal(found.eigenvalues, spectrum("s4d_real", 6).eigenvalues)


@pytest.mark.parametrize("m", [1, 2, 7, 32])
def test_the_normal_part_of_hippo_legs_is_skew_but_for_one_half(m):
    A = spectrum("hippo_legs_normal", m).matrix
    np.testing.assert_allclose(A + A.T, -np.eye(m), atol=1e-12)


def test_s4d_legs_is_the_normal_part_in_its_own_basis():
    pairs, full = spectrum("s4d_legs", 12), spectrum("hippo_legs_normal", 12)
    np.testing.assert_allclose(np.sort_complex(pairs.eigenvalues.round(9)), np.sort_complex(full.eigenvalues.round(9)), rtol=1e-8)
    # The pairs hold one half of the modes; the other half answers alike.
    np.testing.assert_allclose(2 * moments(pairs), moments(full), rtol=1e-9)


def test_s4d_inv_is_near_s4d_legs_for_the_largest_frequencies_alone():
    legs, inv = (np.sort(spectrum(name, 64).eigenvalues.imag)[::-1][:32] for name in ("s4d_legs", "s4d_inv"))
    ratio = legs / inv
    assert ratio[0] == pytest.approx(1, abs=0.02)
    assert ratio[16] == pytest.approx(1.285, abs=0.01)  # at every m
    assert ratio[-1] < 0.85


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_spectra_are_scaled_to_the_horizon_with_their_input(name):
    unit, found = spectrum(name, 8), spectrum(name, 8, horizon=50.0)
    assert -found.eigenvalues.real.max() == pytest.approx(1 / 50)
    factor = found.eigenvalues[0] / unit.eigenvalues[0]
    np.testing.assert_allclose(found.matrix, factor.real * unit.matrix)
    np.testing.assert_allclose(found.input, factor.real * unit.input)


@pytest.mark.parametrize("name", sorted(SPECTRA))
@pytest.mark.parametrize("m", [2, 8])
def test_eigenvalues_are_those_of_the_matrix_and_decay(name, m):
    found = spectrum(name, m, horizon=20.0)
    assert found.matrix.shape == (m, m)
    assert found.eigenvalues.shape == (m,)
    assert found.eigenvalues.real.max() < 0
    np.testing.assert_allclose(
        np.sort_complex(np.linalg.eigvals(found.matrix).round(7)), np.sort_complex(found.eigenvalues.round(7)), atol=1e-6
    )
    assert name.partition("_")[0] in repr(found) or name in repr(found)


def test_spread_rates_end_at_one_over_the_horizon_and_the_fastest():
    for name in ("geometric", "linear"):
        rates = np.sort(-spectrum(name, 5, horizon=100.0, fastest=2.0).eigenvalues.real)
        assert rates[[0, -1]] == pytest.approx([0.01, 2.0])
        steps = np.diff(np.log(rates) if name == "geometric" else rates)
        np.testing.assert_allclose(steps, steps[0])
    drawn = -spectrum("log_uniform", 500, horizon=100.0).eigenvalues.real
    assert 0.01 <= drawn.min() < 0.011
    assert 0.9 < drawn.max() <= 1.0
    assert np.log(drawn).mean() == pytest.approx(math.log(0.1), abs=0.2)


def test_the_ring_is_uniform_on_its_area_and_its_slowest_mode_goes_as_one_over_the_width():
    found = spectrum("lru", 4000, ring=(0.6, 0.9, 0.5), seed=3)
    modes = np.exp(found.eigenvalues[::2])
    assert 0.6 <= np.abs(modes).min() < np.abs(modes).max() <= 0.9
    assert (np.abs(modes) ** 2).mean() == pytest.approx((0.6**2 + 0.9**2) / 2, abs=0.01)
    assert 0 < np.angle(modes).min() < np.angle(modes).max() <= 0.5
    # -log |l| has the density 2 e^{-2x} on a whole disk: the smallest of m / 2 pairs is 1 / m on average.
    slowest = [-spectrum("lru", 64, seed=seed).eigenvalues.real.max() for seed in range(200)]
    assert np.mean(slowest) == pytest.approx(1 / 64, rel=0.25)
    assert np.abs(spectrum("lru", 64, step=0.1).eigenvalues.imag).max() <= math.pi / 0.1


def test_drawn_spectra_follow_their_seed():
    for name in ("log_uniform", "lru"):
        one, same, other = (spectrum(name, 8, horizon=10.0, seed=seed).eigenvalues for seed in (1, 1, 2))
        assert (one == same).all()
        assert (one != other).any()


def test_real_modes_are_held_twice_in_pairs():
    found = spectrum("s4d_real", 6, pairs=True)
    np.testing.assert_array_equal(found.eigenvalues.real, [-1, -1, -2, -2, -3, -3])
    np.testing.assert_array_equal(found.input, [1, 0, 1, 0, 1, 0])
    assert not found.is_full


@pytest.mark.parametrize("values", [[-1.0, -0.5, -2.0], torch.tensor([-1.0, -2.0]), np.array([-1 + 2j, -1 - 2j]), (-1, -2)])
def test_eigenvalues_of_ones_own_come_in_any_kind_of_list(values):
    found = of_eigenvalues(values)
    np.testing.assert_allclose(np.sort_complex(np.linalg.eigvals(found.matrix)), np.sort_complex(np.asarray(values)))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: spectrum("s4d", 4), "s4d_lin"),
        (lambda: spectrum("s4d_lin", 5), "even"),
        (lambda: spectrum("s4d_real", 5, pairs=True), "even"),
        (lambda: spectrum("s4d_lin", 0), "m is 0"),
        (lambda: spectrum("geometric", 4), "give horizon=T"),
        (lambda: spectrum("linear", 4, horizon=0.5), "horizon is 0.5"),
        (lambda: spectrum("s4d_inv", 4, horizon=-1.0), "horizon"),
        (lambda: spectrum("lru", 4, ring=(0.9, 0.5, 1.0)), "r_max"),
        (lambda: spectrum("lru", 4, ring=(0.0, 1.5, 1.0)), "r_max <= 1"),
        (lambda: spectrum("lru", 4, step=0.0), "step"),
        (lambda: spectrum("lru", 4, seed=-1), "seed"),
        (lambda: of_eigenvalues([]), "finite numbers"),
        (lambda: of_eigenvalues([math.nan]), "finite numbers"),
        (lambda: of_eigenvalues([-1 + 1j, -1 + 1j]), "conjugate pairs"),
        (lambda: of_eigenvalues([-1 + 1j, -1.0, -1 - 1j]), "conjugate pairs"),
        (lambda: of_eigenvalues([-1.0, -2.0], input=[1.0]), "input has shape"),
        (lambda: spectrum("linear", 4, horizon=2.0).scaled(0.0), "factor"),
    ],
)
def test_bad_input_is_said_in_a_line(call, said):
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_full_matrix_knows_that_it_is_one():
    assert {name for name in SPECTRA if spectrum(name, 4, horizon=9.0).is_full} == {"hippo_legs", "hippo_legs_normal"}
    assert not Spectrum("one", -np.eye(1), None, np.array([-1 + 0j])).is_full
