"""Memory functions against closed forms, matrix exponentials, and difference quotients of independently solved trajectories."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.decay import fit_decay
from analysis.memory import memory_function
from analysis.systems import PROBES
from odernn import ContinuousRNN, DiscreteRNN, DiscreteSSM, StateSpaceModel, TorchDiffEq
from odernn.paths import heaviside
from targets import KERNELS, ConvolutionalFunctional, Functional, NonlinearFunctional, TeacherFunctional, kernels

DOUBLE = torch.float64
T = torch.linspace(0, 20, 81, dtype=DOUBLE)


def _linear_kernel(model, t):
    """rho(t) = c^T e^{Wt} U by matrix exponential, (time, output, d)."""
    layer = model.layers[0].effective()
    W = layer.W.to_dense()
    return (model.c @ torch.linalg.matrix_exp(W * t[:, None, None]) @ layer.U).detach()


def _shift_bias(model, size=0.7):
    with torch.no_grad():
        for layer in model.layers:
            layer.b.normal_(generator=torch.Generator().manual_seed(5)).mul_(size)
    return model


# --- functionals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("name", KERNELS)
def test_a_linear_functional_has_the_memory_of_its_kernel_for_every_probe(name, probe):
    H = ConvolutionalFunctional(KERNELS[name]())
    M = memory_function(H, T, probe=probe)
    torch.testing.assert_close(M.values, H.kernel(T).abs(), rtol=0, atol=1e-8)
    assert M.probe == probe
    assert M.maximizer.shape == (81, 1)


def test_a_vector_functional_sums_the_moduli_of_its_kernels_and_names_the_sign_vector():
    rho = kernels.stack([kernels.exponential(), kernels.sine(), kernels.polynomial(1.1)])
    M = memory_function(ConvolutionalFunctional(rho), T)
    torch.testing.assert_close(M.values, rho(T).abs().sum(-1), rtol=0, atol=1e-8)
    torch.testing.assert_close((rho(T) * M.maximizer).sum(-1), M.values)


def test_a_static_nonlinearity_multiplies_by_its_slope():
    H = ConvolutionalFunctional(kernels.exponential())
    M = memory_function(NonlinearFunctional(H, "tanh"), T, amplitudes=[0.5])
    response = 0.5 * (1 - torch.exp(-T))
    torch.testing.assert_close(M.values, torch.exp(-T) * (1 - torch.tanh(response) ** 2), rtol=1e-8, atol=1e-12)
    impulse = memory_function(NonlinearFunctional(H, "tanh"), T, amplitudes=[0.5], probe="impulse")
    torch.testing.assert_close(impulse.values, torch.tanh(0.5 * torch.exp(-T)) / 0.5, rtol=1e-8, atol=1e-12)
    held = memory_function(NonlinearFunctional(H, "tanh"), T, amplitudes=[0.5], probe="reversed")
    left = 0.5 * torch.exp(-T)
    torch.testing.assert_close(held.values, torch.exp(-T) * (1 - torch.tanh(left) ** 2), rtol=1e-8, atol=1e-12)


def test_a_functional_without_a_known_rate_is_read_from_its_samples():
    class Integral(Functional):
        """int_0^t x, whose rate is x."""

        def _respond(self, x, t):
            areas = (x[..., 1:, :] + x[..., :-1, :]) / 2 * t.to(x).diff().unsqueeze(-1)
            return torch.nn.functional.pad(areas.cumsum(-2), (0, 0, 1, 0))

    torch.testing.assert_close(memory_function(Integral(), T).values, torch.ones(81, dtype=DOUBLE))


# --- linear models -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("recurrence", ["dense", "diagonal", "orthogonal", "complex"])
@pytest.mark.parametrize("model", [ContinuousRNN, StateSpaceModel])
@pytest.mark.parametrize("d", [1, 3, 8])
def test_a_linear_model_has_the_memory_of_its_matrix_exponential_for_every_probe(model, recurrence, d, probe):
    model = _shift_bias(model(d, 6, 1, activation="linear", recurrence=recurrence, seed=1, dtype=DOUBLE))
    M = memory_function(model, T, probe=probe)
    torch.testing.assert_close(M.values, _linear_kernel(model, T).abs().sum((-1, -2)), rtol=0, atol=1e-8)


def test_a_stack_of_linear_layers_has_the_memory_of_its_block_triangular_matrix():
    model = ContinuousRNN(1, 3, 1, activation="linear", num_layers=2, seed=2, dtype=DOUBLE)
    first, second = (layer.effective() for layer in model.layers)
    zero = torch.zeros(3, 3, dtype=DOUBLE)
    W = torch.cat([torch.cat([first.W.W, zero], 1), torch.cat([second.U, second.W.W], 1)])
    U = torch.cat([first.U, torch.zeros(3, 1, dtype=DOUBLE)])
    c = torch.cat([torch.zeros(1, 3, dtype=DOUBLE), model.c], 1)
    expected = (c @ torch.linalg.matrix_exp(W * T[:, None, None]) @ U).abs().sum((-1, -2)).detach()
    for probe in PROBES:
        torch.testing.assert_close(memory_function(model, T, probe=probe).values, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("probe", PROBES)
def test_linear_maps_have_the_memory_of_their_powers(probe):
    steps = torch.arange(30, dtype=DOUBLE)
    model = DiscreteSSM(2, 4, 1, activation="linear", recurrence="diagonal", seed=1, dtype=DOUBLE)
    layer = model.layers[0].effective()
    powers = torch.stack([torch.linalg.matrix_power(layer.W.to_dense(), k) for k in range(30)])
    expected = (model.c @ powers @ layer.U).abs().sum((-1, -2)).detach()
    torch.testing.assert_close(memory_function(model, steps, probe=probe).values, expected, rtol=0, atol=1e-8)
    euler = DiscreteRNN(1, 4, 1, activation="linear", seed=1, dtype=DOUBLE)
    layer = euler.layers[0].effective()
    step = torch.eye(4, dtype=DOUBLE) + 0.1 * layer.W.to_dense()
    powers = torch.stack([torch.linalg.matrix_power(step, k) for k in range(30)])
    expected = (euler.c @ powers @ layer.U).abs().sum((-1, -2)).detach()
    torch.testing.assert_close(memory_function(euler, 0.1 * steps, probe=probe).values, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("d", [3, 14])
def test_vector_outputs_of_linear_systems_take_the_best_sign_vector(d):
    model = ContinuousRNN(d, 6, 2, activation="linear", seed=3, dtype=DOUBLE)
    times = torch.tensor([0.0, 1.0, 4.0], dtype=DOUBLE)
    R = _linear_kernel(model, times)
    corners = torch.tensor(list(itertools.product((1.0, -1.0), repeat=d)), dtype=DOUBLE)
    best = torch.linalg.vector_norm(R @ corners.mT, dim=-2).amax(-1)
    found = memory_function(model, times).values
    # d = 3 is exhaustive; beyond 12 channels an iteration finds a local maximum
    torch.testing.assert_close(found, best, rtol=1e-12 if d == 3 else 0.05, atol=0)
    assert (found <= best * (1 + 1e-12)).all()


def test_an_ensemble_is_answered_member_by_member():
    model = ContinuousRNN(2, 4, 1, activation="tanh", ensemble=(3,), seed=4, dtype=DOUBLE)
    times, signs = T[:21:5], torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    M = memory_function(model, times, directions=signs)
    assert M.values.shape == (3, 5)
    assert M.maximizer.shape == (3, 5, 2)
    alone = ContinuousRNN(2, 4, 1, activation="tanh", dtype=DOUBLE)
    with torch.no_grad():
        for own, theirs in zip(alone.parameters(), model.parameters()):
            own.copy_(theirs[1])
    torch.testing.assert_close(memory_function(alone, times, directions=signs).values, M[1].values, rtol=1e-6, atol=0)
    searched = memory_function(model, times, amplitudes=[1.0], ascent_steps=3)
    assert (searched.values >= memory_function(model, times, amplitudes=[1.0], ascent_steps=0).values).all()
    with pytest.raises(ValueError, match="ensemble of 3"):
        fit_decay(M)


# --- nonlinear models --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [ContinuousRNN, StateSpaceModel])
def test_the_rate_of_the_right_hand_side_is_the_central_difference_of_a_tight_solution(model):
    model = _shift_bias(model(1, 5, 1, activation="tanh", seed=6, dtype=DOUBLE))
    times = torch.linspace(0.5, 10, 20, dtype=DOUBLE)
    M = memory_function(model, times, amplitudes=[1.0])
    step = 1e-3
    grid = torch.cat([torch.zeros(1, dtype=DOUBLE), torch.cat([times - step, times + step]).sort().values])
    tight = TorchDiffEq("dopri5", rtol=1e-12, atol=1e-14, adjoint=False)
    rates = []
    for x in (1.0, -1.0):
        h = model.solve(heaviside(grid, torch.tensor([[x]], dtype=DOUBLE)), grid, solver=tight).h[0, 1:].detach()
        y = model.field().readout(h).detach()[:, 0]
        rates.append(((y[1::2] - y[0::2]) / (2 * step)).abs())
    torch.testing.assert_close(M.values, torch.maximum(*rates), rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "hardtanh"])
def test_a_model_with_a_bias_is_at_rest_before_the_step(activation):
    model = _shift_bias(ContinuousRNN(1, 5, 1, activation=activation, seed=6, dtype=DOUBLE), size=0.2)
    times = torch.linspace(-2, 5, 29, dtype=DOUBLE)
    M = memory_function(model, times)
    assert (M.values[times < 0] == 0).all()
    # at t = 0 the input has just jumped and the state has not moved: c^T sigma(U x), whatever b is
    U = model.layers[0].effective().U
    rates = [(model.c @ model.activation(U * x)).abs().item() / x for x in (0.1, 1.0)]
    assert float(M.values[times == 0]) == pytest.approx(max(rates), rel=1e-8)


def test_warmup_lets_a_system_without_a_rest_state_settle():
    model = ContinuousRNN(1, 4, 1, activation="relu", recurrence="diagonal", seed=1, dtype=DOUBLE)
    with torch.no_grad():
        model.layers[0].b.fill_(0.5)  # h runs from 0 up to -b / W and stays there
    cold, warm, warmer = (memory_function(model, T[:9], warmup=w, amplitudes=[1.0]).values for w in (0.0, 30.0, 60.0))
    torch.testing.assert_close(warm, warmer, rtol=1e-3, atol=1e-3)
    assert float((cold - warmer).abs().max()) > 5e-3


def test_small_inputs_of_a_tanh_model_see_the_kernel_of_its_linearisation_whatever_the_probe():
    model = ContinuousRNN(1, 6, 1, activation="tanh", seed=1, dtype=DOUBLE)
    expected = _linear_kernel(model, T).abs().sum((-1, -2))
    for probe in PROBES:
        M = memory_function(model, T, probe=probe, amplitudes=[1e-3])
        torch.testing.assert_close(M.values, expected, rtol=1e-4, atol=1e-6)


def test_the_search_over_directions_is_never_below_its_best_start_and_its_maximiser_attains_the_value():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(3, 3, generator=generator, dtype=DOUBLE)

    def narrow(x):
        """Responds to one direction inside a face of the cube, which no sign vector has."""
        along = x @ torch.tensor([1.0, 0.3, -0.5], dtype=DOUBLE)
        away = (x @ mix.mT).square().sum(-1) - along.square()
        y = along * torch.exp(-2 * away.clamp(min=0))
        return y.unsqueeze(-1) * 0.5 ** torch.arange(x.shape[1], dtype=DOUBLE).unsqueeze(-1)

    times = torch.arange(6, dtype=DOUBLE)
    starts = memory_function(narrow, times, input_size=3, amplitudes=[1.0], ascent_steps=0)
    climbed = memory_function(narrow, times, input_size=3, amplitudes=[1.0], ascent_steps=25)
    assert (climbed.values >= starts.values).all()
    assert float((climbed.values / starts.values).max()) > 1.2
    torch.testing.assert_close(climbed.maximizer.abs().amax(-1), torch.ones(6, dtype=DOUBLE))
    again = memory_function(narrow, times, input_size=3, amplitudes=[1.0], directions=climbed.maximizer)
    torch.testing.assert_close(again.values, climbed.values, rtol=1e-10, atol=0)


def test_a_system_without_gradients_is_searched_by_random_steps():
    def detached(x):
        return (x**3).sum(-1, keepdim=True).detach().cumsum(1)

    M = memory_function(detached, torch.arange(4.0, dtype=DOUBLE), input_size=2, amplitudes=[1.0], ascent_steps=3)
    torch.testing.assert_close(M.values, torch.full((4,), 2.0, dtype=DOUBLE))


def test_amplitudes_are_searched_and_the_answer_says_which_won():
    def saturating(x):
        return torch.tanh(x).cumsum(1)

    M = memory_function(saturating, torch.arange(3.0, dtype=DOUBLE), amplitudes=[0.01, 5.0])
    torch.testing.assert_close(M.values, torch.full((3,), float(np.tanh(0.01) / 0.01), dtype=DOUBLE))
    torch.testing.assert_close(M.maximizer.abs(), torch.full((3, 1), 0.01, dtype=DOUBLE))


# --- torch modules and callables ---------------------------------------------------------------------------


@pytest.mark.parametrize("probe", ["heaviside", "impulse"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_a_torch_module_has_the_memory_of_its_outputs(kind, batch_first, probe):
    module = getattr(torch.nn, kind)(2, 7, 2, batch_first=batch_first, dropout=0.5, dtype=DOUBLE)
    x = torch.tensor([1.0, -1.0], dtype=DOUBLE)
    M = memory_function(module, torch.arange(12), probe=probe, amplitudes=[1.0], directions=x.unsqueeze(0))
    assert module.training  # evaluated without dropout, left as it was
    module.eval()
    on = torch.ones(12, 1, dtype=DOUBLE)
    if probe == "impulse":
        on[1:] = 0
    drive = torch.stack([on * x, 0 * on * x], 0 if batch_first else 1)
    y = module(drive)[0] if batch_first else module(drive)[0].transpose(0, 1)
    y = (y[0] - y[1]).detach()
    expected = y if probe == "impulse" else torch.cat([y[:1], y.diff(dim=0)])
    torch.testing.assert_close(M.values, torch.linalg.vector_norm(expected, dim=-1), rtol=1e-10, atol=1e-14)


def test_memory_is_a_rate_so_that_a_finer_sample_time_only_rescales_it():
    module = torch.nn.GRU(1, 5, dtype=DOUBLE)
    unit = memory_function(module, torch.arange(10.0))
    tenth = memory_function(module, 0.1 * torch.arange(10.0))
    torch.testing.assert_close(tenth.values, 10 * unit.values, rtol=1e-5, atol=0)
    spaced = memory_function(module, torch.tensor([0.0, 1.0, 4.0, 9.0]), dt=1.0)
    torch.testing.assert_close(spaced.values, unit.values[[0, 1, 4, 9]])


def test_warmup_of_a_module_runs_it_without_input_first():
    module = torch.nn.LSTM(1, 6, batch_first=True, dtype=DOUBLE)
    M = memory_function(module, torch.arange(8), warmup=50, amplitudes=[1.0], directions=torch.ones(1, 1))
    x = torch.zeros(2, 58, 1, dtype=DOUBLE)
    x[0, 50:] = 1
    D = (module(x)[0][0] - module(x)[0][1]).detach()
    torch.testing.assert_close(M.values, torch.linalg.vector_norm(D[50:] - D[49:-1], dim=-1))


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_transformer_is_given_its_causal_mask(batch_first):
    layer = torch.nn.TransformerEncoderLayer(4, 1, 8, batch_first=batch_first, dtype=DOUBLE)
    # without positions it tells a step from a constant only by what came before
    M = memory_function(layer, torch.arange(6), amplitudes=[1.0], ascent_steps=2, warmup=5)
    assert M.maximizer.shape == (6, 4)
    assert (M.values > 0).all()

    def unmasked(x):
        return layer(x) if batch_first else layer(x.transpose(0, 1)).transpose(0, 1)

    layer.eval()
    with pytest.raises(ValueError, match="not causal"):
        memory_function(unmasked, torch.arange(6), input_size=4)


def test_a_teacher_has_the_memory_of_its_module():
    model = ContinuousRNN(1, 4, 1, seed=1, dtype=DOUBLE)
    teacher = TeacherFunctional(model, pass_times=True)
    torch.testing.assert_close(memory_function(teacher, T[:5]).values, memory_function(model, T[:5]).values)
    module = torch.nn.GRU(1, 4, batch_first=True, dtype=DOUBLE)
    steps = torch.arange(10.0, dtype=DOUBLE)
    torch.testing.assert_close(memory_function(TeacherFunctional(module), steps).values, memory_function(module, steps).values)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["RNN", "LSTM"])
@pytest.mark.parametrize("probe", PROBES)
def test_the_floor_lies_above_the_plateau_of_rounding_but_not_far_above(kind, dtype, probe):
    module = getattr(torch.nn, kind)(1, 64, batch_first=True, dtype=dtype)
    M = memory_function(module, torch.arange(150, dtype=dtype), probe=probe, amplitudes=[1.0], warmup=60)
    plateau = float(M.values[100:].max())
    assert plateau <= float(M.floor)
    # some 55 usable steps in double and 16 in single precision, by the prototypes of this project
    assert int(M.above_floor.sum()) >= (55 if dtype == torch.float64 else 16)
    assert float(M.floor) < 100 * torch.finfo(dtype).eps


def test_a_float32_model_is_asked_in_float32():
    M = memory_function(ContinuousRNN(1, 4, 1, seed=1, dtype=torch.float32), torch.linspace(0, 5, 6))
    assert M.values.dtype == torch.float32
    double = memory_function(ContinuousRNN(1, 4, 1, seed=1, dtype=DOUBLE), torch.linspace(0, 5, 6))
    torch.testing.assert_close(M.values, double.values.float(), rtol=0, atol=1e-4)
    assert 1e-8 < float(M.floor) < 1e-3


# --- what the networks of [IA] Fig 10 do -------------------------------------------------------------------


def test_random_recurrent_networks_forget_exponentially_and_alike_under_both_probes():
    """[IA] Fig 10 at small inputs; the full measurement has 20 seeds and 1 to 4 layers."""
    times = torch.arange(120, dtype=DOUBLE)
    mismatch = []
    for kind, layers, seed in itertools.product(("RNN", "GRU", "LSTM"), (1, 3), range(4)):
        torch.manual_seed(seed)
        module = getattr(torch.nn, kind)(1, 64, layers, batch_first=True, dtype=DOUBLE)
        fits = [
            fit_decay(memory_function(module, times, probe=probe, amplitudes=[0.1], warmup=100))
            for probe in ("heaviside", "impulse")
        ]
        assert all(fit.ends_exponentially for fit in fits), (kind, layers, seed)
        one, other = (fit.rate for fit in fits)
        mismatch.append(abs(one - other) / max(one, other))
    assert np.median(mismatch) <= 0.10


def test_the_two_probes_part_at_large_inputs():
    times = torch.arange(120, dtype=DOUBLE)
    module = torch.nn.RNN(1, 64, batch_first=True, dtype=DOUBLE)
    rates = {}
    for amplitude, probe in itertools.product((0.1, 10.0), ("heaviside", "impulse")):
        M = memory_function(module, times, probe=probe, amplitudes=[amplitude], warmup=100)
        rates[amplitude, probe] = fit_decay(M).rate
    assert rates[0.1, "heaviside"] == pytest.approx(rates[0.1, "impulse"], rel=0.02)
    assert rates[10.0, "heaviside"] > 1.2 * rates[10.0, "impulse"]


def test_a_tanh_network_on_its_periodic_orbit_does_not_forget():
    """[IA] Fig 11b: v = dh/dt of W = [[1, 1], [-4, -3]] has the attractor 0 and an (unstable) periodic orbit round it."""
    model = ContinuousRNN(1, 2, 2, activation="tanh", bias=False, dtype=DOUBLE)
    model.set_matrix(torch.tensor([[1.0, 1.0], [-4.0, -3.0]]))
    # Where the orbit crosses v_1 = 0: u = W h + U x = (0, 5.375...), by integrating backwards in time, where the orbit attracts
    # (SciPy's DOP853 at rtol 1e-11; period 26.3207).
    on_the_orbit = torch.tensor([[0.0], [5.375279730]], dtype=DOUBLE)
    times = torch.linspace(0, 100, 401, dtype=DOUBLE)
    fits = {}
    for scale in (0.8, 1.0):
        with torch.no_grad():
            model.layers[0].U.copy_(scale * on_the_orbit)
            model.c.copy_(torch.eye(2, dtype=DOUBLE))
        fits[scale] = fit_decay(memory_function(model, times, amplitudes=[1.0]))
    assert fits[1.0].law == "none", fits[1.0].describe()
    assert fits[0.8].law == "exponential"
    assert fits[0.8].rate == pytest.approx(1.0, rel=0.1)


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "options", "message"),
    [
        (torch.nn.LSTM(1, 3, bidirectional=True), {}, "bidirectional LSTM is not causal"),
        (lambda x: x.flip(1), {}, "not causal"),
        (lambda x: x[:, -1], {}, "expected .batch, time, channel."),
        (lambda x: "no", {}, "returned a str"),
        (torch.nn.Linear(3, 1), {}, "input_size"),
        (torch.nn.LSTM(2, 3), {"input_size": 3}, "input_size is 3"),
        (3, {}, "a int has no memory function"),
        (torch.nn.GRU(1, 2), {"probe": "dirac"}, "unknown probe 'dirac'"),
        (torch.nn.GRU(1, 2), {"amplitudes": [0.0]}, "amplitudes must be positive"),
        (torch.nn.GRU(1, 2), {"amplitudes": []}, "amplitudes must be positive"),
        (torch.nn.GRU(1, 2), {"warmup": -1.0}, "warmup"),
        (torch.nn.GRU(1, 2), {"hold": 0.0}, "hold"),
        (torch.nn.GRU(1, 2), {"directions": torch.zeros(1, 1)}, "not 0"),
        (torch.nn.GRU(1, 2), {"directions": torch.ones(1, 2)}, "must be .n, 1."),
        (torch.nn.GRU(1, 2), {"solver": TorchDiffEq()}, "solver is for the continuous models"),
        (torch.nn.GRU(1, 2), {"dt": 0.3}, "multiples of its sample time"),
        (torch.nn.GRU(1, 2), {"times": torch.tensor([0.0, 0.0])}, "increasing"),
        (torch.nn.GRU(1, 2), {"times": torch.tensor([-2.0, -1.0])}, "before 0"),
    ],
)
def test_bad_input_is_refused_with_the_reason(system, options, message):
    options = {"times": torch.arange(5.0)} | options
    with pytest.raises(ValueError, match=message):
        memory_function(system, options.pop("times"), **options)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 2.0), st.floats(0.1, 3.0))
def test_the_memory_of_a_scaled_functional_is_the_scaled_memory(rate, factor):
    rho = kernels.from_callable(lambda t: factor * np.exp(-rate * t))
    values = memory_function(ConvolutionalFunctional(rho), T).values
    torch.testing.assert_close(values, factor * torch.exp(-rate * T), rtol=1e-12, atol=0)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_times_far_from_zero_are_not_rounded_to_the_precision_of_the_model(offset):
    model = ContinuousRNN(1, 3, 1, "tanh", "diagonal", seed=0, dtype=torch.float64)
    model.set_matrix(torch.diag(torch.tensor([-1e-6, -1e-5, -2e-6], dtype=torch.float64)))
    late = offset + torch.linspace(0, 0.01, 11, dtype=torch.float64)
    t = torch.cat([torch.zeros(1, dtype=torch.float64), late]) if offset else late
    # in single precision times near 1e5 lie 0.008 apart: neighbours would be one
    single = memory_function(copy.deepcopy(model).float(), t)
    assert torch.equal(single.times, t)
    torch.testing.assert_close(single.values.double(), memory_function(model, t).values, rtol=1e-5, atol=0)


@pytest.mark.parametrize("make", [torch.arange, lambda n: list(range(n)), np.arange])
def test_times_in_whole_numbers_lists_and_arrays_mean_the_same(make):
    for system in (ContinuousRNN(1, 2, 1, seed=0, dtype=torch.float64), torch.nn.LSTM(1, 2), lambda x: x.cumsum(1)):
        expected = memory_function(system, torch.arange(6, dtype=torch.float64))
        torch.testing.assert_close(memory_function(system, make(6)).values, expected.values)


def test_lists_of_times_keep_double_precision():
    assert memory_function(lambda x: x.cumsum(1), [0.0, 0.1, 0.2]).times.dtype == torch.float64


def test_a_linear_system_that_overflows_has_an_infinite_memory_and_never_nan():
    model = ContinuousRNN(1, 2, 1, "linear", seed=0, dtype=torch.float64)
    model.set_matrix(10 * torch.eye(2, dtype=torch.float64))
    values = memory_function(model, torch.linspace(0, 200, 5, dtype=torch.float64)).values
    assert not values.isnan().any()
    assert values[-1] == torch.inf


@pytest.mark.parametrize(
    ("system", "message"),
    [
        (lambda x: x.cumsum(1) * torch.nan, "NaN or infinite outputs"),
        (lambda x: x.cumsum(1).exp() * torch.inf, "NaN or infinite outputs"),
        (lambda x: (x > 0).long(), "int64 values"),
        (lambda x: x.cumsum(1) + 1j, "complex128 values"),
        (torch.nn.LSTM, "the class LSTM"),
    ],
)
def test_systems_without_finite_real_outputs_are_named(system, message):
    with pytest.raises(ValueError, match=message):
        memory_function(system, torch.arange(5, dtype=torch.float64))


def test_an_output_in_half_precision_has_the_floor_of_half_precision():
    M = memory_function(lambda x: x.cumsum(1).half(), torch.arange(5, dtype=torch.float64))
    assert M.floor > 1e-3


def test_a_module_with_dropout_that_a_function_hides_is_told_how_to_help_itself():
    module = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)).train()
    with pytest.raises(ValueError, match=r"call \.eval\(\)"):
        memory_function(lambda x: module(x), torch.arange(5, dtype=torch.float32))
    assert memory_function(module, torch.arange(5, dtype=torch.float32)).values.isfinite().all()
    assert module.training


@pytest.mark.parametrize("options", [{"warmup": 1e30}, {"probe": "reversed", "hold": 1e30}])
def test_more_samples_than_any_memory_holds_are_refused(options):
    with pytest.raises(ValueError, match="samples of dt"):
        memory_function(torch.nn.GRU(1, 2), torch.arange(5, dtype=torch.float32), **options)


@pytest.mark.parametrize("index", [None, 1.5, "a", [1], True, (0, 0), 7])
def test_members_that_are_not_there_are_refused(index):
    M = memory_function(ContinuousRNN(1, 2, 1, "linear", ensemble=(2,), seed=0, dtype=torch.float64), torch.arange(5.0))
    with pytest.raises((ValueError, IndexError), match="member"):
        M[index]


def test_a_value_error_of_the_users_own_system_is_said_to_be_of_it():
    def system(x):
        raise ValueError("my own words")

    with pytest.raises(ValueError, match=r"system failed on an input .*ValueError: my own words"):
        memory_function(system, torch.arange(20.0))


def test_times_of_a_clock_are_refused():
    model = ContinuousRNN(1, 3, 1, seed=0, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"begin at 1\.7e\+09 and span 10: .* give times - times"):
        memory_function(model, 1.7e9 + torch.linspace(0, 10, 101, dtype=torch.float64))
