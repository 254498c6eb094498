"""Memory around a background: against closed forms, finite differences and the variational equation integrated by SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from problems import linear_kernel
from scipy.integrate import solve_ivp
from torch import nn

from analysis import BackgroundMemory, background_memory, lyapunov_exponents, memory_function
from odernn import ContinuousRNN, DiscreteRNN, DiscreteSSM, StateSpaceModel
from odernn.ensembles import stack
from odernn.leaky import LeakyRNN
from odernn.neural_ode import NeuralODE
from odernn.solvers import Adaptive, TorchDiffEq
from targets import ConvolutionalFunctional, NonlinearFunctional, kernels

F64 = torch.float64
T = torch.linspace(0, 4, 21, dtype=F64)
T120 = torch.arange(120.0)


def noise(batch=3, channels=1, size=1.0, count=21):
    return size * torch.randn(batch, count, channels, generator=torch.Generator().manual_seed(5), dtype=F64)


# --- linear systems: the kernel, whatever the background ------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [ContinuousRNN, StateSpaceModel])
@pytest.mark.parametrize("interpolation", ["linear", "hold"])
def test_of_a_linear_model_it_is_the_kernel_for_every_background(cls, interpolation):
    model = cls(2, 5, 3, "linear", seed=0, dtype=F64)
    M = background_memory(model, T, noise(channels=2, size=7.0), interpolation=interpolation)
    rho = linear_kernel(model, T)
    assert M.per == "unit of time"
    assert torch.allclose(M.kernel, rho, atol=1e-10)
    assert torch.allclose(M.influence, rho.norm(dim=(-2, -1)).expand(3, -1), atol=1e-10)
    for curve in (M.mean, M.geometric_mean, M.moment(4), *M.spread):
        assert torch.allclose(curve, M.influence[0], atol=1e-10)


def test_uneven_times_and_a_clock_change_nothing_of_it():
    model = ContinuousRNN(1, 5, 1, "linear", seed=0, dtype=F64)
    t = 1e6 + torch.tensor([0.0, 0.3, 0.4, 2.0, 2.5], dtype=F64)
    M = memory_function(model, t, background=noise(count=5))
    assert torch.allclose(M.times, t[-1] - t.flip(0))
    assert torch.allclose(M.influence[1], linear_kernel(model, M.times).abs().flatten(), atol=1e-10)


def test_of_a_discrete_linear_model_lag_0_is_the_first_output_that_has_consumed_the_sample():
    model = DiscreteSSM(1, 4, 1, "linear", bias=False, seed=0, dtype=F64)
    W, U, c = model.field().layers[0].W.to_dense().detach(), model.field().layers[0].U.detach(), model.c.detach()
    M = background_memory(model, torch.arange(8.0), noise(count=8))
    expected = [float((c @ torch.linalg.matrix_power(W, k) @ U).abs()) for k in range(8)]
    assert M.per == "sample"
    assert np.allclose(M.influence[2], expected, atol=1e-14)


def test_of_a_functional_it_is_its_kernel_times_the_slope_of_the_nonlinearity():
    x, rho = noise(), kernels.polynomial(exponent=1.5)
    H = ConvolutionalFunctional(rho)
    M = memory_function(H, T, background=x)
    assert np.allclose(M.influence, np.broadcast_to((1 + T.numpy()) ** -1.5, (3, 21)), rtol=1e-12)
    driven = memory_function(NonlinearFunctional(H, "tanh"), T, background=x)
    slope = 1 / torch.cosh(H(x, T)[:, -1]) ** 2
    assert torch.allclose(driven.influence, slope * M.influence, rtol=1e-12)


@pytest.mark.parametrize("cls", [ContinuousRNN, StateSpaceModel, LeakyRNN])
def test_around_0_it_is_that_of_the_linearisation(cls):
    model = cls(1, 5, 1, "tanh", seed=0, dtype=F64)
    linear = cls(1, 5, 1, "linear", seed=0, dtype=F64)
    linear.load_state_dict(model.state_dict())
    zero = torch.zeros(1, 21, 1, dtype=F64)
    assert torch.allclose(background_memory(model, T, zero).values, background_memory(linear, T, zero).values, atol=1e-9)


# --- nonlinear models in continuous time ----------------------------------------------------------------------------------------


def variational(model, x, t, interpolation):
    """dy/dx(s) at the times by SciPy: h and Phi together, interval by interval."""
    field, jacobian = model.field(), torch.autograd.functional.jacobian
    m, start = field.size, field.rest_state().detach()
    states, steps = [start], []
    for k in range(len(t) - 1):
        left, right = x[k], x[k + 1] if interpolation == "linear" else x[k]

        def rate(s, z, k=k, left=left, right=right):
            h, u = torch.from_numpy(z[:m].copy()), torch.lerp(left, right, (s - t[k]) / (t[k + 1] - t[k]))
            now = field.at(torch.tensor(s))
            J = jacobian(lambda h: now(h[None], u[None])[0], h).numpy()
            return np.concatenate([now(h[None], u[None])[0].detach().numpy(), (J @ z[m:].reshape(m, m)).ravel()])

        z0, span = np.concatenate([states[-1].numpy(), np.eye(m).ravel()]), (float(t[k]), float(t[k + 1]))
        z = solve_ivp(rate, span, z0, method="DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
        states.append(torch.from_numpy(z[:m].copy()))
        steps.append(torch.from_numpy(z[m:].reshape(m, m).copy()))
    row, found = jacobian(lambda h: field.readout(h[None])[0], states[-1]), []
    for k in range(len(t) - 1, -1, -1):
        if k < len(t) - 1:
            row = row @ steps[k]
        u = x[k - 1] if interpolation == "hold" and k == len(t) - 1 else x[k]
        found.append(row @ jacobian(lambda u, k=k: field.at(t[k])(states[k][None], u[None])[0], u))
    return torch.stack(found).detach().numpy()


@pytest.mark.parametrize("interpolation", ["linear", "hold"])
def test_of_a_tanh_network_it_solves_the_variational_equation(interpolation):
    model = ContinuousRNN(2, 4, 2, "tanh", seed=1, dtype=F64)
    x, t = noise(batch=1, channels=2, size=2.0, count=6), T[:6]
    M = background_memory(model, t, x, interpolation=interpolation)
    assert np.abs(M.kernel.numpy() - variational(model, x[0], t, interpolation)).max() < 1e-8


def pendulum(t, h, x):
    return torch.stack([h[:, 1], -torch.sin(h[:, 0]) - 0.3 * h[:, 1] + x[:, 0] * torch.cos(t)], -1)


def test_what_a_field_or_readout_of_ones_own_leaves_out_has_no_influence():
    unread = NeuralODE(pendulum, 2, readout=lambda h: torch.zeros_like(h[:, :1]), dtype=F64)
    undriven = NeuralODE(lambda t, h, x: -h, 2, dtype=F64)
    for model in (unread, undriven):
        assert not background_memory(model, T, noise()).influence.any()


def test_of_a_field_of_ones_own_the_longest_lags_are_as_good_as_the_shortest():
    model = NeuralODE(lambda t, h, x: x - h, 1, dtype=F64, seed=0)
    t = torch.linspace(0, 80, 41, dtype=F64)
    M = background_memory(model, t, noise(count=41), solver=TorchDiffEq("dopri5", 1e-6, 1e-8, adjoint=False))
    assert torch.allclose(M.influence.log(), (-t + model.c.abs().log().squeeze()).expand(3, -1), atol=1e-3)


@pytest.mark.parametrize(
    "model",
    [
        ContinuousRNN(1, 3, 1, "tanh", num_layers=2, seed=1, dtype=F64),
        StateSpaceModel(1, 3, 1, "tanh", num_layers=2, seed=1, dtype=F64),
        LeakyRNN(1, 4, 1, "tanh", tau=0.5, seed=1, dtype=F64),
        NeuralODE(pendulum, 2, readout=lambda h: torch.cat([h, torch.sin(h[:, :1])], -1), dtype=F64),
    ],
    ids=lambda model: type(model).__name__,
)
def test_every_form_of_model_solves_its_variational_equation(model):
    x, t = noise(batch=1, count=5, size=2.0), T[:5]
    M = background_memory(model, t, x)
    assert np.abs(M.kernel.numpy() - variational(model, x[0], t, "linear")).max() < 1e-8


@pytest.mark.parametrize("activation", ["relu", "hardtanh"])
def test_a_kink_moves_it_by_no_more_than_a_few_millionths(activation):
    model = ContinuousRNN(1, 6, 1, activation, seed=1, dtype=F64)
    x = noise(batch=4, size=3.0)
    found, finer = (background_memory(model, T, x, solver=solver) for solver in (None, Adaptive("dopri5", 1e-14, 1e-16)))
    assert torch.allclose(found.influence, finer.influence, rtol=0, atol=1e-5 * float(finer.influence.max()))


def test_members_of_an_ensemble_are_as_they_are_alone():
    models = [ContinuousRNN(1, 4, 1, "tanh", seed=seed, dtype=F64) for seed in (0, 1)]
    x = noise(size=2.0)
    M = memory_function(stack(models), T, background=x)
    assert M.influence.shape == (2, 3, 21)
    for k, model in enumerate(models):
        assert torch.allclose(M[k].influence, background_memory(model, T, x).influence, atol=1e-9)
    maps = [DiscreteRNN(1, 4, 1, "tanh", seed=seed, dtype=F64) for seed in (0, 1)]
    M = background_memory(stack(maps), T, x)
    for k, model in enumerate(maps):
        assert torch.allclose(M[k].influence, background_memory(model, T, x).influence, atol=1e-12)


def test_in_single_precision_the_same_is_found():
    model = ContinuousRNN(1, 4, 1, "tanh", seed=0, dtype=torch.float32)
    M = background_memory(model, T, noise())
    assert M.influence.dtype == torch.float32
    assert torch.allclose(M.influence.double(), background_memory(model.double(), T, noise()).influence, rtol=1e-6)


# --- modules and callables ------------------------------------------------------------------------------------------------------


class Own(nn.Module):
    input_size = 2

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(2, 5, batch_first=True),
        lambda: nn.GRU(2, 5, num_layers=2),
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(2, 1, 4, batch_first=True), 1, enable_nested_tensor=False),
        Own,
    ],
    ids=["lstm", "gru", "transformer", "own"],
)
def test_of_a_module_it_is_the_central_difference_of_its_outputs(make):
    torch.manual_seed(0)
    module, x = make().double(), noise(batch=2, channels=2, count=9)
    M = memory_function(module, torch.arange(9.0), background=x)
    step = 1e-5
    for s in range(9):
        columns = []
        for channel in range(2):
            moved = []
            for sign in (1, -1):
                z = x.clone()
                z[:, s, channel] += sign * step
                with torch.no_grad():
                    moved.append(outputs(module, z)[:, -1])
            columns.append((moved[0] - moved[1]) / (2 * step))
        expected = torch.stack(columns, -1).norm(dim=(-2, -1))
        assert torch.allclose(M.influence[:, 8 - s], expected, atol=1e-6)


def outputs(module, x):
    module.eval()
    if isinstance(module, nn.GRU):
        return module(x.transpose(0, 1))[0].transpose(0, 1)
    if isinstance(module, nn.TransformerEncoder):
        return module(x, nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype))
    y = module(x)
    return y[0] if isinstance(y, tuple) else y


def test_a_callable_takes_the_channels_of_the_background_and_gradients_may_be_switched_off():
    weights = torch.tensor([3.0, 4.0], dtype=F64)
    with torch.no_grad():
        M = memory_function(lambda x: (x @ weights).cumsum(1), torch.arange(6.0), background=noise(channels=2, count=6))
        driven = memory_function(ContinuousRNN(1, 4, 1, "tanh", seed=0, dtype=F64), T, background=noise())
    assert torch.allclose(M.influence, torch.tensor(5.0, dtype=F64))
    assert (driven.influence > 0).all()


def test_what_a_convolution_by_fft_leaves_of_rounding_is_below_the_floor():
    kernel = torch.fft.rfft(0.5 ** torch.arange(120, dtype=F64), 240).unsqueeze(-1)

    def convolved(x):
        return torch.fft.irfft(torch.fft.rfft(x, 240, 1) * kernel, 240, 1)[:, : x.shape[1]]

    M = background_memory(convolved, T120, noise(count=120))
    assert M.above_floor[:40].all()
    assert torch.allclose(M.values[:40], 0.5 ** T120[:40].double(), rtol=1e-2)
    assert not M.above_floor[70:].any()


def test_several_output_times_are_averaged_at_fixed_lags():
    module, x, t = nn.RNN(1, 4, batch_first=True).double(), noise(batch=2, count=12), torch.arange(12.0)
    M = background_memory(module, t, x, ends=3)
    assert M.influence.shape == (6, 10)
    for row, end in enumerate((10, 11, 12)):
        alone = background_memory(module, t[:end], x[:, :end]).influence
        assert torch.allclose(M.influence[[row, 3 + row]], alone[:, :10], atol=1e-14)


def test_for_white_gaussian_samples_the_mean_kernel_is_the_correlation_with_the_input():
    """Bussgang: E[y_t x_s] = var(x) E[dy_t/dx_s]."""
    model = DiscreteRNN(1, 6, 1, "tanh", seed=3, dtype=F64)
    x = noise(batch=20_000, count=8, size=2.0)
    M = background_memory(model, torch.arange(8.0), x)
    more = torch.cat([x, x[:, :1]], 1)
    y = model(more, torch.arange(9.0, dtype=F64)).detach()[:, -1, 0]
    products = y[:, None] * x[:, :, 0].flip(1)
    error = products.std(0) / math.sqrt(len(x))
    assert ((products.mean(0) - 4 * M.kernel[:, 0, 0]).abs() < 4 * error).all()


# --- the exponent ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "system",
    [ContinuousRNN(1, 4, 1, "tanh", "symmetric", "softplus", seed=0, dtype=F64), nn.RNN(1, 4, batch_first=True).double()],
)
def test_the_exponent_is_that_of_the_qr_decomposition(system):
    t = torch.arange(121, dtype=F64) * (0.5 if isinstance(system, ContinuousRNN) else 1.0)
    x = noise(batch=1, count=121)
    M = background_memory(system, t, x)
    whole = lyapunov_exponents(system, t, x=x[0], count=1)
    assert float(M.exponent) == pytest.approx(float(whole.exponents[0]), rel=0.15)
    assert math.isnan(M.exponent_stderr)
    # the influence itself decays at that rate
    middle = M.influence[0, 30:90].log()
    slope = float(middle[-1] - middle[0]) / float(M.times[89] - M.times[30])
    assert slope == pytest.approx(float(M.exponent), rel=0.15)


def test_the_exponent_of_a_linear_model_is_its_slowest_rate():
    model = StateSpaceModel(1, 4, 1, "tanh", "diagonal", "softplus", seed=0, dtype=F64)
    t = torch.linspace(0, 200, 201, dtype=F64)
    M = background_memory(model, t, noise(batch=2, count=201))
    assert torch.allclose(M.exponents, model.spectrum().real.amax().detach().expand(2), rtol=2e-2)


def test_a_larger_input_saturates_a_network_without_leak_which_then_remembers_longer():
    model = ContinuousRNN(1, 8, 1, "tanh", "symmetric", "softplus", seed=0, dtype=F64)
    t = torch.linspace(0, 40, 81, dtype=F64)
    small, large = (background_memory(model, t, noise(batch=4, count=81, size=size)).exponent for size in (0.01, 5.0))
    assert small < large < 0


# --- results and refusals -------------------------------------------------------------------------------------------------------


def test_a_result_comes_back_from_json_and_is_short():
    M = background_memory(nn.RNN(1, 4, batch_first=True), torch.arange(30.0), noise(count=30))
    assert BackgroundMemory.from_dict(M.to_dict()) == M
    assert len(repr(M)) < 400
    black_box = background_memory(lambda x: x.cumsum(1), torch.arange(5.0), noise(count=5))
    assert black_box.exponents is None
    assert black_box.exponent is None
    assert BackgroundMemory.from_dict(black_box.to_dict()) == black_box


def test_influences_beyond_any_power_keep_their_geometric_mean():
    M = background_memory(lambda x: 1e200 * x.cumsum(1), torch.arange(5.0), noise(count=5))
    assert torch.allclose(M.geometric_mean, torch.tensor(1e200, dtype=F64))
    assert torch.allclose(M.moment(2), torch.tensor(1e200, dtype=F64))


@pytest.mark.parametrize(
    ("system", "changes", "message"),
    [
        (lambda x: torch.from_numpy(x.detach().numpy().cumsum(1)), {}, "has no gradient in its input"),
        (lambda x: torch.from_numpy(x.numpy().cumsum(1)), {}, "cannot be differentiated in its input"),
        (lambda x: x.cumsum(1).round(), {}, "gradient 0 and yet depends on its input"),
        (lambda x: x.flip(1), {}, "is not causal"),
        (lambda x: nn.functional.pad(x, (0, 0, 0, 9))[:, 9:], {}, "is not causal"),
        (nn.GRU(1, 4, bidirectional=True), {}, "is not causal"),
        (None, {"background": noise(channels=2)}, "background has 2 channels, the system takes 1"),
        (None, {"background": noise(count=20)}, "background must be"),
        (None, {"background": noise()[0]}, "background must be"),
        (None, {"background": noise() * math.nan}, "background"),
        (None, {"times": T[:1], "background": noise(count=1)}, "times"),
        (None, {"probe": "impulse"}, "probe is for the probes"),
        (None, {"amplitudes": (1.0,)}, "amplitudes is for the probes"),
        (None, {"warmup": 3.0}, "warmup is for the probes"),
        (None, {"solver": "rk5"}, "solver"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(system, changes, message):
    system = ContinuousRNN(1, 4, 1, "tanh", seed=0, dtype=F64) if system is None else system
    arguments = {"times": T, "background": noise()} | changes
    with pytest.raises(ValueError, match=message) as raised:
        memory_function(system, arguments.pop("times"), **arguments)
    assert "\n" not in str(raised.value)


def test_too_many_ends_and_uneven_times_are_refused():
    with pytest.raises(ValueError, match="leave no lag"):
        background_memory(nn.RNN(1, 4, batch_first=True), torch.arange(5.0), noise(count=5), ends=5)
    uneven = torch.tensor([0.0, 1.0, 3.0])
    with pytest.raises(ValueError, match="evenly spaced"):
        background_memory(nn.RNN(1, 4, batch_first=True), uneven, noise(count=3))
    with pytest.raises(ValueError, match="fixed lags"):
        background_memory(ContinuousRNN(1, 4, 1, seed=0), uneven, noise(count=3), ends=2)
