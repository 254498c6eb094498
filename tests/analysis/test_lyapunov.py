"""Lyapunov exponents against eigenvalues of linear systems and the growth of a small perturbation."""

from __future__ import annotations

import math

import pytest
import torch

from analysis.lyapunov import lyapunov_exponents
from odernn import ContinuousRNN, DiscreteSSM, TorchDiffEq
from odernn.paths import linear

DOUBLE = torch.float64


def _descending(values):
    return values.detach().sort(descending=True).values


@pytest.mark.slow
@pytest.mark.parametrize("recurrence", ["diagonal", "complex", "dense"])
def test_the_exponents_of_a_linear_flow_are_the_real_parts_of_its_eigenvalues_whatever_drives_it(recurrence):
    model = ContinuousRNN(1, 4, 1, activation="linear", recurrence=recurrence, seed=2, dtype=DOUBLE)
    times = torch.arange(0, 60, dtype=DOUBLE)
    drive = torch.randn(60, 1, dtype=DOUBLE)
    found = lyapunov_exponents(model, times, x=drive, transient=0.5)
    torch.testing.assert_close(found.exponents, _descending(model.spectrum().real), rtol=0, atol=5e-3)
    assert found.running.shape == (30, 4)
    assert (found.stderr < 0.01).all()


def test_the_exponents_of_a_linear_map_are_the_logarithms_of_its_eigenvalues_per_time():
    model = DiscreteSSM(1, 4, 1, activation="linear", recurrence="diagonal", seed=2, dtype=DOUBLE)
    found = lyapunov_exponents(model, 0.5 * torch.arange(400, dtype=DOUBLE), count=2, transient=0.5)
    expected = _descending(model.spectrum().abs().log() / 0.5)[:2]
    torch.testing.assert_close(found.exponents, expected, rtol=0, atol=1e-3)


def test_the_leading_exponent_of_a_driven_tanh_network_is_the_growth_of_a_small_perturbation():
    model = ContinuousRNN(1, 5, 1, activation="tanh", seed=3, dtype=DOUBLE)
    times = torch.linspace(0, 30, 61, dtype=DOUBLE)
    x = torch.sin(times).unsqueeze(-1)
    found = lyapunov_exponents(model, times, x=x, count=1, transient=0.25)
    tight = TorchDiffEq("dopri5", rtol=1e-11, atol=1e-14, adjoint=False)
    h0 = torch.zeros(2, 5, dtype=DOUBLE)
    h0[1] += 1e-3 * torch.randn(5, dtype=DOUBLE)
    with torch.no_grad():
        h = model.solve(linear(times, x.unsqueeze(0).expand(2, -1, -1)), times, h0, solver=tight).h
    distance = torch.linalg.vector_norm(h[1] - h[0], dim=-1)
    growth = math.log(distance[-1] / distance[15]) / float(times[-1] - times[15])
    assert float(found.exponents[0]) == pytest.approx(growth, rel=0.03)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_the_jacobian_of_a_torch_module_is_that_of_its_step(kind, batch_first):
    module = getattr(torch.nn, kind)(2, 3, 2, batch_first=batch_first, dtype=DOUBLE)
    found = lyapunov_exponents(module, torch.arange(300), count=1, transient=0.5)
    # independently: how two nearby states of the module approach each other without input
    shape = (2, 2, 3)
    state = [torch.zeros(shape, dtype=DOUBLE) for _ in range(2 if kind == "LSTM" else 1)]
    silence = torch.zeros(2, 1, 2, dtype=DOUBLE) if batch_first else torch.zeros(1, 2, 2, dtype=DOUBLE)
    with torch.no_grad():
        for _ in range(300):  # come to rest first, or the distance is lost in rounding before
            state = module(silence, tuple(state) if kind == "LSTM" else state[0])[1]
            state = list(state) if kind == "LSTM" else [state]
        for part in state:
            part[:, 1] += 1e-3 * torch.randn(2, 3, dtype=DOUBLE)
        distances = []
        for _ in range(24):
            state = module(silence, tuple(state) if kind == "LSTM" else state[0])[1]
            state = list(state) if kind == "LSTM" else [state]
            distances.append(torch.cat([(part[:, 1] - part[:, 0]).flatten() for part in state]).norm())
    growth = math.log(distances[-1] / distances[3]) / 20
    # 20 steps of a rotation with the phase left over
    assert float(found.exponents[0]) == pytest.approx(growth, rel=0.15)


def test_a_held_input_is_that_of_a_staircase():
    model = ContinuousRNN(1, 3, 1, seed=3, dtype=DOUBLE)
    t, fine = (torch.linspace(0, 20, n, dtype=DOUBLE) for n in (21, 201))
    x = 3 * torch.sin(2 * t).unsqueeze(-1)
    options = {"count": 1, "transient": 0.2}
    held, linear_ = (lyapunov_exponents(model, t, x=x, interpolation=kind, **options).exponents for kind in ("hold", "linear"))
    staircase = lyapunov_exponents(model, fine, x=x[torch.arange(201) // 10], interpolation="hold", **options).exponents
    torch.testing.assert_close(held, staircase, rtol=0, atol=1e-5)
    assert float((held - linear_).abs()) > 1e-3


def test_the_seed_decides_the_first_tangent_vectors_which_are_forgotten():
    model = DiscreteSSM(1, 3, 1, activation="linear", recurrence="diagonal", seed=2, dtype=DOUBLE)
    first, again, other = (lyapunov_exponents(model, torch.arange(600), transient=0.5, seed=seed).exponents for seed in (0, 0, 1))
    assert torch.equal(first, again)
    torch.testing.assert_close(first, other, rtol=0, atol=1e-3)


def test_a_vector_field_of_ones_own_is_a_flow():
    A = torch.tensor([[-1.0, 5.0], [0.0, -2.0]], dtype=DOUBLE)
    found = lyapunov_exponents(lambda h: h @ A.T, torch.arange(0, 40, dtype=DOUBLE), size=2, transient=0.5)
    torch.testing.assert_close(found.exponents, torch.tensor([-1.0, -2.0], dtype=DOUBLE), rtol=0, atol=1e-4)


def test_bad_input_is_refused_with_the_reason():
    model = ContinuousRNN(1, 2, 1, dtype=DOUBLE)
    with pytest.raises(ValueError, match="at least 2 times"):
        lyapunov_exponents(model, torch.tensor([1.0]))
    with pytest.raises(ValueError, match="count is 3"):
        lyapunov_exponents(model, torch.arange(3), count=3)
    with pytest.raises(ValueError, match="x must be"):
        lyapunov_exponents(model, torch.arange(3), x=torch.zeros(3, 2))
    with pytest.raises(ValueError, match="h0 must be"):
        lyapunov_exponents(model, torch.arange(3), h0=torch.zeros(3))
    with pytest.raises(ValueError, match="transient"):
        lyapunov_exponents(model, torch.arange(3), transient=1.0)
    with pytest.raises(ValueError, match="evenly spaced"):
        lyapunov_exponents(torch.nn.GRU(1, 2), torch.tensor([0.0, 1.0, 3.0]))
    with pytest.raises(ValueError, match="no state equation"):
        lyapunov_exponents(lambda h: h, torch.arange(3))
    with pytest.raises(ArithmeticError, match="not finite"):
        lyapunov_exponents(lambda h: h**3, torch.arange(3), size=1, h0=torch.full((1,), 1e200, dtype=DOUBLE))


def test_times_far_from_zero_are_not_rounded_to_the_precision_of_the_model():
    model = ContinuousRNN(1, 3, 1, seed=0, dtype=DOUBLE)
    t = torch.linspace(0, 20, 201, dtype=DOUBLE)
    x = torch.sin(t).unsqueeze(-1)
    expected = lyapunov_exponents(model, t, x=x).exponents
    found = lyapunov_exponents(model.float(), 1e6 + t, x=x).exponents
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)
