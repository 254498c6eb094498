"""Laws of decay named from samples with and without noise, from rounded tails, and from curves that no law describes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.decay import fit_decay
from analysis.memory import memory_function
from targets import ConvolutionalFunctional, kernels

T = np.linspace(0, 100, 1001)
# name: M(t), its law, and the rate (exponential) or exponent (power, stretched)
LAWS = {
    "e^-t": (lambda t: np.exp(-t), "exponential", 1.0),
    "0.9^t": (lambda t: 0.9**t, "exponential", -math.log(0.9)),
    "(1+t)^-1.1": (lambda t: (1 + t) ** -1.1, "power", 1.1),
    "(1+0.1t)^-1.1": (lambda t: (1 + 0.1 * t) ** -1.1, "power", 1.1),
    "(1+t)^-1.5": (lambda t: (1 + t) ** -1.5, "power", 1.5),
    "e^-sqrt t": (lambda t: np.exp(-np.sqrt(t)), "stretched", 0.5),
    "sine": (lambda t: np.abs(np.sin(t)), "none", None),
    "damped cosine": (lambda t: np.exp(-0.1 * t) * np.abs(np.cos(2 * t)), "exponential", 0.1),
    "slowly damped cosine": (lambda t: np.exp(-0.05 * t) * np.abs(np.cos(0.7 * t + 0.3)), "exponential", 0.05),
}
SEEDS = 30


def _noisy(values, noise, seed):
    """Multiplicative noise; a memory function is a modulus."""
    return values * np.abs(1 + noise * np.random.default_rng(seed).standard_normal(len(values)))


def _headline(fit):
    return fit.rate if fit.law == "exponential" else fit.exponent


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("name", LAWS)
def test_the_law_is_named_and_its_number_found_within_five_percent(name, noise):
    f, law, value = LAWS[name]
    for seed in range(SEEDS if noise else 1):
        fit = fit_decay((T, _noisy(f(T), noise, seed)))
        assert fit.law == law, (seed, fit.describe())
        if value is not None:
            assert _headline(fit) == pytest.approx(value, rel=0.05), seed


@pytest.mark.parametrize("name", ["e^-t", "0.9^t", "(1+t)^-1.1", "(1+t)^-1.5", "e^-sqrt t", "sine", "damped cosine"])
def test_a_hundred_points_with_ten_percent_noise_are_enough(name):
    """All but (1 + 0.1 t)^-1.1: the Cramer-Rao bound on its exponent, with the scale unknown, is 4.6 % there (1.5 % on 1001)."""
    f, law, value = LAWS[name]
    t = T[::10]
    for seed in range(SEEDS):
        fit = fit_decay((t, _noisy(f(t), 0.1, seed)))
        assert fit.law == law, (seed, fit.describe())
        if value is not None:
            assert _headline(fit) == pytest.approx(value, rel=0.05), seed


@pytest.mark.parametrize("name", ["0.9^t", "(1+t)^-1.1", "(1+0.1t)^-1.1", "e^-sqrt t"])
def test_standard_errors_are_the_scatter_over_repetitions(name):
    f, _, value = LAWS[name]
    t = T[::2]
    fits = [fit_decay((t, _noisy(f(t), 0.05, seed))) for seed in range(40)]
    deviations = [(_headline(fit) - value) / fit.stderr for fit in fits]
    # the standard deviation of 40 normal numbers lies within these bounds 999 times in 1000
    assert 0.6 < np.std(deviations) < 1.45
    inside = [bool((fit.band(t)[0] <= f(t)).all() and (f(t) <= fit.band(t)[1]).all()) for fit in fits]
    assert np.mean(inside) > 0.5


@pytest.mark.parametrize("sign", ["one-sided", "two-sided"])
@pytest.mark.parametrize(("dtype", "level", "end"), [(np.float64, 1e-16, 37), (np.float32, 3e-8, 17)])
def test_a_tail_of_rounding_is_left_out(dtype, level, end, sign):
    rounding = level * np.random.default_rng(0).standard_normal(len(T))
    values = np.exp(-T) + np.abs(rounding) if sign == "one-sided" else np.abs(np.exp(-T) + rounding)
    fit = fit_decay((T, values.astype(dtype)))
    assert fit.law == "exponential"
    assert fit.rate == pytest.approx(1.0, rel=0.01)
    assert 0.8 * end < fit.window[1] < end + 1


def test_a_floor_that_is_given_is_kept_to():
    fit = fit_decay((T, np.exp(-T) + 1e-6), floor=1e-5)
    assert fit.rate == pytest.approx(1.0, rel=0.05)
    assert fit.window[1] < 11
    assert fit_decay((T, np.exp(-T) + 1e-6)).law != "exponential"  # 1e-6 is no rounding: a constant remains


def test_tiny_numbers_that_still_fall_are_no_floor():
    fit = fit_decay((T, np.exp(-T)))  # e^-100 = 4e-44
    assert fit.window == (0.0, 100.0)
    assert fit.rate == pytest.approx(1.0, rel=1e-9)


def test_a_transient_is_left_out_of_the_window():
    fit = fit_decay((T, np.exp(-T) + np.exp(-((T - 9) ** 2))))
    assert fit.law == "exponential"
    assert fit.rate == pytest.approx(1.0, rel=0.01)
    assert fit.window[0] > 9
    two = fit_decay((T, 0.9 * np.exp(-T) + 0.1 * np.exp(-0.1 * T)))
    assert two.rate == pytest.approx(0.1, rel=0.02)


def test_a_polynomial_before_an_exponential_is_no_other_law():
    k = np.arange(60.0)
    for power in (1, 2, 3):
        assert fit_decay((k, (1 + k) ** power * 0.5**k)).law == "exponential"


@pytest.mark.parametrize("exponent", [1.5, 2.0])
def test_a_compressed_exponential_is_one(exponent):
    t = np.linspace(0, 10, 201)
    fit = fit_decay((t, np.exp(-(t**exponent))))
    assert fit.law == "stretched"
    assert fit.exponent == pytest.approx(exponent, rel=1e-3)
    assert fit.rate == pytest.approx(1.0, rel=1e-3)


def test_a_shallow_ripple_is_fitted_by_its_crests():
    fit = fit_decay((T, np.exp(-0.1 * T) * (2 + np.cos(T))))
    assert fit.law == "exponential"
    assert fit.envelope
    assert fit.rate == pytest.approx(0.1, rel=1e-3)


def test_an_oscillating_power_law_is_a_power_law():
    fit = fit_decay((T, (1 + T) ** -1.1 * np.abs(np.cos(2 * T))))
    assert fit.law == "power"
    assert fit.envelope
    assert fit.exponent == pytest.approx(1.1, rel=0.05)


@pytest.mark.parametrize("values", [np.ones_like(T), np.exp(0.1 * T), 1 - np.exp(-T)], ids=["constant", "growing", "saturating"])
def test_what_does_not_fall_does_not_decay(values):
    fit = fit_decay((T, values))
    assert fit.law == "none"
    assert math.isnan(fit.stderr)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros_like(T), "no value"),
        (np.where((T > 9) & (T < 11), 1.0, 0.0), "abruptly"),
        (np.exp(-0.002 * T) * (1 + 0.1 * np.random.default_rng(0).standard_normal(len(T))), "fit alike"),
        (np.where(T < 0.5, 1.0, 0.0), "points lie above"),
    ],
    ids=["zero", "compact", "short window", "few points"],
)
def test_what_the_window_cannot_tell_is_undecided_with_the_reason(values, reason):
    fit = fit_decay((T, values))
    assert fit.law == "undecided"
    assert reason in fit.describe()
    assert fit.rate is None
    assert np.isnan(fit.predict(T)).all()


@settings(max_examples=30, deadline=None)
@given(rate=st.floats(0.02, 3.0), amplitude=st.floats(1e-6, 1e6), scale=st.floats(0.1, 10.0))
def test_units_of_time_and_memory_do_not_matter(rate, amplitude, scale):
    t = np.linspace(0, 20, 101)
    one, other = fit_decay((t, np.exp(-rate * t))), fit_decay((scale * t, amplitude * np.exp(-rate * t)))
    assert one.law == other.law == "exponential"
    assert other.rate * scale == pytest.approx(one.rate, rel=1e-6)
    assert other.amplitude == pytest.approx(amplitude, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(p=st.floats(0.3, 3.0), s=st.floats(0.3, 20.0))
def test_power_laws_without_noise_are_recovered_with_their_scale(p, s):
    fit = fit_decay((T, (1 + T / s) ** -p))
    assert fit.law == "power"
    assert fit.exponent == pytest.approx(p, rel=1e-4)
    assert fit.scale == pytest.approx(s, rel=1e-3)


def test_a_memory_function_brings_its_own_floor():
    times = torch.arange(150, dtype=torch.float64)
    M = memory_function(torch.nn.GRU(1, 16, dtype=torch.float64), times, amplitudes=[1.0])
    fit = fit_decay(M)
    assert fit.law == "exponential"
    last = int(np.searchsorted(times.numpy(), fit.window[1]))
    assert float(M.values[last]) >= float(M.floor)
    assert fit.window[1] < 140


def test_kernels_of_the_papers_get_their_declared_law():
    times = torch.linspace(0, 100, 501, dtype=torch.float64)
    for kernel in (kernels.exponential(), kernels.polynomial(1.1), kernels.polynomial(1.1, scale=10), kernels.sine()):
        fit = fit_decay(memory_function(ConvolutionalFunctional(kernel), times))
        assert fit.law == kernel.decay


def test_the_answer_is_data():
    fit = fit_decay((T, (1 + T) ** -1.5))
    values = json.loads(json.dumps(fit.as_dict()))
    assert values["law"] == "power"
    assert values["evidence"]["power"] == 0
    assert min(values["evidence"][law] for law in ("exponential", "stretched", "none")) > 10
    np.testing.assert_allclose(fit.predict(T), (1 + T) ** -1.5, rtol=1e-6)
    assert "power law, exponent 1.5" in fit.describe()


@pytest.mark.parametrize(
    ("t", "values", "message"),
    [
        ([0.0, 1.0], [1.0], "alike"),
        ([0.0, 0.0], [1.0, 1.0], "increase"),
        ([0.0, 1.0], [1.0, -1.0], "negative"),
        ([0.0, 1.0], [1.0, math.nan], "NaN"),
        ([], [], "alike"),
    ],
)
def test_bad_input_is_refused_with_the_reason(t, values, message):
    with pytest.raises(ValueError, match=message):
        fit_decay((t, values))
