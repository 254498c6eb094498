"""Hankel singular values against closed forms and independent routes."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag, eigvals, solve_continuous_lyapunov
from scipy.optimize import brentq

from analysis.hankel import HankelSpectrum, StateSpace, hankel_spectrum
from analysis.hankel.panels import UnresolvedKernel
from analysis.hankel.spectrum import Resolved
from analysis.linear.fits import ExponentialSum
from odernn import ContinuousRNN, DiscreteSSM, StateSpaceModel
from targets import ConvolutionalFunctional, NonlinearFunctional, kernels


def rho(f, name="rho", **options):
    return kernels.from_callable(f, name=name, **options)


# --- independent routes ---------------------------------------------------------------------------------------------------------


def laguerre_values(kernel, count, rate, nodes):
    """The operator in Laguerre functions l_n(t) = L_n(2 r t) e^{-rt}, orthogonal with norm 1 / sqrt(2 r): its matrix has the
    entries int rho(t) (l_n(t) - l_{n+1}(t)) dt, n = i + j, and nothing of it is in the package."""
    t, w = np.polynomial.legendre.leggauss(nodes)
    end = 60 / rate
    t, w = end * (t + 1) / 2, end * w / 2
    L = np.ones((2 * count + 1, t.size))
    L[1] = 1 - 2 * rate * t
    for n in range(1, 2 * count):
        L[n + 1] = ((2 * n + 1 - 2 * rate * t) * L[n] - n * L[n - 1]) / (n + 1)
    moments = (L * np.exp(-rate * t) * (w * kernel.values(t)[:, 0])).sum(-1)
    entries = moments[:-1] - moments[1:]
    H = np.array([[entries[i + j] for j in range(count)] for i in range(count)])
    return np.linalg.svd(H, compute_uv=False)


def gramian_values(W, U, c):
    """sqrt(eig(P Q)) by scipy's Lyapunov solver."""
    P = solve_continuous_lyapunov(W, -U @ U.T)
    Q = solve_continuous_lyapunov(W.T, -c.T @ c)
    return np.sort(np.sqrt(np.abs(eigvals(P @ Q))))[::-1]


def cauchy_values(amplitudes, rates):
    """Positive sums of exponentials: eigenvalues of a Cauchy matrix."""
    root = np.sqrt(np.outer(amplitudes, amplitudes))
    return np.linalg.eigvalsh(root / np.add.outer(rates, rates))[::-1]


# --- kernels --------------------------------------------------------------------------------------------------------------------


def test_one_exponential_has_one_half_and_nothing_else():
    spectrum = hankel_spectrum(kernels.exponential())
    assert spectrum.values.shape == (1,)
    assert spectrum.values[0] == pytest.approx(0.5, abs=1e-12)
    assert spectrum.below < 1e-13
    assert spectrum.floor(0) == pytest.approx(0.5, abs=1e-11)
    assert spectrum.floor(1) == spectrum.floor(7) == 0.0


@pytest.mark.parametrize("rates", [[1.0, 2.0, 3.0], [1e-3, 0.1, 5.0, 20.0], [0.9, 1.0, 1.1]])
def test_sums_of_exponentials_have_the_values_of_their_gramians(rates):
    rates, amplitudes = np.array(rates), np.linspace(0.5, 1.5, len(rates))
    target = ExponentialSum(rates, amplitudes)
    of_kernel, of_model = hankel_spectrum(rho(target)), hankel_spectrum(target)
    exact = cauchy_values(amplitudes, rates)
    assert of_model.values == pytest.approx(exact[: of_model.values.size], abs=1e-13 * exact[0])
    assert of_kernel.values == pytest.approx(exact[: of_kernel.values.size], abs=1e-10 * exact[0])
    assert of_kernel.values.size == of_model.values.size <= rates.size
    assert (np.abs(of_kernel.values - exact[: of_kernel.values.size]) <= of_kernel.errors).all()


@pytest.mark.parametrize("options", [{"breakpoints": (0.7,)}, {}], ids=["declared", "found"])
def test_a_box_has_odd_reciprocals(options):
    tau = 0.7
    spectrum = hankel_spectrum(rho(lambda t: 1.0 * (t < tau), **options))
    exact = 2 * tau / ((2 * np.arange(spectrum.values.size) + 1) * math.pi)
    assert spectrum.values.size > 50
    assert (np.abs(spectrum.values - exact) <= spectrum.errors).all()
    assert spectrum.values[:20] == pytest.approx(exact[:20], rel=1e-9)
    # the sum of them all is infinite
    assert math.isnan(spectrum.ceiling(3))
    assert math.isnan(spectrum.effective_width())


@pytest.mark.parametrize(
    "kernel",
    [
        rho(lambda t: t * np.exp(-t)),
        rho(lambda t: np.exp(-(t**2))),
        rho(lambda t: np.exp(-0.5 * t) * np.cos(3 * t) + 0.2 * np.exp(-2 * t)),
        rho(lambda t: np.exp(-2 * t) / (1 + t)),
        kernels.airy(2.0),
    ],
    ids=["t e^-t", "gauss", "oscillating", "tempered", "airy"],
)
def test_smooth_kernels_have_the_values_of_laguerre_functions(kernel):
    spectrum = hankel_spectrum(kernel)
    other = laguerre_values(kernel, 60, 1.5, 600)
    close = min(spectrum.values.size, 5)
    assert spectrum.values[:close] == pytest.approx(other[:close], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("exponent", [1.3, 2.0, 3.5])
def test_powers_have_the_values_of_a_sinc_rule(exponent):
    """The trapezoidal rule in log t, which is exact to rounding for functions that are analytic in a sector."""
    u = np.arange(-40.0, 70.0 / min(exponent - 1, 1.0), 0.25)
    t = np.exp(u)
    root = np.sqrt(0.25 * t)
    with np.errstate(under="ignore"):
        other = np.linalg.eigvalsh(root[:, None] * (1 + np.add.outer(t, t)) ** -exponent * root)[::-1]
    spectrum = hankel_spectrum(kernels.polynomial(exponent))
    n = spectrum.values.size
    assert n > 15
    assert spectrum.values == pytest.approx(other[:n], rel=2e-3, abs=1e-13)
    assert spectrum.values[:8] == pytest.approx(other[:8], rel=1e-8)


def test_the_range_of_a_large_matrix_holds_all_its_values():
    operator = Resolved.build(kernels.polynomial(1.5), math.inf).operator()
    assert len(operator.matrix) > 800
    plain = np.sort(np.abs(np.linalg.eigvalsh(operator.matrix)))[::-1]
    values = operator.singular_values()
    assert values.size < plain.size / 2
    assert values == pytest.approx(plain[: values.size], abs=1e-13)
    assert np.sort(np.abs(operator.eigenpairs()[0]))[::-1] == pytest.approx(values, abs=1e-13)


@pytest.mark.parametrize(("delay", "rate"), [(5.0, 1.0), (0.3, 2.0)])
def test_a_delayed_exponential_has_its_closed_form(delay, rate):
    """e^{-a(t-L)} for t > L: sigma_n = cos(p_n) / a with a L tan(p_n) + 3 p_n = n pi, 0 < p_n < pi / 2,
    since v'' = a^2 v - v / sigma^2 on [0, L] with v(L) = 2 a g v(0), v'(0) = a v(0), for the eigenvalues g = +-sigma."""
    spectrum = hankel_spectrum(rho(lambda t: np.where(t > delay, np.exp(-rate * np.maximum(t - delay, 0)), 0.0)))
    angles = [
        brentq(lambda p, n=n: rate * delay * math.tan(p) + 3 * p - n * math.pi, 0, math.pi / 2 * (1 - 1e-12), xtol=1e-15)
        for n in range(1, spectrum.values.size + 1)
    ]
    exact = np.cos(angles) / rate
    assert spectrum.values.size > 10
    assert (np.abs(spectrum.values - exact) <= spectrum.errors).all()
    assert spectrum.values[:6] == pytest.approx(exact[:6], rel=1e-6)


@pytest.mark.parametrize(
    "modes",
    [
        [(0.2, 5.0)],
        [(1.0, 50.0)],
        [(0.1, 1.0), (0.5, 3.0), (0.2, 2.0)],
        pytest.param([(0.05, 7.0)], marks=pytest.mark.slow),
    ],
)
def test_damped_oscillations_have_the_values_of_their_gramians(modes):
    W = block_diag(*([[-a, -b], [b, -a]] for a, b in modes))
    U, c = np.tile([[1.0], [0.0]], (len(modes), 1)), np.tile([[1.0, 0.0]], (1, len(modes)))
    spectrum = hankel_spectrum(rho(lambda t: sum(np.exp(-a * t) * np.cos(b * t) for a, b in modes)))
    assert spectrum.values.size == 2 * len(modes)
    assert spectrum.values == pytest.approx(gramian_values(W, U, c), abs=1e-9 * spectrum.values[0])
    assert spectrum.floor(2 * len(modes)) == 0.0


def test_all_singular_values_of_a_delayed_window_obey_the_bound_by_its_size():
    """A pure delay of 9 and a window of 2: almost all are 2 until the delay is used up, and their squares add up to
    int t rho^2."""
    spectrum = hankel_spectrum(kernels.shift())
    assert (spectrum.values <= 2).all()
    assert float((spectrum.values**2).sum()) == pytest.approx((11**2 - 9**2) / 2, rel=1e-2)


@pytest.mark.parametrize(("horizon", "squares"), [(math.inf, 20.0), (100.0, 20.0), (20.0, 19.0)])
def test_what_polynomials_leave_out_at_jumps_is_known(horizon, squares):
    """int min(t, T - t) over 9 < t < 11 is the sum of the squares, whatever the panels are; a jump not cut out is noticed."""
    panels = Resolved.build(kernels.shift(), horizon)
    for nodes in (8, 16):
        operator = panels.operator(nodes)
        found, lost = (operator.matrix**2).sum(), (operator.lost**2).sum()
        assert lost > 1e-3
        assert found + lost == pytest.approx(squares, rel=1e-12)
    with pytest.raises(UnresolvedKernel, match="squares of its singular values"):
        replace(panels, breaks=()).operator()


def test_values_of_a_projection_are_below_the_true_ones():
    """So a floor by a coarse rule is a floor: each value rises with the panels, the early ones by no more than their errors."""
    panels = Resolved.build(kernels.shift(), 100.0)
    coarse, fine = (panels.operator(parts=parts).singular_values() for parts in (1, 3))
    assert (coarse <= fine[: coarse.size] + 1e-12).all()
    spectrum = hankel_spectrum(kernels.shift(), 100.0)
    n = spectrum.values.size
    assert (fine[:n] - spectrum.values <= spectrum.errors).all()


def test_half_the_integral_is_the_sum_of_a_completely_monotone_kernel():
    spectrum = hankel_spectrum(kernels.polynomial(2.5))
    assert spectrum.ceiling(0) == pytest.approx(2 / 3 * 1.0, rel=1e-8)


@pytest.mark.parametrize("exponent", [1.5, 2.0])
def test_powers_approach_the_root_exponential_law_slowly(exponent):
    spectrum = hankel_spectrum(kernels.polynomial(exponent))
    m = np.arange(1, 33)
    ratio = -np.log(spectrum.values[:32]) / (math.pi * np.sqrt(2 * (exponent - 1) * m))
    assert (np.diff(ratio) > 0).all()
    assert 0.75 < ratio[-1] < 0.9
    assert ratio[0] < 0.5


def test_a_finite_horizon_has_smaller_values_than_a_longer_one():
    short, long, whole = (hankel_spectrum(kernels.polynomial(1.5), T) for T in (10.0, 1000.0, math.inf))
    for less, more in ((short, long), (long, whole)):
        n = min(less.values.size, more.values.size)
        assert (less.values[:n] <= more.values[:n] + more.errors[:n]).all()
    assert math.isnan(short.ceiling(1))


@pytest.mark.parametrize(("frequency", "horizon"), [(1.0, 50.0), (7.0, 100.0)])
def test_a_sine_on_a_horizon_has_rank_two(frequency, horizon):
    """sin w(t+s) = sin wt cos ws + cos wt sin ws on [0, X]: +- the roots of a product of two 2 x 2 matrices. At late times the
    rounding of wt is no kink."""
    X, w = horizon / 2, frequency
    ss, cc, sc = X / 2 - math.sin(2 * w * X) / (4 * w), X / 2 + math.sin(2 * w * X) / (4 * w), math.sin(w * X) ** 2 / (2 * w)
    exact = np.sort(np.abs(np.linalg.eigvals(np.array([[sc, cc], [ss, sc]]))))[::-1]
    spectrum = hankel_spectrum(kernels.sine(frequency), horizon)
    assert spectrum.values == pytest.approx(exact, rel=1e-10)
    assert (np.abs(spectrum.values - exact) <= spectrum.errors).all()


def test_a_vector_kernel_has_the_roots_of_the_sum_of_squares():
    spectrum = hankel_spectrum(kernels.stack([kernels.exponential(), kernels.exponential(2.0)]))
    W, U, c = np.diag([-1.0, -2.0]), np.eye(2), np.ones((1, 2))
    assert spectrum.values == pytest.approx(gramian_values(W, U, c), rel=1e-9)
    assert hankel_spectrum(kernels.stack([kernels.exponential()] * 4)).values == pytest.approx([1.0], rel=1e-10)


@pytest.mark.parametrize(
    ("kernel", "horizon", "part"),
    [
        (kernels.sine(), math.inf, "does not converge"),
        (kernels.polynomial(1.0), math.inf, "does not converge"),
        (kernels.polynomial(1.01), math.inf, "decays too slowly"),
        (rho(np.zeros_like), math.inf, "declare where it is not"),
        (rho(lambda t: (t < 1) / t), math.inf, "."),
        (rho(lambda t: np.sin(1e6 * t)), 10.0, "too fine"),
        (kernels.exponential(), 0.0, "horizon is 0"),
        (kernels.exponential(), math.nan, "horizon is nan"),
        (NonlinearFunctional(ConvolutionalFunctional(kernels.exponential()), "tanh"), math.inf, "only linear ones"),
        (7, math.inf, "system is a int"),
        (kernels.Kernel, math.inf, "system is the class"),
    ],
)
def test_what_has_no_values_is_refused(kernel, horizon, part):
    with pytest.raises(ValueError, match=part):
        hankel_spectrum(kernel, horizon)


# --- models ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recurrence", "parameterization"),
    [("dense", "direct"), ("symmetric", "softplus"), ("diagonal", "exp"), ("complex", "softplus"), ("lru", "exp")],
)
@pytest.mark.parametrize("kind", [ContinuousRNN, StateSpaceModel])
def test_models_have_the_values_of_their_gramians(kind, recurrence, parameterization):
    model = kind(2, 4, 3, "linear", recurrence, parameterization, seed=3, dtype=torch.float64)
    layer = model.field().layers[0]
    W, U, c = (part.detach().numpy() for part in (layer.W.to_dense(), layer.U, model.c))
    spectrum = hankel_spectrum(model)
    assert spectrum.states == 4
    assert spectrum.values == pytest.approx(gramian_values(W, U, c)[: spectrum.values.size], abs=1e-7 * spectrum.values[0])


def test_a_stack_is_one_system():
    model = ContinuousRNN(1, 2, 1, "linear", "diagonal", "softplus", num_layers=2, seed=0, dtype=torch.float64)
    first, second = model.field().layers
    (W, U), (V, B) = ((layer.W.to_dense().detach().numpy(), layer.U.detach().numpy()) for layer in (first, second))
    whole = np.block([[W, np.zeros((2, 2))], [B, V]])
    start, end = np.concatenate([U, np.zeros((2, 1))]), np.concatenate([np.zeros((1, 2)), model.c.detach().numpy()], 1)
    rates, V0 = np.linalg.eig(whole)
    of_kernel = hankel_spectrum(rho(lambda t: ((end @ V0) * np.exp(np.outer(t, rates)) @ np.linalg.solve(V0, start))[:, 0].real))
    of_model = hankel_spectrum(model)
    n = min(of_kernel.values.size, of_model.values.size)
    assert n >= 3
    assert of_model.values[:n] == pytest.approx(of_kernel.values[:n], rel=1e-7)


def test_a_map_has_those_of_its_hankel_matrix():
    model = DiscreteSSM(1, 3, 1, "linear", "diagonal", "direct", seed=1, dtype=torch.float64)
    model.set_matrix(torch.diag(torch.tensor([0.9, 0.5, -0.3], dtype=torch.float64)))
    W = np.diag([0.9, 0.5, -0.3])
    U, c = model.layer_weights[0].U.detach().numpy(), model.c.detach().numpy()
    impulse = [(c @ np.linalg.matrix_power(W, k) @ U).item() for k in range(800)]
    H = np.array([[impulse[i + j] for j in range(400)] for i in range(400)])
    assert hankel_spectrum(model).values == pytest.approx(np.linalg.svd(H, compute_uv=False)[:3], rel=1e-9)


def test_one_mode_is_half_its_gain():
    spectrum = hankel_spectrum(StateSpace([[-0.25]], [[3.0]], [[-2.0]]))
    assert spectrum.values == pytest.approx([6 / 0.5], rel=1e-12)


def test_a_model_without_a_response_has_no_values():
    spectrum = hankel_spectrum(StateSpace([[-1.0]], [[0.0]], [[1.0]]))
    assert spectrum.values.size == 0
    assert spectrum.floor(0) == spectrum.ceiling(0) == spectrum.effective_width() == 0.0


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_values_scale_with_the_kernel_and_with_time(scale):
    large = hankel_spectrum(rho(lambda t: scale * t * np.exp(-t)))
    assert large.values / scale == pytest.approx([0.5 * 2**-0.5 + 0.25, 0.5 * 2**-0.5 - 0.25], rel=1e-8)
    slow = hankel_spectrum(rho(lambda t: 1e-9 * t * np.exp(-1e-9 * t)))
    assert slow.values / 1e9 == pytest.approx(large.values / scale, rel=1e-8)


@pytest.mark.parametrize(("rate", "gain"), [(1e-200, 1.0), (1e200, 1.0), (1.0, 1e-200), (1.0, 1e200)])
def test_rates_and_weights_of_any_size_have_values(rate, gain):
    found = hankel_spectrum(StateSpace(rate * np.diag([-1.0, -2.0]), gain * np.ones((2, 1)), np.ones((1, 2)))).values
    assert found * rate / gain == pytest.approx(cauchy_values(np.ones(2), np.array([1.0, 2.0])), rel=1e-9)


def test_states_that_are_not_used_do_not_count():
    W, U, c = np.diag([-1.0, -2.0, -3.0]), np.array([[1.0], [1.0], [0.0]]), np.ones((1, 3))
    spectrum = hankel_spectrum(StateSpace(W, U, c))
    assert spectrum.values.size == 2
    assert spectrum.ceiling(2) < 1e-13
    assert spectrum.effective_width("rank", 1e-10) == 2


@pytest.mark.parametrize(
    ("model", "part"),
    [
        (lambda: ContinuousRNN(1, 2, 1, "tanh", seed=0), "'tanh', expected 'linear'"),
        (lambda: ContinuousRNN(1, 2, 1, "linear", ensemble=(3,), seed=0), "ensemble"),
        (lambda: StateSpace([[0.1]], [[1.0]], [[1.0]]), "unstable"),
        (lambda: StateSpace([[1.5]], [[1.0]], [[1.0]], discrete=True), "unstable"),
        (lambda: StateSpace([[-1.0]], [[1.0], [2.0]], [[1.0]]), "shapes"),
        (lambda: StateSpace([-1.0], [[1.0]], [[1.0]]), "shape"),
        (lambda: StateSpace([[math.nan]], [[1.0]], [[1.0]]), "NaN"),
    ],
)
def test_models_without_gramians_are_refused(model, part):
    with pytest.raises(ValueError, match=part):
        hankel_spectrum(model())


def test_a_model_takes_no_horizon():
    with pytest.raises(ValueError, match="expected inf for a model"):
        hankel_spectrum(StateSpace([[-1.0]], [[1.0]], [[1.0]]), 10.0)


# --- the result -----------------------------------------------------------------------------------------------------------------


def test_effective_width_of_equal_values_is_their_number():
    spectrum = HankelSpectrum(np.ones(5), np.zeros(5), 0.0, math.inf, 5, "five")
    assert spectrum.effective_width() == pytest.approx(5)
    assert spectrum.effective_width("entropy") == pytest.approx(5)
    assert spectrum.effective_width("rank") == 5
    assert spectrum.ceiling(2) == pytest.approx(6)
    with pytest.raises(ValueError, match="unknown kind"):
        spectrum.effective_width("other")


def test_the_states_for_an_error_lie_between_floor_and_ceiling():
    spectrum = hankel_spectrum(kernels.polynomial(2.0))
    for error in (0.1, 1e-3, 1e-8):
        necessary, sufficient = spectrum.states_for(error)
        assert spectrum.floor(necessary) <= error < spectrum.floor(necessary - 1)
        assert spectrum.ceiling(sufficient) <= error < spectrum.ceiling(sufficient - 1)
        assert necessary <= sufficient
    assert spectrum.states_for(10.0) == (0, 0)
    assert spectrum.states_for(1e-300) == (spectrum.values.size, None)
    assert hankel_spectrum(kernels.shift(), 20.0).states_for(0.5)[1] is None
    with pytest.raises(ValueError, match="error is 0"):
        spectrum.states_for(0.0)


def test_a_spectrum_is_the_same_after_json():
    spectrum = hankel_spectrum(ConvolutionalFunctional(kernels.exponential(rate=2.0)))
    assert HankelSpectrum.from_dict(json.loads(json.dumps(spectrum.to_dict()))) == spectrum
