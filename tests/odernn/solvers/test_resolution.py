from __future__ import annotations

import warnings

import pytest
import torch
from problems import F64, dop853, perturb_bias

from odernn import Adaptive, ContinuousRNN, DivergedSolve, Exact, Fused, InaccurateSolve, StateSpaceModel, TorchDiffEq, paths
from odernn.solvers import NOTICEABLE_ERROR
from targets import inputs

T = torch.linspace(0, 10, 101, dtype=F64)
FIXED = (Fused(), Fused(backend="torch"), TorchDiffEq("rk4", adjoint=False), TorchDiffEq("rk4"))


def with_rates(cls, activation, rates):
    model = cls(1, len(rates), 1, activation, dtype=F64)
    Q, _ = torch.linalg.qr(torch.randn(len(rates), len(rates), generator=torch.Generator().manual_seed(1), dtype=F64))
    model.set_matrix(Q @ torch.diag(torch.tensor(rates, dtype=F64)) @ Q.T)
    return model


@pytest.mark.parametrize("solver", FIXED, ids=str)
def test_white_noise_that_the_steps_do_not_resolve_is_said(solver):
    model = ContinuousRNN(1, 16, 1, "tanh", "symmetric", "softplus", dtype=F64)
    x = inputs.white_noise(T, batch=20, seed=0)
    with pytest.warns(InaccurateSolve, match="about 1e-02.*take smaller steps.*choose_solver"):
        found = model.respond(x, T, solver=solver).solution
    reference = model.respond(x, T, solver=Fused(substeps=16)).solution
    error = torch.linalg.vector_norm(found.h - reference.h) / torch.linalg.vector_norm(reference.h)
    assert 0.5 * error < found.error_estimate < 5 * error
    assert reference.error_estimate < 1e-6  # and no warning, which would be an error


@pytest.mark.parametrize("solver", FIXED[:3], ids=str)
@pytest.mark.parametrize("rates", [[-1e4] * 4, [-1e2] * 4, [-1e2, -1.0, -1.0, -1.0], [-40.0, -0.1, -1.0, -0.5]], ids=str)
@pytest.mark.parametrize("activation", ["tanh", "hardtanh", "sigmoid"])
def test_unstable_steps_are_noticed_behind_a_bounded_activation(activation, rates, solver):
    model = with_rates(ContinuousRNN, activation, rates)
    with pytest.warns(InaccurateSolve):
        solution = model.respond(inputs.random_fourier(T, 12, seed=0), T, solver=solver).solution
    assert solution.error_estimate > NOTICEABLE_ERROR
    assert torch.isfinite(solution.h).all()


def test_states_that_grow_far_beyond_the_solution_are_noticed_while_their_squares_overflow():
    model = with_rates(StateSpaceModel, "tanh", [-100.0] * 4)
    with pytest.warns(InaccurateSolve, match="as much as they are"):
        h = model.respond(inputs.random_fourier(T, 4, seed=0), T, solver=Fused()).solution.h
    assert torch.isfinite(h).all()
    assert not torch.isfinite(h.square().sum())


@pytest.mark.parametrize("place", [0, 37, 99])
def test_one_rough_sequence_among_many_smooth_ones_is_noticed(place):
    model = ContinuousRNN(1, 8, 1, dtype=F64)
    x = torch.sin(0.2 * T).reshape(1, -1, 1).repeat(100, 1, 1)
    model(x, T, solver=Fused())
    x[place] += 3 * inputs.white_noise(T, batch=1, seed=0)[0]
    with pytest.warns(InaccurateSolve):
        model(x, T, solver=Fused())


@pytest.mark.parametrize("place", [0, 150, 399])
def test_one_member_of_a_large_ensemble_whose_rates_are_too_fast_is_noticed(place):
    model = ContinuousRNN(1, 4, 1, ensemble=(400,), dtype=F64)
    x = torch.sin(0.2 * T).reshape(1, -1, 1)
    with torch.no_grad():
        model.layer_weights[0].recurrence.W.copy_(-torch.eye(4, dtype=F64).expand(400, 4, 4))
    model(x, T, solver=Fused())
    with torch.no_grad():
        model.layer_weights[0].recurrence.W[place] *= 60
    with pytest.warns(InaccurateSolve):
        model(x, T, solver=Fused())


def test_every_solve_of_a_changing_input_or_changing_weights_is_judged():
    model = ContinuousRNN(1, 8, 1, dtype=F64)
    x = torch.sin(0.2 * T).reshape(1, -1, 1).repeat(3, 1, 1)
    for _ in range(3):
        assert model.respond(x, T, solver=Fused()).solution.error_estimate < 1e-4
    rough = inputs.white_noise(T, batch=3, seed=0)
    with pytest.warns(InaccurateSolve):
        model(rough, T, solver=Fused())
    x.copy_(3 * rough)  # in place
    with pytest.warns(InaccurateSolve):
        model(x, T, solver=Fused())
    x.copy_(torch.sin(0.2 * T).reshape(1, -1, 1))
    model(x, T, solver=Fused())
    with torch.no_grad():
        model.layer_weights[0].recurrence.W.mul_(80)
    with pytest.warns(InaccurateSolve):
        model(x, T, solver=Fused())


def test_a_loop_is_told_once_for_each_power_of_ten():
    model = ContinuousRNN(1, 16, 1, dtype=F64)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for seed in range(12):
            model(inputs.white_noise(T, batch=9, seed=seed), T, solver=Fused())
    assert 1 <= len(said) <= 3
    assert all(warning.filename == __file__ for warning in said)


def test_no_estimate_is_made_where_none_is_asked_for_or_none_is_needed():
    model = ContinuousRNN(1, 16, 1, dtype=F64)
    x = inputs.white_noise(T, batch=4, seed=0)
    for solver in (Fused(check=False), TorchDiffEq("rk4", check=False), TorchDiffEq("dopri5")):
        assert model.respond(x, T, solver=solver).solution.error_estimate is None
    linear = StateSpaceModel(1, 4, 1, dtype=F64)
    assert linear.respond(x, T, solver=Exact()).solution.error_estimate is None


@pytest.mark.parametrize(
    "method", ["euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "fixed_adams", "implicit_adams"]
)
def test_every_fixed_step_method_at_step_a_tenth_is_right_or_says_so(method):
    for layers in (1, 2):
        model = perturb_bias(ContinuousRNN(1, 3, 1, num_layers=layers, dtype=F64))
        for t in (torch.tensor([0.0, 2.0], dtype=F64), torch.tensor([0.0, 0.45, 0.5, 1.3, 2.0], dtype=F64)):
            path = paths.linear(t, torch.randn(1, t.numel(), 1, generator=torch.Generator().manual_seed(0), dtype=F64))
            h0 = torch.zeros(1, 3 * layers, dtype=F64)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                try:
                    h = model.solve(path, t, h0, solver=TorchDiffEq(method, step_size=0.1, adjoint=False)).h.detach()
                except DivergedSolve:  # the corrector of an implicit method did not converge, which is said
                    assert method in ("fixed_adams", "implicit_adams")
                    continue
            reference = dop853(model, path, t, h0)
            error = float(torch.linalg.vector_norm(h - reference) / torch.linalg.vector_norm(reference))
            assert error < 2 * NOTICEABLE_ERROR or said
            assert error < 0.3
            assert error > NOTICEABLE_ERROR / 5 or not said


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0.0, 1e5, 1.7e9])
def test_single_precision_keeps_the_steps_of_times_in_double_at_any_offset(offset):
    t = offset + torch.arange(21, dtype=F64) * 0.125 + (torch.arange(21) % 3 == 1) * 2**-6
    x = torch.sin(3 * (t - offset) + torch.arange(3)[:, None]).unsqueeze(-1).float()
    adaptive = [TorchDiffEq(method, 1e-5, 1e-6, adjoint) for method in ("dopri5", "dopri8") for adjoint in (True, False)]
    for cls, solvers in (
        (
            ContinuousRNN,
            (Fused(), Fused(backend="torch"), TorchDiffEq("rk4"), TorchDiffEq("scipy_solver", 1e-6, 1e-6), *adaptive),
        ),
        (StateSpaceModel, (Exact(), Exact(backend="torch"), Fused())),
    ):
        single = perturb_bias(cls(1, 4, 1, dtype=torch.float32))
        double = cls(1, 4, 1, dtype=F64)
        double.load_state_dict(single.state_dict())
        reference = dop853(double, paths.linear(t - offset, x.double()), t - offset, torch.zeros(3, 4, dtype=F64))
        for solver in solvers:
            h = solver.solve(single.field(), paths.linear(t, x), t, torch.zeros(3, 4)).h
            assert h.dtype == torch.float32
            assert torch.linalg.vector_norm(h.double() - reference) < 5e-5 * torch.linalg.vector_norm(reference), solver
            h.sum().backward()


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_steps_of_an_adaptive_solve_suit_each_sequence_of_a_batch(activation):
    model = ContinuousRNN(1, 4, 1, activation, dtype=F64)
    x = torch.zeros(100, 101, 1, dtype=F64)
    x[7] = inputs.white_noise(T, batch=1, seed=0)[0]
    solver = TorchDiffEq("dopri5", 1e-5, 1e-7)
    many, alone = (model.respond(x_, T, solver=solver).solution for x_ in (x, x[7:8]))
    assert many.evaluations == alone.evaluations
    assert torch.allclose(many.h[7], alone.h[0], rtol=1e-8, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", [True, False])
@pytest.mark.parametrize(("cls", "dtype"), [(ContinuousRNN, F64), (ContinuousRNN, torch.float32), (StateSpaceModel, F64)])
def test_an_adaptive_solve_whose_own_estimates_fail_is_noticed(monkeypatch, cls, dtype, adjoint):
    model = cls(1, 4, 1, dtype=dtype)
    x = 3 * inputs.white_noise(T, batch=20, seed=0).to(dtype)
    solver = TorchDiffEq("dopri5", 1e-5, 1e-6, adjoint)
    right = model.respond(x, T, solver=solver).solution.h  # no warning, which would be an error
    monkeypatch.setattr("odernn.solvers.torchdiffeq._worst_sequence", lambda h: 1e-3 * h.square().mean().sqrt())
    rough = TorchDiffEq("dopri5", 1e-4, 1e-6, adjoint)
    coarse = T[::5]
    few = 3 * torch.sin(2 * coarse + torch.arange(20)[:, None]).unsqueeze(-1).to(dtype)
    model.layer_weights[0].recurrence.W.data.mul_(30)
    with pytest.warns(InaccurateSolve, match=r"states of this solve are off by about .*rtol=1e-06"):
        h = model.respond(few, coarse, solver=rough).solution.h
    assert torch.isfinite(h).all()
    assert torch.isfinite(right).all()
    model.respond(few, coarse, solver=TorchDiffEq("dopri5", 1e-4, 1e-6, adjoint, check=False))


def test_steps_of_the_adjoint_are_as_small_as_those_of_the_solve():
    """It runs from right to left: a length with its sign would make one step of every interval."""
    model = perturb_bias(ContinuousRNN(1, 3, 1, dtype=F64))
    t = torch.tensor([0.0, 2.0], dtype=F64)
    path = paths.linear(t, torch.ones(1, 2, 1, dtype=F64))
    found = []
    for adjoint in (True, False):
        solver = TorchDiffEq("rk4", step_size=0.02, adjoint=adjoint)
        h = model.solve(path, t, torch.zeros(1, 3, dtype=F64), solver=solver).h
        found.append(torch.autograd.grad(h.square().sum(), model.layer_weights[0].U)[0])
    assert torch.allclose(*found, rtol=1e-7)


@pytest.mark.parametrize(
    "solver",
    [Fused(), Fused(backend="torch"), Exact(), Exact(backend="torch"), Adaptive(), TorchDiffEq("rk4"), TorchDiffEq()],
)
def test_a_batch_of_nothing_has_an_empty_answer_and_zero_gradients(solver):
    model = StateSpaceModel(2, 3, 1, ensemble=(2,), dtype=F64)
    t = torch.arange(4, dtype=F64)
    y = model(torch.zeros(0, 4, 2, dtype=F64), t, solver=solver)
    assert y.shape == (2, 0, 4, 1)
    y.sum().backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())


def test_a_tolerance_below_what_the_dtype_holds_is_refused():
    model = ContinuousRNN(1, 4, 1, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"below what torch.float32 can hold.*compute in float64"):
        model(torch.ones(2, 5, 1), torch.arange(5.0), solver=TorchDiffEq("dopri5", 1e-12, 1e-12))


@pytest.mark.parametrize("solver", [Fused(), Exact(), Adaptive(), TorchDiffEq("rk4"), TorchDiffEq()])
def test_states_that_are_not_real_numbers_of_the_weights_kind_are_refused(solver):
    model = StateSpaceModel(1, 4, 1, dtype=F64)
    path = paths.linear(T[:5], torch.ones(2, 5, 1, dtype=F64))
    for h0 in (torch.zeros(2, 4, dtype=torch.complex128), torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"h0 is torch\..*give h0 as they are"):
            solver.solve(model.field(), path, path.times, h0)
