from __future__ import annotations

import pytest
import torch
from problems import F64, perturb_bias
from solves import RECURRENCES, assert_close, problem, relative, states_and_gradients

from odernn import ContinuousRNN, Exact, StateSpaceModel, paths


@pytest.mark.parametrize("even", [True, False], ids=["even", "uneven"])
@pytest.mark.parametrize("interpolation", ["linear", "hold", "jumps"])
@pytest.mark.parametrize("recurrence", RECURRENCES, ids=lambda pair: pair[0])
def test_the_scan_is_the_step_by_step_recurrence(recurrence, interpolation, even):
    for ensemble in ((), (2,)):
        model = perturb_bias(StateSpaceModel(2, 6, 1, "tanh", *recurrence, ensemble=ensemble, dtype=F64))
        arguments = problem(model, batch=11, times=40, even=even, interpolation=interpolation)
        expected = states_and_gradients(model, Exact(backend="torch"), *arguments)
        assert_close(states_and_gradients(model, Exact(backend="numba"), *arguments), expected)


@pytest.mark.parametrize("recurrence", RECURRENCES, ids=lambda pair: pair[0])
def test_single_precision_is_double_precision_rounded(recurrence):
    model = perturb_bias(ContinuousRNN(2, 18, 1, "linear", *recurrence, dtype=F64))
    expected = states_and_gradients(model, Exact(backend="torch"), *problem(model, even=True))
    single = [a.float() if isinstance(a, torch.Tensor) else a for a in problem(model, even=True)]
    assert_close(states_and_gradients(model.float(), Exact(backend="numba"), *single), expected, 3e-6, 3e-5)


@pytest.mark.parametrize("recurrence", [("diagonal", "exp"), ("complex", "exp"), ("dense", "direct")], ids=lambda pair: pair[0])
def test_a_hundred_thousand_samples_are_routine(recurrence):
    model = StateSpaceModel(1, 4, 1, "tanh", *recurrence, dtype=F64)
    t = torch.linspace(0, 1e4, 100_001, dtype=F64)
    x = torch.randn(1, t.numel(), 1, dtype=F64)
    y = model(x, t, solver=Exact())
    y.square().mean().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())
    # The state forgets: the end of the path alone, from any state, leads to the same end.
    tail = model(x[:, -2001:], t[-2001:], "zero", solver=Exact(backend="torch"))
    assert relative(tail[:, -1], y[:, -1]) < 1e-9


def test_a_growing_state_comes_out_as_infinite():
    model = StateSpaceModel(1, 4, 1, dtype=F64)
    model.set_matrix(torch.eye(4, dtype=F64))
    t = torch.linspace(0, 2000, 101, dtype=F64)
    h = model.solve(paths.linear(t, torch.ones(2, 101, 1, dtype=F64)), t, "zero", solver=Exact(), check=False).h
    assert not torch.isfinite(h[:, -1]).any()


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="unknown backend 'jax', expected one of auto, numba, torch"):
        Exact(backend="jax")
    model = StateSpaceModel(1, 4, 1, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"got torch\.float16"):
        model.solve(
            paths.linear(torch.arange(3).half(), torch.zeros(1, 3, 1).half()),
            torch.arange(3).half(),
            torch.zeros(1, 4).half(),
            solver=Exact(backend="numba"),
        )
