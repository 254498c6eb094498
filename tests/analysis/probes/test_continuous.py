"""Probes of continuous models against matrix exponentials and difference quotients of independently solved trajectories."""

from __future__ import annotations

import copy

import pytest
import torch
from problems import linear_kernel, perturb_bias

from analysis.decay import fit_decay
from analysis.memory import memory_function
from analysis.probes import PROBES
from odernn import ContinuousRNN, StateSpaceModel, TorchDiffEq
from odernn.paths import heaviside

DOUBLE = torch.float64
T = torch.linspace(0, 20, 81, dtype=DOUBLE)


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("recurrence", ["dense", "diagonal", "symmetric", "complex"])
@pytest.mark.parametrize("model", [ContinuousRNN, StateSpaceModel])
@pytest.mark.parametrize("d", [1, 3, 8])
def test_a_linear_model_has_the_memory_of_its_matrix_exponential_for_every_probe(model, recurrence, d, probe):
    model = perturb_bias(model(d, 6, 1, activation="linear", recurrence=recurrence, seed=1, dtype=DOUBLE), 0.7)
    M = memory_function(model, T, probe=probe)
    torch.testing.assert_close(M.values, linear_kernel(model, T).abs().sum((-1, -2)), rtol=0, atol=1e-8)


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


def test_an_ensemble_responds_member_by_member():
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


@pytest.mark.parametrize("model", [ContinuousRNN, StateSpaceModel])
def test_the_rate_of_the_right_hand_side_is_the_central_difference_of_a_tight_solution(model):
    model = perturb_bias(model(1, 5, 1, activation="tanh", seed=6, dtype=DOUBLE), 0.7)
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
    model = perturb_bias(ContinuousRNN(1, 5, 1, activation=activation, seed=6, dtype=DOUBLE), 0.2)
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
    expected = linear_kernel(model, T).abs().sum((-1, -2))
    for probe in PROBES:
        M = memory_function(model, T, probe=probe, amplitudes=[1e-3])
        torch.testing.assert_close(M.values, expected, rtol=1e-4, atol=1e-6)


def test_a_float32_model_is_probed_in_float32():
    M = memory_function(ContinuousRNN(1, 4, 1, seed=1, dtype=torch.float32), torch.linspace(0, 5, 6))
    assert M.values.dtype == torch.float32
    double = memory_function(ContinuousRNN(1, 4, 1, seed=1, dtype=DOUBLE), torch.linspace(0, 5, 6))
    torch.testing.assert_close(M.values, double.values.float(), rtol=0, atol=1e-4)
    assert 1e-8 < float(M.floor) < 1e-3


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


def test_a_linear_system_that_overflows_has_an_infinite_memory_and_never_nan():
    model = ContinuousRNN(1, 2, 1, "linear", seed=0, dtype=torch.float64)
    model.set_matrix(10 * torch.eye(2, dtype=torch.float64))
    values = memory_function(model, torch.linspace(0, 200, 5, dtype=torch.float64)).values
    assert not values.isnan().any()
    assert values[-1] == torch.inf
