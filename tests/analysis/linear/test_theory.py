from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import F64
from scipy.integrate import quad

from analysis.linear.fits import ExponentialSum, fit_kernel
from analysis.linear.theory import KernelL1, LogGrid, impulse_kernel, kernel_derivative_distance, kernel_distance
from odernn import ContinuousRNN, DiscreteRNN, StateSpaceModel
from odernn.ensembles import stack
from odernn.solvers import TorchDiffEq
from targets import ConvolutionalFunctional, NonlinearFunctional, kernels


def dense_twin(model):
    """The same W, U and c as a dense model."""
    field = model.field()
    layer = field.layers[0]
    twin = type(model)(model.input_size, model.hidden_size, model.output_size, "linear", "dense", bias=False, dtype=F64)
    twin.set_matrix(layer.W.to_dense().detach())
    with torch.no_grad():
        twin.layer_weights[0].U.copy_(layer.U)
        twin.c.copy_(field.c)
    return twin


@pytest.mark.parametrize("horizon", [1.0, 1000.0])
def test_the_grid_integrates_every_scale_of_a_finite_horizon(horizon):
    grid = LogGrid.build(horizon)
    t, w = grid.times.numpy(), grid.weights.numpy()
    assert (np.diff(t) > 0).all()
    assert w.sum() == pytest.approx(horizon)
    for rate in (0.01, 1.0, 100.0):
        assert w @ np.exp(-rate * t) == pytest.approx(-math.expm1(-rate * horizon) / rate, rel=1e-8)


def test_the_infinite_grid_reaches_far_enough_for_a_slow_power_law():
    assert KernelL1.build(kernels.polynomial(1.1), math.inf).scale == pytest.approx(10, rel=1e-7)


def test_panels_end_at_the_kernels_jumps():
    assert KernelL1.build(kernels.shift(9.0, 11.0), 1000.0).scale == pytest.approx(2, rel=1e-10)


@pytest.mark.parametrize(
    ("recurrence", "parameterization"), [("diagonal", "exp"), ("diagonal", "lru"), ("complex", "exp"), ("symmetric", "softplus")]
)
@pytest.mark.parametrize("cls", [ContinuousRNN, StateSpaceModel])
def test_the_kernel_is_the_impulse_response(cls, recurrence, parameterization):
    model = cls(2, 4, 3, "linear", recurrence, parameterization, bias=False, dtype=F64)
    grid = LogGrid.build(20.0)
    with torch.no_grad():
        rho = impulse_kernel(model.field(), grid).numpy()
        layer = model.field().layers[0]
        W, U, c = layer.W.to_dense(), layer.U, model.c
        for k in (0, 50, 200, -1):
            expected = c @ torch.linalg.matrix_exp(W * grid.times[k]) @ U
            np.testing.assert_allclose(rho[:, k], expected.flatten().numpy(), rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(impulse_kernel(dense_twin(model).field(), grid).numpy(), rho, rtol=1e-9, atol=1e-12)


def test_the_distance_is_that_of_scipys_quadrature():
    model = ExponentialSum(np.array([0.3, 1.0]), np.array([0.8, -0.5])).model()
    distance = kernel_distance(model, kernels.exponential(), 30.0)

    def integrand(t):
        return abs(0.8 * math.exp(-0.3 * t) - 1.5 * math.exp(-t))

    kink = math.log(1.5 / 0.8) / 0.7
    expected = quad(integrand, 0, kink, epsabs=1e-13)[0] + quad(integrand, kink, 30, epsabs=1e-13)[0]
    assert distance.value == pytest.approx(expected, abs=3 * distance.quadrature_error + 1e-10)
    assert distance.quadrature_error < 1e-4 * expected


def test_the_distance_of_derivatives_is_the_supremum_over_inputs():
    # e = e^-t - 0.5 e^-0.2t: |e(0)| = 0.5, then it falls to its minimum and rises again.
    model = ExponentialSum(np.array([0.2]), np.array([0.5])).model()
    found = kernel_derivative_distance(model, kernels.exponential(), 20.0)

    def e(t):
        return np.exp(-t) - 0.5 * np.exp(-0.2 * t)

    minimum = math.log(1 / (0.5 * 0.2)) / 0.8
    expected = 0.5 + (e(0.0) - e(minimum)) + (e(20.0) - e(minimum))
    assert found.value == pytest.approx(expected, abs=found.quadrature_error + 1e-6)
    assert found.quadrature_error < 1e-2 * expected
    # The input that attains it at T: the sign of e'(s) at s = T - t, and at the last moment that of e(0).
    s = np.linspace(0, 20, 200_001)
    x = np.sign(np.gradient(e(s), s))
    attained = abs(e(0.0)) + np.trapezoid(np.gradient(e(s), s) * x, s)
    assert found.value == pytest.approx(attained, rel=1e-3)


def test_the_distance_of_derivatives_counts_jumps_and_infinite_kernels():
    model = ExponentialSum(np.array([1.0]), np.array([0.0])).model()
    # 1 on 9 < t < 11: up and down again.
    assert kernel_derivative_distance(model, kernels.shift(), 20.0).value == pytest.approx(2)
    singular = kernels.from_callable(lambda t: t**-0.5 * np.exp(-t), name="singular")
    with np.errstate(divide="ignore"):
        assert kernel_derivative_distance(model, singular, 20.0).value == math.inf
    growing = ExponentialSum(np.array([-0.1]), np.array([1.0])).model()
    assert kernel_derivative_distance(growing, kernels.exponential()).value == math.inf
    assert math.isfinite(kernel_derivative_distance(growing, kernels.exponential(), 5.0).value)


@pytest.mark.parametrize("kernel", [kernels.exponential(), kernels.polynomial(1.1)])
def test_a_good_fit_is_good_in_the_derivative_too(kernel):
    found = [kernel_derivative_distance(fit_kernel(kernel, m, 100.0), kernel, 100.0).value for m in (2, 8)]
    assert found[1] < 0.5 * found[0] or found[1] < 1e-2
    # |d/dt H| = rho(0) + TV(rho) is at most 2 here.
    assert found[0] < 1


RATES = st.floats(0.01, 20.0)


@settings(max_examples=60, deadline=None)
@given(amplitude=st.floats(0.1, 10.0), rate=RATES, target_rate=RATES)
def test_the_distance_of_two_exponentials_is_the_closed_form(amplitude, rate, target_rate):
    def integral(t):
        return amplitude * -np.expm1(-rate * t) / rate + np.expm1(-target_rate * t) / target_rate

    # where a e^-rt crosses e^-st, if it does
    crossing = math.log(amplitude) / (rate - target_rate) if rate != target_rate else -1.0
    middle = integral(crossing) if crossing > 0 else 0.0
    expected = abs(middle) + abs(integral(np.inf) - middle)
    model = ExponentialSum(np.array([rate]), np.array([amplitude])).model()
    found = kernel_distance(model, kernels.exponential(rate=target_rate)).value
    # the kink at the crossing limits the quadrature
    assert found == pytest.approx(expected, abs=1e-4 * (amplitude / rate + 1 / target_rate))


@settings(max_examples=60, deadline=None)
@given(
    modes=st.lists(st.tuples(RATES, st.floats(-5.0, 5.0)), min_size=1, max_size=6),
    horizon=st.sampled_from([1.0, 30.0, 1000.0, math.inf]),
)
def test_the_grid_has_the_closed_form_of_the_squared_norm_of_every_exponential_sum(modes, horizon):
    # |rho|^2 = sum_jk a_j a_k (1 - e^-(r_j + r_k)T) / (r_j + r_k)
    rates, amplitudes = np.array(modes).T
    total = rates[:, None] + rates
    expected = amplitudes @ (-np.expm1(-total * horizon) / total) @ amplitudes
    grid = LogGrid.build(horizon)
    found = grid.weights.numpy() @ ExponentialSum(rates, amplitudes)(grid.times.numpy()) ** 2
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-10 * float(amplitudes @ amplitudes))


def test_no_input_errs_more_than_the_distance_and_some_input_nearly_as_much():
    # sup_x |H_t(x) - H_hat_t(x)| / |x|_inf is attained by the sign of the difference of the kernels.
    model = ExponentialSum(np.array([0.3, 1.0]), np.array([0.8, -0.5])).model()
    target = ConvolutionalFunctional(kernels.exponential())
    distance = kernel_distance(model, target, 30.0).value
    t = torch.linspace(0, 30, 1501, dtype=F64)
    difference = 0.8 * torch.exp(-0.3 * t) - 1.5 * torch.exp(-t)
    worst = difference.sign().flip(0).reshape(1, -1, 1)
    others = torch.rand(20, 1501, 1, dtype=F64) * 2 - 1
    with torch.no_grad():
        errors = [(target(x, t) - model(x, t))[:, -1].abs().max().item() for x in (worst, others)]
    assert errors[0] == pytest.approx(distance, rel=0.02)
    assert errors[1] < distance


def test_members_of_an_ensemble_are_measured_one_by_one():
    models = [ContinuousRNN(1, 3, 1, "linear", "diagonal", "exp", seed=seed, dtype=F64) for seed in range(3)]
    measure = KernelL1.build(kernels.polynomial(1.5), 100.0)
    with torch.no_grad():
        together, alone = measure(stack(models)), [measure(model) for model in models]
    torch.testing.assert_close(together, torch.stack(alone))


def test_an_unstable_model_is_infinitely_far_on_all_times_and_finitely_on_some():
    model = ExponentialSum(np.array([-0.1]), np.array([1.0])).model()
    assert kernel_distance(model, kernels.exponential()).value == math.inf
    assert math.isfinite(kernel_distance(model, kernels.exponential(), 10.0).value)


def test_what_is_not_linear_is_refused():
    linear = ContinuousRNN(1, 2, 1, "linear", "diagonal", "exp", dtype=F64)
    kernel = kernels.exponential()
    for model, target, message in (
        (ContinuousRNN(1, 2, 1, "tanh", dtype=F64), kernel, "activation 'linear'"),
        (ContinuousRNN(1, 2, 1, "linear", num_layers=2, dtype=F64), kernel, "2 layer"),
        (DiscreteRNN(1, 2, 1, "linear", dtype=F64), kernel, "continuous time"),
        (ContinuousRNN(2, 2, 1, "linear", dtype=F64), kernel, "1 channel"),
        (linear, NonlinearFunctional(ConvolutionalFunctional(kernel), "tanh"), "ConvolutionalFunctional"),
        (stack([linear, linear]), kernel, "ensemble"),
    ):
        with pytest.raises(ValueError, match=message):
            kernel_distance(model, target)
    with pytest.raises(ValueError, match=r"horizon is 0.* > 0"):
        kernel_distance(linear, kernel, 0.0)
    with pytest.raises(ValueError, match="relative_l2"):
        impulse_kernel(ContinuousRNN(1, 2, 1, "tanh", dtype=F64).field(), LogGrid.build(1.0))


def test_the_linear_model_integrated_on_inputs_agrees_with_its_kernel():
    model = ContinuousRNN(1, 4, 1, "linear", "symmetric", "softplus", bias=False, dtype=F64)
    t = torch.linspace(0, 10, 201, dtype=F64)
    x = torch.ones(1, 201, 1, dtype=F64)
    grid = LogGrid.build(10.0)
    with torch.no_grad():
        step_response = model(x, t, solver=TorchDiffEq("rk4", adjoint=False))[0, -1, 0]
        integral = (impulse_kernel(model.field(), grid)[0] * grid.weights).sum()
    assert step_response.item() == pytest.approx(integral.item(), rel=1e-6)


@pytest.mark.parametrize("horizon", [5.0, 1000.0, math.inf])
@pytest.mark.parametrize(
    "kernel",
    [
        kernels.exponential(rate=1e8),
        kernels.exponential(rate=1e12),
        kernels.exponential(rate=1e20),
        kernels.from_callable(lambda t: np.exp(-t) * t**-0.9),
    ],
)
def test_a_kernel_that_lives_before_the_first_nodes_is_refused(kernel, horizon):
    with pytest.raises(ValueError, match="before the first nodes"):
        KernelL1.build(kernel, horizon)


@pytest.mark.parametrize("rate", [1.0, 1e3, 1e5])
def test_the_scale_of_a_fast_kernel_is_its_integral(rate):
    assert KernelL1.build(kernels.exponential(rate=rate), 5.0).scale == pytest.approx(-math.expm1(-5 * rate) / rate, rel=1e-6)
