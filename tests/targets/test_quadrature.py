from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from targets import KERNELS, QuadratureError, kernels
from targets.quadrature import moments


def cells(count: int, step: float) -> tuple[np.ndarray, np.ndarray]:
    edges = step * np.arange(count + 1)
    return edges[:-1], edges[1:]


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("step", [0.3, 2.0, 30.0])
def test_both_moments_agree_with_adaptive_quadrature_of_single_cells(name: str, step: float) -> None:
    kernel = kernels.get(name)
    left, right = cells(8, step)
    result = moments(kernel, left, right)
    for a, b, m0, m1 in zip(left, right, result.m0[:, 0], result.m1[:, 0], strict=True):
        marks = [time for time in kernel.breakpoints if a < time < b]
        edges = np.unique([*np.linspace(a, b, 4), *marks])
        for moment, weight in ((m0, lambda t: 1.0), (m1, lambda t, a=a, b=b: (t - a) / (b - a))):
            pieces = itertools.pairwise(edges)
            reference = sum(quad(lambda t, w=weight: kernel(t) * w(t), p, q, epsabs=1e-13, limit=200)[0] for p, q in pieces)
            assert moment == pytest.approx(reference, abs=1e-11)
    assert result.relative_error < 1e-11


@pytest.mark.parametrize(
    ("rho", "antiderivative", "at_zero"),
    [
        (lambda t: t**-0.5, lambda t: 2 * t**0.5, 0.0),
        (lambda t: t**-0.9, lambda t: 10 * t**0.1, 0.0),
        (lambda t: -np.log(t), lambda t: t - t * np.log(t), 0.0),
    ],
    ids=["t^-0.5", "t^-0.9", "-log t"],
)
def test_integrable_singularities_at_zero_are_integrated(rho, antiderivative, at_zero: float) -> None:
    left, right = cells(40, 0.25)
    result = moments(kernels.from_callable(rho), left, right)
    expected = np.diff([at_zero, *antiderivative(right)])
    np.testing.assert_allclose(result.m0[:, 0], expected, rtol=1e-10)


@pytest.mark.parametrize(
    "rho",
    [lambda t: 1 / t, lambda t: t**-1.5, lambda t: t**-0.999, lambda t: 1 / np.abs(t - 1.03)],
    ids=["1/t", "t^-1.5", "t^-0.999", "1/|t-1.03|"],
)
@pytest.mark.parametrize("step", [0.01, 0.1, 1.0])
def test_a_kernel_that_is_not_integrable_raises_and_soon(rho, step: float) -> None:
    evaluated = 0

    def counted(t: np.ndarray) -> np.ndarray:
        nonlocal evaluated
        evaluated += len(t)
        return rho(t)

    with pytest.raises(QuadratureError, match=r"kernel mine (cannot be integrated over|is inf at t = 1.03)"):
        moments(kernels.from_callable(counted, name="mine"), *cells(200, step))
    assert evaluated < 100_000  # 500 for each cell


def test_noise_is_refused_rather_than_averaged() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(QuadratureError, match="relative error estimate"):
        moments(kernels.from_callable(lambda t: generator.random(len(t))), *cells(10, 0.1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_inside_raise(bad: float) -> None:
    kernel = kernels.from_callable(lambda t: np.where(t > 2, bad, 1.0), name="holed")
    with pytest.raises(QuadratureError, match=r"kernel holed is (nan|inf) at t = 2"):
        moments(kernel, *cells(10, 0.5))


def test_jumps_and_kinks_that_were_not_declared_are_found() -> None:
    jump = moments(kernels.from_callable(lambda t: 1.0 * (t < np.pi)), *cells(100, 0.1))
    assert jump.m0.sum() == pytest.approx(np.pi, abs=1e-13)
    left, right = cells(20, np.pi / 20)
    kink = moments(kernels.from_callable(lambda t: np.abs(np.sin(3 * t))), left, right)
    assert kink.m0.sum() == pytest.approx(2.0, abs=1e-13)


@pytest.mark.parametrize("distance", [1e-3, 1e-5, 1e-8, -1e-3, -1e-5, -1e-8])
def test_a_jump_that_was_not_declared_is_found_close_to_the_end_of_a_cell(distance: float) -> None:
    # closer to the end than the outermost node of any rule
    jump = 1.0 + distance
    result = moments(kernels.from_callable(lambda t: np.exp(-t) * (t < jump)), *cells(8, 0.5))
    assert result.m0.sum() == pytest.approx(-np.expm1(-jump), abs=1e-12)


def test_a_declared_bump_is_not_stepped_over_by_a_long_cell() -> None:
    result = moments(kernels.two_part(), [0.0], [1000.0])
    assert result.m0[0, 0] == pytest.approx(1 + np.sqrt(np.pi), abs=1e-12)


def test_a_tail_below_the_smallest_number_costs_no_more_than_the_rest() -> None:
    result = moments(kernels.exponential(), *cells(2000, 1.0))
    assert result.m0.sum() == pytest.approx(1.0, abs=1e-14)
    assert result.evaluations < 2000 * 38 * 2  # both rules and the ends, once or twice


def test_a_smooth_kernel_on_many_cells_takes_one_pass() -> None:
    result = moments(kernels.polynomial(), *cells(100_000, 0.01))
    # two rules and the ends, t = 0 left out; and the first cell once more, on 51 panels towards 0
    assert result.evaluations == 100_000 * (21 + 15 + 2) - 1 + 51 * 21
    assert result.m0.sum() == pytest.approx(2 - 2 * 1001**-0.5, rel=1e-13)


def test_channels_of_a_vector_kernel_are_integrated_side_by_side() -> None:
    parts = [kernels.exponential(), kernels.shift(), kernels.sine()]
    left, right = cells(30, 0.7)
    together = moments(kernels.stack(parts), left, right)
    for channel, part in enumerate(parts):
        alone = moments(part, left, right)
        np.testing.assert_allclose(together.m0[:, channel], alone.m0[:, 0], atol=1e-13)
        np.testing.assert_allclose(together.m1[:, channel], alone.m1[:, 0], atol=1e-13)


def test_a_kernel_that_vanishes_on_the_range_has_no_error() -> None:
    result = moments(kernels.shift(), *cells(10, 0.5))
    assert (result.m0 == 0).all()
    assert result.relative_error == 0


@pytest.mark.parametrize(
    ("left", "right"),
    [([-1.0], [1.0]), ([1.0], [1.0]), ([0.0], [np.inf]), ([np.nan], [1.0]), ([0.0, 1.0], [1.0])],
)
def test_cells_that_are_none_are_refused(left, right) -> None:
    with pytest.raises(ValueError, match="expected"):
        moments(kernels.exponential(), left, right)


@pytest.mark.parametrize("step", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("rate", [1e3, 3e5, 3.5e5, 1e8, 1e12])
def test_a_kernel_far_faster_than_the_step_is_not_stepped_over(rate: float, step: float) -> None:
    result = moments(kernels.exponential(rate=rate), *cells(5, step))
    exact = -np.expm1(-rate * step) / rate
    np.testing.assert_allclose(result.m0[0, 0], exact, rtol=1e-10)
    first_moment = (1 - (1 + rate * step) * np.exp(-rate * step)) / (rate**2 * step)
    np.testing.assert_allclose(result.m1[0, 0], first_moment, rtol=1e-8, atol=1e-12 * exact)


def test_a_fast_part_beside_a_slow_one_is_seen() -> None:
    kernel = kernels.from_callable(lambda t: np.exp(-t) + 1e9 * np.exp(-1e9 * t))
    np.testing.assert_allclose(moments(kernel, *cells(10, 1.0)).m0.sum(), 2 - np.exp(-10), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")  # quad asks for more than rounding allows
@settings(deadline=None, max_examples=30)
@given(
    rate=st.floats(0.05, 20.0),
    frequency=st.floats(0.0, 10.0),
    power=st.floats(-0.5, 3.0),
    edges=st.lists(st.floats(0.0, 20.0), min_size=2, max_size=6, unique=True).map(sorted),
)
def test_moments_of_random_kernels_on_random_cells_agree_with_scipy(rate, frequency, power, edges) -> None:
    edges = np.array(edges)
    left, right = edges[:-1][np.diff(edges) > 1e-3], edges[1:][np.diff(edges) > 1e-3]
    assume(len(left))

    def rho(t: np.ndarray) -> np.ndarray:
        return np.exp(-rate * t) * np.cos(frequency * t) * t**power

    result = moments(kernels.from_callable(rho), left, right)
    for a, b, m0, m1 in zip(left, right, result.m0[:, 0], result.m1[:, 0], strict=True):
        # u^2 = t takes the singularity at 0 away
        def integral(weight, a=a, b=b) -> float:
            return quad(lambda u: 2 * u * rho(u**2) * weight(u**2), a**0.5, b**0.5, epsabs=1e-13, epsrel=1e-13, limit=500)[0]

        assert m0 == pytest.approx(integral(lambda t: 1.0), rel=1e-9, abs=1e-11)
        assert m1 == pytest.approx(integral(lambda t, a=a, b=b: (t - a) / (b - a)), rel=1e-9, abs=1e-11)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(center=st.floats(0.5, 9.5), width=st.floats(2e-3, 0.05), gaussian=st.booleans())
def test_narrow_bumps_at_undeclared_places_are_found(center: float, width: float, gaussian: bool) -> None:
    def bump(t: np.ndarray) -> np.ndarray:
        s = (t - center) / width
        return np.exp(-(s**2)) / (width * np.sqrt(np.pi)) if gaussian else (np.abs(s) < 0.5) / width

    result = moments(kernels.from_callable(bump), *cells(10, 1.0))
    np.testing.assert_allclose(result.m0.sum(), 1.0, rtol=1e-8)


@pytest.mark.parametrize("rate", [1e40, 1e300])
def test_zero_at_every_node_is_no_answer(rate: float) -> None:
    with pytest.raises(QuadratureError, match="is 0 at all"):
        moments(kernels.exponential(rate=rate), *cells(5, 1.0))


def test_a_bump_between_all_nodes_is_refused_and_right_once_it_is_declared() -> None:
    def bump(t: np.ndarray) -> np.ndarray:
        return (np.abs(t - np.pi) < 5e-7) / 1e-6

    with pytest.raises(QuadratureError, match="declare where it is not 0"):
        moments(kernels.from_callable(bump), *cells(10, 1.0))
    declared = kernels.from_callable(bump, breakpoints=(np.pi - 5e-7, np.pi + 5e-7))
    np.testing.assert_allclose(moments(declared, *cells(10, 1.0)).m0.sum(), 1.0, rtol=1e-8)


def test_zero_before_a_declared_window_is_an_answer() -> None:
    assert not moments(kernels.shift(9, 11), *cells(5, 1.0)).m0.any()
