from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from problems import F64, perturb_bias

from odernn import Activation, Adaptive, ContinuousRNN, DivergedSolve, Exact, Fused, StateSpaceModel, TorchDiffEq, paths
from odernn.solvers import automatic, choice, choose_solver, deviation

T = torch.linspace(0, 4, 9, dtype=F64)
PATH = paths.linear(T, 2 * torch.randn(3, 9, 1, dtype=F64, generator=torch.Generator().manual_seed(0)))


def trial(model):
    return perturb_bias(model).field(), PATH, T, torch.zeros(3, model.num_layers * 4, dtype=F64)


def test_linear_state_equations_are_solved_exactly():
    for model in (StateSpaceModel(1, 4, 1, "tanh", dtype=F64), ContinuousRNN(1, 4, 1, "linear", dtype=F64)):
        assert automatic(model.field()) == Exact()
        assert choose_solver(*trial(model)) == Exact()


def test_nonlinear_ones_are_solved_by_compiled_adaptive_steps_where_there_are_any(monkeypatch, caplog):
    monkeypatch.setattr(choice, "_said", [])
    for dtype in (F64, torch.float32):
        for layers in (1, 2):
            assert automatic(ContinuousRNN(1, 4, 1, num_layers=layers, dtype=dtype).field()) == Adaptive()
        assert automatic(StateSpaceModel(1, 4, 1, num_layers=3, dtype=dtype).field()) == Adaptive()
    assert not caplog.messages
    softsign = Activation("softsign", torch.nn.functional.softsign, rests_at_zero=True)
    others = (
        ContinuousRNN(1, 4, 1, softsign, num_layers=2, dtype=F64),
        StateSpaceModel(1, 4, 1, softsign, num_layers=2, dtype=F64),
        ContinuousRNN(1, 4, 1, dtype=torch.bfloat16),
    )
    for model in others:
        assert automatic(model.field()) == TorchDiffEq("dopri5", adjoint=False)
    said, other = caplog.messages  # once for an activation and a precision
    assert "torch.bfloat16" in other
    assert "torchdiffeq's dopri5 here" in said
    assert "got 2 layer(s) of 4 and 4 units with 'softsign' in torch.float64 on cpu" in said


def test_the_choice_keeps_to_its_tolerance_with_no_more_substeps_than_needed():
    arguments = trial(ContinuousRNN(1, 4, 1, "tanh", dtype=F64))
    for tolerance in (1e-3, 1e-5, 1e-7):
        solver = choose_solver(*arguments, tolerance)
        assert isinstance(solver, Fused)
        assert deviation(solver, *arguments) <= tolerance
        if solver.substeps > 1:
            assert deviation(Fused("rk4", solver.substeps // 2), *arguments) > tolerance
    assert solver.substeps > 1


def test_what_has_no_fused_form_falls_back_to_dopri5():
    softsign = Activation("softsign", torch.nn.functional.softsign, rests_at_zero=True)
    arguments = trial(ContinuousRNN(1, 4, 1, softsign, dtype=F64))
    solver = choose_solver(*arguments)
    assert isinstance(solver, TorchDiffEq)
    assert deviation(solver, *arguments) <= 1e-5


def test_what_many_substeps_do_not_resolve_takes_adaptive_steps(monkeypatch):
    monkeypatch.setattr(choice, "MAX_SUBSTEPS", 1)
    arguments = trial(ContinuousRNN(1, 4, 1, "tanh", dtype=F64))
    solver = choose_solver(*arguments, 1e-6)
    assert isinstance(solver, Adaptive)
    assert deviation(solver, *arguments) <= 1e-6


def test_a_tolerance_that_cannot_be_kept_is_refused():
    model = ContinuousRNN(1, 4, 1, "tanh", dtype=torch.float32)
    path = replace(PATH.mapped(torch.Tensor.float), times=T.float())
    with pytest.raises(ValueError, match="between 1e-8 and 1"):
        choose_solver(model.field(), path, T.float(), torch.zeros(3, 4), 0.0)
    with pytest.raises(DivergedSolve, match="float64"):
        choose_solver(model.field(), path, T.float(), torch.zeros(3, 4), 2e-8)


@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_a_model_at_rest_is_solved_as_well_as_any(dtype):
    model, t = ContinuousRNN(1, 4, 1, "tanh", dtype=dtype), torch.linspace(0, 1, 11, dtype=dtype)
    assert not model(torch.zeros(2, 11, 1, dtype=dtype), t, solver="auto").any()
    path = paths.linear(t, torch.zeros(2, 11, 1, dtype=dtype))
    assert deviation(Fused(), model.field(), path, t, torch.zeros(2, 4, dtype=dtype)) == 0
