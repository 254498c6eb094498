from __future__ import annotations

import math

import pytest
import torch
from problems import F64, central_difference, linear_kernel, perturb_bias
from scipy.integrate import quad

from odernn import (
    ContinuousRNN,
    DiscreteRNN,
    DiscreteSSM,
    InputMoments,
    LeakyRNN,
    NeuralODE,
    StateSpaceModel,
    generalization_measure,
    rescale_readout,
    stack,
)
from odernn.paths import interpolate
from targets import inputs

T = torch.linspace(0, 4, 21, dtype=F64)
UNEVEN = 4 * torch.linspace(0, 1, 21, dtype=F64) ** 1.4
# Subintervals of a step in the plain quadrature.
FINE = 256


def moving(t=T, batch=40, channels=1, seed=1):
    """Inputs with a mean that moves and a covariance that does."""
    x = inputs.ornstein_uhlenbeck(t, batch, channels=channels, seed=seed)
    return x * (1 + 0.2 * t[:, None]) + torch.cos(t)[:, None] * torch.arange(1, channels + 1)


def linear(cls=ContinuousRNN, recurrence="symmetric", channels=1, outputs=1, seed=3, **options):
    model = cls(channels, 4, outputs, "linear", recurrence, seed=seed, dtype=F64, **options)
    return perturb_bias(model)


def fine_times(t):
    parts = torch.linspace(0, 1, FINE + 1, dtype=F64)[:-1]
    return torch.cat([(t[:-1, None] + t.diff()[:, None] * parts).flatten(), t[-1:]])


def plainly(model, t, x, interpolation="linear"):
    """tau by the trapezoidal rule on many points, from the inputs there."""
    s = fine_times(t)
    at = interpolate(t, x, interpolation).on(s)
    rho = linear_kernel(model, t[-1] - s)
    rest = (model.c @ model.rest_state()).detach()
    total = 0.0
    # Both ends of each interval by themselves: held inputs jump between.
    for o in range(model.output_size):
        parts = []
        for x_there, kernel in ((at.start, rho[:-1, o]), (at.end, rho[1:, o])):
            drive = (kernel * x_there).sum(-1)  # (batch, interval)
            parts.append((drive.std(0), drive.mean(0)))
        spread, mean = ((s.diff() * (one + other) / 2).sum() for one, other in zip(*parts))
        total += float(spread + (mean + rest[o]).abs()) ** 2
    return total


KINDS = [
    (ContinuousRNN, "dense"),
    (ContinuousRNN, "complex"),
    (StateSpaceModel, "symmetric"),
    (StateSpaceModel, "diagonal"),
    (LeakyRNN, "dense"),
]


@pytest.mark.parametrize(("cls", "recurrence"), KINDS)
@pytest.mark.parametrize("t", [T, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("interpolation", ["linear", "hold"])
def test_the_measure_is_its_integral_on_many_points(cls, recurrence, t, interpolation):
    model, x = linear(cls, recurrence), moving(t)
    found = generalization_measure(model, InputMoments.measured(t, x, interpolation))
    assert found.item() == pytest.approx(plainly(model, t, x, interpolation), rel=3e-5)


@pytest.mark.parametrize("recurrence", ["dense", "complex"])
def test_channels_and_outputs(recurrence):
    model, x = linear(recurrence=recurrence, channels=3, outputs=2), moving(channels=3)
    assert generalization_measure(model, InputMoments.measured(T, x)).item() == pytest.approx(plainly(model, T, x), rel=3e-5)


def test_moments_say_what_they_are_of():
    assert repr(InputMoments.measured(T, moving(channels=2))) == "InputMoments(21 samples on [0, 4], channels: 2)"


def test_members_of_an_ensemble_have_a_value_each():
    for recurrence in ("dense", "complex"):
        models = [linear(recurrence=recurrence, seed=seed) for seed in range(3)]
        moments = InputMoments.measured(T, moving())
        alone = torch.stack([generalization_measure(model, moments) for model in models])
        assert torch.allclose(generalization_measure(stack(models), moments), alone, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("rates", "tolerance"),
    # Where a mode falls within an octave of lags, four nodes are good for 1e-6 of its own integral.
    [([0.01, 0.5, 2.0], 1e-10), ([1.0, 1e4, 1e7], 1e-6)],
    ids=["slow", "far faster than samples come"],
)
def test_positive_kernels_have_a_closed_form(rates, tolerance):
    """int_0^T sum_j c_j e^{-r_j s} ds, for variance 1 and mean 0; and twice that for variance 1 and mean 1."""
    rates = torch.tensor(rates, dtype=F64)
    for recurrence in ("diagonal", "dense"):
        model = StateSpaceModel(1, 3, 1, "linear", recurrence, bias=False, dtype=F64)
        model.set_matrix(-torch.diag(rates))
        with torch.no_grad():
            model.layer_weights[0].U.fill_(1.0)
            model.c.copy_(rates.sqrt())
        integral = float((-torch.expm1(-4 * rates) / rates.sqrt()).sum())
        for mean in (0.0, 1.0):
            found = generalization_measure(model, InputMoments.given(T, 1.0, mean))
            assert found.item() == pytest.approx(((1 + mean) * integral) ** 2, rel=tolerance)


def test_brownian_motion_by_its_covariance():
    model = StateSpaceModel(1, 1, 1, "linear", "diagonal", bias=False, dtype=F64)
    model.set_matrix(torch.tensor([[-0.7]], dtype=F64))
    with torch.no_grad():
        model.layer_weights[0].U.fill_(1.0)
        model.c.fill_(1.0)
    moments = InputMoments.given(T, torch.minimum, mean=lambda s: -s)
    spread, mean = (quad(lambda s, p=p: math.exp(-0.7 * (4 - s)) * s**p, 0, 4)[0] for p in (0.5, 1))
    assert generalization_measure(model, moments).item() == pytest.approx((spread + mean) ** 2, rel=1e-5)


@pytest.mark.parametrize("omega", [3.0, 30.0, 300.0])
def test_modes_that_turn_between_samples_are_resolved(omega):
    model = StateSpaceModel(1, 2, 1, "linear", "complex", bias=False, dtype=F64)
    model.set_matrix(torch.tensor([[-0.5, -omega], [omega, -0.5]], dtype=F64))
    with torch.no_grad():
        model.layer_weights[0].U.copy_(torch.tensor([[1.0], [0.0]]))
        model.c.copy_(torch.tensor([[1.0, 0.0]]))
    s = torch.linspace(0, 4, 400_001, dtype=F64)
    expected = torch.trapezoid((torch.exp(-0.5 * s) * torch.cos(omega * s)).abs(), s) ** 2
    assert generalization_measure(model, InputMoments.given(T, 1.0)).item() == pytest.approx(expected.item(), rel=2e-3)


def test_modes_that_no_quadrature_resolves_give_nan():
    model = stack([linear(recurrence="complex", seed=seed) for seed in range(2)])
    with torch.no_grad():
        model.layer_weights[0].recurrence.omega[1] = 1e4
    found = generalization_measure(model, InputMoments.given(T, 1.0))
    assert torch.isfinite(found).tolist() == [True, False]
    with torch.no_grad():
        model.layer_weights[0].recurrence.omega[0] = math.inf
    assert torch.isnan(generalization_measure(model, InputMoments.given(T, 1.0))).all()


@pytest.mark.parametrize("recurrence", ["dense", "symmetric", "complex"])
@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_gradients_are_those_of_differences(recurrence, activation):
    model = perturb_bias(StateSpaceModel(2, 4, 1, activation, recurrence, seed=3, dtype=F64))
    moments = InputMoments.measured(T, moving(channels=2))
    generalization_measure(model, moments).backward()
    for weight in model.parameters():
        expected = central_difference(lambda: generalization_measure(model, moments), weight)
        # A step moves the kinks of |rho|, too, from node to node.
        assert torch.allclose(weight.grad, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("cls", [DiscreteRNN, DiscreteSSM])
@pytest.mark.parametrize("t", [T, UNEVEN], ids=["even", "uneven"])
def test_maps_take_their_responses_to_impulses(cls, t):
    model, x = linear(cls, "dense"), moving(t)
    impulses = torch.eye(20, 21, dtype=F64).unsqueeze(-1)
    zero = model(torch.zeros(1, 21, 1, dtype=F64), t)[0, -1, 0]
    rho = (model(impulses, t)[:, -1, 0] - zero).detach()
    expected = (rho.abs() * x[:, :-1, 0].std(0)).sum() + ((rho * x[:, :-1, 0].mean(0)).sum() + zero.detach()).abs()
    assert generalization_measure(model, InputMoments.measured(t, x)).item() == pytest.approx(expected.item() ** 2, rel=1e-9)


@pytest.mark.parametrize("activation", ["linear", "tanh", "relu", "hardtanh", "sigmoid"])
@pytest.mark.parametrize("cls", [StateSpaceModel, DiscreteSSM])
def test_mean_square_outputs_are_at_most_tau(cls, activation):
    for seed in range(3):
        model = perturb_bias(cls(1, 6, 2, activation, "complex", seed=seed, dtype=F64))
        x = moving(seed=seed)
        tau = generalization_measure(model, InputMoments.measured(T, x))
        # The covariance of the sample is an unbiased one, and its mean square is not.
        assert model(x, T)[:, -1].square().sum(-1).mean() <= tau


def test_inputs_that_are_one_random_number_times_a_shape_reach_it():
    model = StateSpaceModel(1, 3, 1, "linear", "diagonal", bias=False, seed=0, dtype=F64)
    with torch.no_grad():
        model.layer_weights[0].U.abs_()
        model.c.abs_()
    size = torch.randn(30, 1, 1, dtype=F64, generator=torch.Generator().manual_seed(0))
    x = (size - size.mean()) * (2 + torch.sin(T))[:, None]
    y = model(x, T)[:, -1, 0].detach()
    tau = generalization_measure(model, InputMoments.measured(T, x))
    assert tau.item() == pytest.approx(float(y.square().sum() / 29), rel=1e-9)


def test_white_noise_falls_below_the_bound_as_samples_come_closer():
    """E y^2 / tau falls like the step: K(s, s) is that of the samples, and their sum averages out."""
    model = StateSpaceModel(1, 3, 1, "linear", "diagonal", seed=0, dtype=F64)
    parts = []
    for points in (41, 161, 641):
        t = torch.linspace(0, 4, points, dtype=F64)
        x = inputs.white_noise(t, 400, seed=0)
        tau = generalization_measure(model, InputMoments.given(t, 1.0))
        parts.append((model(x, t)[:, -1].square().mean() / tau).item())
    assert parts[0] / parts[1] == pytest.approx(4, rel=0.3)
    assert parts[1] / parts[2] == pytest.approx(4, rel=0.3)


@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_a_rescaled_readout_has_tau_1_and_the_same_direction(activation):
    model = StateSpaceModel(1, 4, 1, activation, "complex", seed=0, dtype=F64)
    moments, before = InputMoments.measured(T, 7 * moving()), model.c.detach().clone()
    tau = generalization_measure(model, moments).detach()
    rescale_readout(model, moments)
    assert generalization_measure(model, moments).item() == pytest.approx(1, rel=1e-12)
    assert torch.equal(model.c, before / tau.sqrt())


def test_members_are_rescaled_each_by_its_own():
    model = stack([linear(seed=seed) for seed in range(3)])
    moments = InputMoments.measured(T, moving())
    rescale_readout(model, moments)
    assert torch.allclose(generalization_measure(model, moments), torch.ones(3, dtype=F64), rtol=1e-12)


def test_nothing_is_divided_by_0():
    model = linear()
    with torch.no_grad():
        model.c.zero_()
    with pytest.raises(ValueError, match="tau is 0, expected positive numbers"):
        rescale_readout(model, InputMoments.given(T, 1.0))
    assert not model.c.any()


def own_field(t, h, x):
    return x - h


class OwnMap(DiscreteSSM):
    def state_equation(self, h, value, step):
        return 0.5 * value


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ContinuousRNN(1, 3, 1, "tanh", dtype=F64), "model 'rnn' of 1 layer\\(s\\) with activation 'tanh': take model 'ssm'"),
        (LeakyRNN(1, 3, 1, "relu", dtype=F64), "model 'leaky' of 1 layer"),
        (DiscreteRNN(1, 3, 1, "tanh", dtype=F64), "model 'discrete_rnn' of 1 layer"),
        (StateSpaceModel(1, 3, 1, "tanh", num_layers=2, dtype=F64), "of 2 layer\\(s\\)"),
        (ContinuousRNN(1, 3, 1, "linear", num_layers=2, dtype=F64), "of 2 layer\\(s\\)"),
        (OwnMap(1, 3, 1, "linear", dtype=F64), "of code of its own"),
        (NeuralODE(own_field, 2, dtype=F64), "of code of its own"),
        (StateSpaceModel(2, 3, 1, dtype=F64), "the model takes 2 channels, the inputs have 1"),
        (torch.nn.LSTM(1, 3), "model is"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else None,
)
def test_models_that_have_no_kernel_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        generalization_measure(model, InputMoments.given(T, 1.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InputMoments.measured(T.expand(40, -1), moving()), "times of each sequence, expected \\(time,\\)"),
        (lambda: InputMoments.measured(T, moving(batch=1)), "two sequences or more"),
        (lambda: InputMoments.measured(T[:-1], moving()), "expected \\(batch, 20, input\\)"),
        (lambda: InputMoments.measured(T, moving(), "cubic"), "unknown interpolation 'cubic'"),
        (lambda: InputMoments.given(T, -1.0), "covariance is -1.0"),
        (lambda: InputMoments.given(T, lambda s, u: s - 1), "is that of no process"),
        (lambda: InputMoments.given(T, lambda s, u: s[:-1]), "covariance gives"),
        (lambda: InputMoments.given(T, lambda s, u: 1 / s), "covariance gives"),
        (lambda: InputMoments.given(T, 1.0, lambda s: s[:, None].expand(-1, 2)), "mean gives"),
        (lambda: generalization_measure(linear(), T), "moments is"),
    ],
)
def test_inputs_that_have_no_moments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
