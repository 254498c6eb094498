"""Linear memory capacity against its closed forms for linear reservoirs."""

from __future__ import annotations

import pytest
import torch

from analysis.capacity import memory_capacity
from odernn import ContinuousRNN, DiscreteSSM, StateSpaceModel
from odernn.paths import hold

DOUBLE = torch.float64


def _closed_form(A, B, count):
    """MC_k = (A^k B)^T C^-1 A^k B, C = sum_k A^k B B^T A^kT, for h_{n+1} = A h_n + B u_n with unit-variance u."""
    powers = [B]
    for _ in range(4000):
        powers.append(A @ powers[-1])
    C = sum(p @ p.T for p in powers)
    return torch.stack([(p.T @ torch.linalg.solve(C, p)).squeeze() for p in powers[:count]])


def _reservoir(size, seed=0):
    model = DiscreteSSM(1, size, 1, activation="linear", recurrence="diagonal", seed=seed, dtype=DOUBLE)
    layer = model.layers[0].effective()
    return model, layer.W.to_dense().detach(), layer.U.detach()


def test_every_delay_of_a_linear_reservoir_has_its_closed_form():
    model, A, B = _reservoir(4)
    capacity = memory_capacity(model, torch.arange(25))
    torch.testing.assert_close(capacity.values, _closed_form(A, B, 25), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "model",
    [
        DiscreteSSM(1, 5, 1, activation="linear", recurrence="diagonal", seed=2, dtype=DOUBLE),
        StateSpaceModel(1, 6, 1, activation="tanh", recurrence="complex", seed=2, dtype=DOUBLE),
        ContinuousRNN(1, 5, 1, activation="linear", seed=2, dtype=DOUBLE),
    ],
    ids=["discrete", "continuous complex", "continuous dense"],
)
def test_the_capacity_of_a_linear_state_is_its_dimension(model):
    capacity = memory_capacity(model, torch.arange(80))
    assert capacity.rank == model.hidden_size
    assert capacity.total == pytest.approx(model.hidden_size, abs=1e-3)


def test_a_delay_line_remembers_each_of_its_inputs_and_no_more():
    def delay_line(u):
        return torch.cat([torch.nn.functional.pad(u, (0, 0, k, 0))[:, : u.shape[1]] for k in range(3)], -1)

    capacity = memory_capacity(delay_line, torch.arange(6.0, dtype=DOUBLE))
    torch.testing.assert_close(capacity.values, torch.tensor([1, 1, 1, 0, 0, 0], dtype=DOUBLE), rtol=0, atol=1e-9)


def test_a_saturating_network_remembers_less_at_large_inputs_and_never_more_than_its_rank():
    module = torch.nn.RNN(1, 8, batch_first=True, dtype=DOUBLE)
    totals = [memory_capacity(module, torch.arange(30), amplitude=a).total for a in (0.01, 10.0)]
    assert totals[1] < 0.8 * totals[0]
    assert totals[0] <= 8.05


def test_nothing_is_remembered_of_inputs_that_leave_no_trace():
    noise = torch.randn(1, 100_000, 2, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)

    def deaf(u):
        return noise[:, : u.shape[1]].expand(u.shape[0], -1, -1) + 0 * u

    with torch.no_grad():
        capacity = memory_capacity(deaf, torch.arange(20))
    # the same noise in all sequences counts once, so chance is 16 times what independent states would show
    assert abs(capacity.total) < 0.5


def test_the_held_input_of_a_continuous_model_is_what_the_reservoir_sees():
    model = ContinuousRNN(1, 3, 1, activation="linear", seed=1, dtype=DOUBLE)
    t = 0.5 * torch.arange(3, dtype=DOUBLE)
    h = [model.solve(hold(t, torch.eye(3, dtype=DOUBLE)[k].reshape(1, 3, 1)), t).h[0, -1].detach() for k in range(2)]
    W = model.layers[0].effective().W.W.detach()
    A = torch.linalg.matrix_exp(0.5 * W)
    torch.testing.assert_close(h[0], A @ h[1])  # an input one step older
    capacity = memory_capacity(model, 0.5 * torch.arange(20, dtype=DOUBLE))
    torch.testing.assert_close(capacity.values, _closed_form(A, h[1].unsqueeze(-1), 20), rtol=0, atol=0.02)


def test_the_warmup_is_left_out():
    def late(u):  # shows its input after 100 samples
        return u * (torch.arange(u.shape[1]) >= 100).unsqueeze(-1)

    steps = torch.arange(3, dtype=DOUBLE)
    assert float(memory_capacity(late, steps, warmup=100).values[0]) == pytest.approx(1.0)
    assert float(memory_capacity(late, steps).values[0]) < 0.9


def test_the_capacity_of_every_channel_is_summed():
    values = memory_capacity(lambda u: u, torch.arange(3), input_size=3).values
    torch.testing.assert_close(values, torch.tensor([3.0, 0.0, 0.0], dtype=DOUBLE), rtol=0, atol=1e-9)


def test_delays_may_be_any_multiples_of_the_time_of_one_input():
    model = ContinuousRNN(1, 3, 1, seed=1, dtype=DOUBLE)
    every = memory_capacity(model, 0.5 * torch.arange(9, dtype=DOUBLE))
    some = memory_capacity(model, torch.tensor([0.0, 1.5, 4.0], dtype=DOUBLE), dt=0.5)
    torch.testing.assert_close(some.values, every.values[[0, 3, 8]])
    assert some.total == pytest.approx(every.total)


def test_the_seed_decides_the_inputs_and_little_else():
    model = _reservoir(3)[0]
    first, again, other = (memory_capacity(model, torch.arange(5), seed=seed).values for seed in (0, 0, 1))
    torch.testing.assert_close(first, again)
    assert not torch.allclose(first, other, rtol=0, atol=1e-9)
    torch.testing.assert_close(first, other, rtol=0, atol=0.03)


def test_outputs_in_half_precision_are_regressed_on_in_that_of_the_inputs():
    capacity = memory_capacity(lambda u: u.half(), torch.arange(3, dtype=DOUBLE))
    assert float(capacity.values[0]) == pytest.approx(1.0, abs=1e-3)


def test_bad_input_is_refused_with_the_reason():
    model = _reservoir(2)[0]
    with pytest.raises(ValueError, match="too few"):
        memory_capacity(model, torch.arange(50), samples=60)
    with pytest.raises(ValueError, match="delays >= 0"):
        memory_capacity(model, torch.tensor([-1.0, 1.0]))
    with pytest.raises(ValueError, match="amplitude"):
        memory_capacity(model, torch.arange(3), amplitude=0)
    with pytest.raises(ValueError, match="ensemble"):
        memory_capacity(DiscreteSSM(1, 2, 1, ensemble=(2,), recurrence="diagonal"), torch.arange(3))


@pytest.mark.parametrize(
    "options", [{"warmup": -1}, {"samples": 2.5}, {"amplitude": "a"}, {"seed": None}, {"warmup": 1e30}, {"dt": 0}]
)
def test_bad_settings_are_named(options):
    (name,) = options
    with pytest.raises(ValueError, match=name):
        memory_capacity(ContinuousRNN(1, 2, 1, seed=0, dtype=torch.float64), torch.arange(4.0), **options)


def test_states_that_overflow_are_refused():
    model = ContinuousRNN(1, 2, 1, "linear", "diagonal", seed=0, dtype=torch.float64)
    model.set_matrix(torch.diag(torch.tensor([50.0, 60.0], dtype=torch.float64)))
    with pytest.raises((ValueError, ArithmeticError), match=r"not finite|diverged"):
        memory_capacity(model, torch.arange(4.0))


@pytest.mark.parametrize("dt", [1e4, 1e30])
def test_times_that_fall_on_one_sample_are_refused(dt):
    with pytest.raises(ValueError, match="closer together than a sample of dt"):
        memory_capacity(ContinuousRNN(1, 2, 1, seed=0, dtype=torch.float64), torch.arange(4.0), dt=dt)
