from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from problems import F64, central_difference, dop853, perturb_bias
from solves import RECURRENCES, assert_close, problem, states_and_gradients

from odernn import Adaptive, ContinuousRNN, DivergedSolve, Fused, InaccurateSolve, StateSpaceModel, TorchDiffEq, paths
from odernn.activations import ACTIVATIONS, Activation
from odernn.solvers import PAIRS, adaptive, adaptive_reference, comparison
from odernn.solvers.base import solve_grid
from odernn.solvers.numba import backend, step_control
from odernn.solvers.standard_form import Problem, inputs_of, standard_weights

KERNELS = [name for name, activation in ACTIVATIONS.items() if activation.kernel]
SMOOTH = [name for name in KERNELS if name not in ("relu", "hardtanh")]
BACKENDS = ("numba", "torch")
SOFTSIGN = Activation("softsign", torch.nn.functional.softsign, rests_at_zero=True)


def path_of(x, t, interpolation):
    if interpolation == "jumps":
        return paths.Path(t, "jumps", 2 * x[..., :-1, :], x[..., 1:, :] ** 2)
    return paths.interpolate(t, x, interpolation)


def steps_of(model, path, t, h0, solver):
    """The accepted steps of the compiled solve, block by block, and those of tensor operations, member by member."""
    grid, field = solve_grid(path, t), model.field()
    weights = standard_weights(field.layers, h0)
    inputs = inputs_of(grid.path, weights.ensemble)
    pair = PAIRS[solver.method]
    given = (weights.W, weights.V, inputs.left, inputs.right, weights.h0)
    case = Problem(
        tableau=pair,
        substeps=1,
        steps=grid.times.diff(),
        structure=weights.structure,
        kind=inputs.kind,
        layers=len(field.layers),
        **adaptive.kernels_of(field)._asdict(),
    )
    control = step_control.Control(*solver.tolerances, float(pair.order))
    _, _, record = backend.adaptive_forward(case, control, True, *(tensor.detach() for tensor in given))
    _, _, plain = adaptive_reference.solve(case, control, *given)
    blocks = [
        record.steps[start : start + count].tolist()
        for start, count in zip(record.starts.tolist(), record.counts.sum(1).tolist())
    ]
    return blocks, plain


def pairs_conditions(A, b):
    """Of each rooted tree up to order 5: (order, weights times the tree, 1 / its density)."""
    c = A.sum(1)
    Ac, Ac2, Ac3 = A @ c, A @ c**2, A @ c**3
    return [
        (1, b.sum(), 1),
        (2, b @ c, 1 / 2),
        (3, b @ c**2, 1 / 3),
        (3, b @ Ac, 1 / 6),
        (4, b @ c**3, 1 / 4),
        (4, b @ (c * Ac), 1 / 8),
        (4, b @ Ac2, 1 / 12),
        (4, b @ (A @ Ac), 1 / 24),
        (5, b @ c**4, 1 / 5),
        (5, b @ (c**2 * Ac), 1 / 10),
        (5, b @ Ac**2, 1 / 20),
        (5, b @ (c * Ac2), 1 / 15),
        (5, b @ (c * (A @ Ac)), 1 / 30),
        (5, b @ Ac3, 1 / 20),
        (5, b @ (A @ (c * Ac)), 1 / 40),
        (5, b @ (A @ Ac2), 1 / 60),
        (5, b @ (A @ (A @ Ac)), 1 / 120),
    ]


@pytest.mark.parametrize("method", PAIRS)
def test_both_methods_of_a_pair_have_their_orders_and_no_more(method):
    pair = PAIRS[method]
    stages = pair.stages + 1
    A = np.zeros((stages, stages))
    for i, row in enumerate((*pair.A, pair.b)):
        A[i, : len(row)] = row
    higher = A[-1]
    lower = higher - np.array(pair.error)
    for weights, order in ((higher, pair.order), (lower, pair.order - 1)):
        wrong = {p for p, found, expected in pairs_conditions(A, weights) if abs(found - expected) > 1e-13}
        assert min(wrong, default=6) == order + 1
    assert sum(pair.error) == pytest.approx(0, abs=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("recurrence", RECURRENCES, ids=lambda pair: pair[0])
@pytest.mark.parametrize("activation", [name for name in KERNELS if name != "linear"])
@pytest.mark.parametrize("method", PAIRS)
def test_the_error_follows_the_tolerance(method, activation, recurrence):
    model = perturb_bias(ContinuousRNN(2, 4, 1, activation, *recurrence, dtype=F64))
    x, t, h0, *_ = problem(model, batch=3, times=5)
    path = paths.linear(t, x)
    exact = dop853(model, path, t, h0)
    tolerances = (1e-3, 1e-5, 1e-7) if method == "bosh3" else (1e-3, 1e-5, 1e-7, 1e-9)
    errors, work = [], []
    for tolerance in tolerances:
        solution = model.solve(path, t, h0, solver=Adaptive(method, tolerance, tolerance, check=False))
        errors.append(float((solution.h - exact).detach().abs().max()))
        work.append(solution.evaluations)
    for error, tolerance in zip(errors, tolerances):
        # A step across a kink of the activation escapes the estimate of the methods of order 5.
        assert error < (20 * tolerance if activation in SMOOTH or method == "bosh3" else tolerance**0.5)
    assert work == sorted(work)


@pytest.mark.parametrize("method", PAIRS)
def test_the_work_grows_with_the_order_of_the_method(method):
    """evaluations ~ tolerance^(-1 / order), where the steps are short beside an interval."""
    model = perturb_bias(ContinuousRNN(1, 3, 1, "tanh", dtype=F64))
    t = torch.tensor([0.0, 30.0], dtype=F64)
    path = paths.linear(t, torch.tensor([[[-1.0], [2.0]]], dtype=F64))
    model.set_matrix(torch.tensor([[0.0, 3.0, 0.0], [-3.0, 0.0, 1.0], [0.0, 0.0, -1.0]], dtype=F64))
    h0 = torch.tensor([[0.3, -0.2, 0.5]], dtype=F64)
    tolerances = np.array([1e-4, 1e-5, 1e-6] if method == "bosh3" else [1e-5, 1e-7, 1e-9])
    work = [model.solve(path, t, h0, solver=Adaptive(method, tol, tol, check=False)).accepted for tol in tolerances]
    slope = -np.polyfit(np.log(tolerances), np.log(work), 1)[0]
    assert 1 / slope == pytest.approx(PAIRS[method].order, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", ["linear", "hold", "jumps"])
@pytest.mark.parametrize("recurrence", RECURRENCES, ids=lambda pair: pair[0])
@pytest.mark.parametrize("method", PAIRS)
@pytest.mark.parametrize("activation", SMOOTH)
def test_both_backends_take_the_same_steps_to_the_same_states_and_gradients(activation, method, recurrence, interpolation):
    model = perturb_bias(ContinuousRNN(2, 6, 1, activation, *recurrence, dtype=F64))
    arguments = problem(model, interpolation=interpolation)
    x, t, h0, *_ = arguments
    solver = Adaptive(method, 1e-5, 1e-7, check=False)
    path = path_of(x, t, interpolation)
    one, other = (model.solve(path, t, h0, solver=replace(solver, backend=name)) for name in BACKENDS)
    assert (one.accepted, one.rejected, one.evaluations) == (other.accepted, other.rejected, other.evaluations)
    (found,), (expected,) = steps_of(model, path, t, h0, solver)
    assert found == pytest.approx(expected, rel=1e-6)  # the first step hangs on a difference of close numbers
    compiled, plain = (states_and_gradients(model, replace(solver, backend=name), *arguments) for name in BACKENDS)
    assert_close(compiled, plain, 1e-11, 1e-9)


@pytest.mark.parametrize("interpolation", ["linear", "jumps"])
@pytest.mark.parametrize("recurrence", RECURRENCES, ids=lambda pair: pair[0])
@pytest.mark.parametrize("activation", ["relu", "hardtanh"])
def test_at_kinks_of_the_activation_the_adjoint_is_that_of_the_steps_taken(monkeypatch, activation, recurrence, interpolation):
    """There rounding decides where a step ends: the plain route is given the steps of the compiled one."""
    model = perturb_bias(ContinuousRNN(2, 6, 1, activation, *recurrence, dtype=F64))
    arguments = problem(model, interpolation=interpolation)
    x, t, h0, *_ = arguments
    solver = Adaptive("dopri5", 1e-4, 1e-6, check=False)
    (steps,), _ = steps_of(model, path_of(x, t, interpolation), t, h0, solver)
    compiled = states_and_gradients(model, solver, *arguments)
    taken = iter(steps)
    monkeypatch.setattr(adaptive_reference, "step_within", lambda rest, _: min(rest, next(taken)))
    monkeypatch.setattr(adaptive_reference._Member, "_size", lambda *_: 0.5)
    plain = states_and_gradients(model, replace(solver, backend="torch"), *arguments)
    assert next(taken, None) is None
    assert_close(compiled, plain)


@pytest.mark.parametrize("interpolation", ["linear", "hold", "jumps"])
@pytest.mark.parametrize("recurrence", RECURRENCES, ids=lambda pair: pair[0])
def test_gradients_agree_with_central_differences(recurrence, interpolation):
    model = perturb_bias(ContinuousRNN(2, 2, 1, "tanh", *recurrence, dtype=F64))
    x, t, h0, loss_weights, _ = problem(model, batch=2, times=3)
    x.requires_grad_()
    h0.requires_grad_()
    solver = Adaptive("tsit5", 1e-11, 1e-13)

    def loss():
        return (model.solve(path_of(x, t, interpolation), t, h0, solver=solver).h * loss_weights).sum()

    loss().backward()
    for name, tensor in [*model.named_parameters(), ("x", x), ("h0", h0)]:
        if name != "c":
            assert torch.allclose(tensor.grad, central_difference(loss, tensor), rtol=1e-6, atol=1e-7), name


@pytest.mark.parametrize("dtype", [F64, torch.float32], ids=str)
def test_sizes_that_fill_no_vector_and_many_blocks(dtype):
    for m, batch, d in product((1, 3, 17, 40), (1, 7, 19), (1, 3)):
        model = perturb_bias(ContinuousRNN(d, m, 1, "sigmoid", dtype=F64)).to(dtype)
        double = ContinuousRNN(d, m, 1, "sigmoid", dtype=F64)
        double.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
        x, t, h0, loss_weights, _ = problem(double, batch=batch, times=4)
        rounded = [tensor.to(dtype) for tensor in (x, h0, loss_weights)]
        solver = Adaptive("dopri5", 1e-10, 1e-12, check=False) if dtype == F64 else Adaptive(check=False)
        found = states_and_gradients(model, solver, rounded[0], t, *rounded[1:], "linear")
        expected = states_and_gradients(double, Fused("rk4", 64, check=False), x, t, h0, loss_weights, "linear")
        assert found[0].dtype == dtype
        states, gradients = (1e-8, 1e-7) if dtype == F64 else (2e-4, 2e-3)
        assert_close((found[0].double(), tuple(g.double() for g in found[1])), expected, states, gradients)


@pytest.mark.parametrize("name", BACKENDS)
def test_an_ensemble_is_many_single_solves_each_on_its_own_steps(name):
    ensemble = perturb_bias(ContinuousRNN(1, 4, 1, "tanh", ensemble=(2, 3), dtype=F64))
    with torch.no_grad():
        ensemble.layer_weights[0].recurrence.W.mul_(torch.tensor([1.0, 3.0, 9.0])[:, None, None])
    x, t, h0, *_ = problem(ensemble, batch=10, times=5)
    solver = Adaptive(backend=name, check=False)
    together = ensemble.solve(paths.linear(t, x), t, h0, solver=solver)
    single = ContinuousRNN(1, 4, 1, "tanh", dtype=F64)
    counts = []
    for index in product(range(2), range(3)):
        single.load_state_dict({key: value[index] for key, value in ensemble.state_dict().items()})
        alone = single.solve(paths.linear(t, x), t, h0[index], solver=solver)
        assert torch.allclose(together.h[index], alone.h, rtol=1e-13, atol=1e-14)
        counts.append((alone.accepted + alone.rejected, alone.accepted))
    assert len(set(counts)) > 2
    assert (together.accepted + together.rejected, together.accepted) == max(counts)


def test_a_block_does_not_pay_for_another():
    model = ContinuousRNN(1, 4, 1, "tanh", dtype=F64)
    t = torch.linspace(0, 1, 6, dtype=F64)
    x = torch.zeros(16, 6, 1, dtype=F64)
    x[8:] = 200 * torch.sin(50 * t)[:, None]
    calm, wild = steps_of(model, paths.linear(t, x), t, torch.zeros(16, 4, dtype=F64), Adaptive())[0]
    assert len(wild) > 5 * len(calm)


@pytest.mark.parametrize("interpolation", ["hold", "jumps"])
@pytest.mark.parametrize("name", BACKENDS)
def test_no_step_straddles_a_jump(name, interpolation):
    """A solve of both halves, cut at a jump that no output time tells of."""
    model = perturb_bias(ContinuousRNN(1, 4, 1, "tanh", dtype=F64))
    t = torch.tensor([0.0, 0.7, 2.0], dtype=F64)
    x = torch.tensor([[[1.0], [-3.0], [0.0]]], dtype=F64)
    path = path_of(x, t, interpolation)
    h0 = torch.zeros(1, 4, dtype=F64)
    outputs = torch.tensor([0.0, 2.0], dtype=F64)
    solver = Adaptive(rtol=1e-4, atol=1e-4, backend=name, check=False)
    whole = model.solve(path, outputs, h0, solver=solver)
    assert torch.allclose(whole.h, dop853(model, path, outputs, h0), atol=1e-3)
    middle = model.solve(path.interval(0), t[:2], h0, solver=solver)
    end = model.solve(path.interval(1), t[1:], middle.h[:, -1], solver=solver)
    assert torch.allclose(whole.h[:, -1], end.h[:, -1], atol=1e-4)
    (steps,), _ = steps_of(model, path, outputs, h0, solver)
    assert any(math.isclose(total, 0.7, rel_tol=1e-13) for total in np.cumsum(steps))


def test_a_record_that_is_too_short_is_made_long_enough(monkeypatch):
    model = perturb_bias(ContinuousRNN(1, 6, 1, "tanh", dtype=F64))
    arguments = problem(model, batch=19)
    solver = Adaptive(rtol=1e-8, atol=1e-9, check=False)
    expected = states_and_gradients(model, solver, *arguments)
    runs = []
    run = backend._run
    monkeypatch.setattr(backend, "_run", lambda *arguments: (runs.append(arguments[0]), run(*arguments)))
    for room in (0, 3):
        monkeypatch.setattr(backend, "_ROOM", room)
        monkeypatch.setattr(backend, "_ROOM_PER_INTERVAL", 0)
        runs.clear()
        found = states_and_gradients(model, solver, *arguments)
        assert len(runs) == 3
        assert all(torch.equal(a, b) for a, b in zip((found[0], *found[1]), (expected[0], *expected[1])))
    x, t, h0, *_ = arguments
    runs.clear()
    with torch.no_grad():
        model.solve(paths.linear(t, x), t, h0, solver=solver)
    assert len(runs) == 1


@pytest.mark.parametrize("segment", [1, 2, 3, 7])
def test_an_interval_of_many_steps_is_gone_through_in_segments(monkeypatch, segment):
    model = perturb_bias(ContinuousRNN(1, 5, 1, "tanh", dtype=F64))
    arguments = problem(model, batch=9, times=3)
    solver = Adaptive(rtol=1e-8, atol=1e-9, check=False)
    expected = states_and_gradients(model, solver, *arguments)
    monkeypatch.setattr(backend, "_SEGMENT", segment)
    monkeypatch.setattr(backend.math, "isqrt", lambda _: 1)
    assert_close(states_and_gradients(model, solver, *arguments), expected, 1e-15, 1e-13)


def test_memory_of_the_backward_pass_grows_with_the_root_of_the_steps(monkeypatch):
    """Thousands of steps in one interval."""
    model = ContinuousRNN(1, 4, 1, "tanh", dtype=F64)
    model.set_matrix(-2000 * torch.eye(4, dtype=F64))
    t = torch.tensor([0.0, 1.5], dtype=F64)
    x = torch.ones(1, 2, 1, dtype=F64, requires_grad=True)
    sizes = []
    run = backend._run
    monkeypatch.setattr(backend, "_run", lambda *arguments: (sizes.append(arguments[2:4]), run(*arguments)))
    solution = model.solve(paths.linear(t, x), t, solver=Adaptive())
    (gradient,) = torch.autograd.grad(solution.h.sum(), x)
    assert solution.accepted > 500
    segment, segments = sizes[-1]
    assert segment * segments >= solution.accepted
    assert max(segment, segments) < 2 * math.sqrt(solution.accepted)
    fused = model.solve(paths.linear(t, x), t, solver=Fused(substeps=2000)).h
    assert torch.allclose(gradient, torch.autograd.grad(fused.sum(), x)[0], rtol=1e-3)


@pytest.mark.slow
def test_one_thread_and_several_give_the_same_states_bit_for_bit():
    """In a process of its own, so that there are two threads on a machine of one core too."""
    program = """
import torch
from problems import F64, perturb_bias
from solves import assert_close, problem, states_and_gradients
from odernn import Adaptive, ContinuousRNN
from odernn.solvers.numba import backend

model = perturb_bias(ContinuousRNN(1, 20, 1, seed=0, dtype=F64))
arguments = problem(model, batch=70)
found = []
for threads in (1, 2):
    torch.set_num_threads(threads)
    assert backend._threads() == threads
    found.append(states_and_gradients(model, Adaptive(), *arguments))
one, several = found
assert torch.equal(one[0], several[0])
assert torch.equal(one[1][-1], several[1][-1]) and torch.equal(one[1][-2], several[1][-2])  # of h0 and x
assert_close(several, one, 1e-15, 1e-13)
"""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=200)


def exploding():
    """dh/dt = relu(9 h + ...): beyond what a number holds after some 80 units of time."""
    model = ContinuousRNN(1, 2, 1, "relu", dtype=F64)
    model.set_matrix(9 * torch.eye(2, dtype=F64))
    with torch.no_grad():
        model.layer_weights[0].U.fill_(1.0)
    t = torch.linspace(0, 200, 11, dtype=F64)
    return model, torch.ones(1, 11, 1, dtype=F64), t


@pytest.mark.parametrize("name", BACKENDS)
def test_a_step_size_that_underflows_is_an_error_that_says_where(name):
    model, x, t = exploding()
    solver = Adaptive("dopri5", 1e-3, 1e-3, name)
    with pytest.raises(DivergedSolve, match=r"t = 80 \(the step size underflowed; \|h\| = .*e\+\d+ before.*spectrum of W = 9"):
        model(x, t, "zero", solver=solver)
    solution = model.solve(paths.linear(t, x), t, "zero", solver=solver, check=False)
    assert solution.failure == "the step size underflowed"
    finite = torch.isfinite(solution.h[0]).all(-1)
    assert torch.isnan(solution.h[0][~finite]).all()
    assert finite.tolist() == [True] * 4 + [False] * 7


@pytest.mark.parametrize("name", BACKENDS)
def test_the_gradient_of_a_loss_that_looks_at_lost_states_is_nan_and_of_others_is_right(name):
    model, x, t = exploding()
    h = model.solve(paths.linear(t, x), t, "zero", solver=Adaptive("dopri5", 1e-3, 1e-3, name), check=False).h
    U = model.layer_weights[0].U
    (known,) = torch.autograd.grad(h[:, 1:3].log().sum(), U, retain_graph=True)
    assert torch.isfinite(known).all()
    assert known.any()
    (lost,) = torch.autograd.grad(h.sum(), U)
    assert torch.isnan(lost).all()


@pytest.mark.parametrize("name", BACKENDS)
def test_a_member_that_diverges_does_not_take_the_others_with_it(name):
    ensemble = ContinuousRNN(1, 2, 1, "relu", ensemble=(2,), dtype=F64)
    with torch.no_grad():
        ensemble.layer_weights[0].U.fill_(1.0)
        ensemble.layer_weights[0].recurrence.W.copy_(torch.stack([9.0 * torch.eye(2), -torch.eye(2)]))
    _, x, t = exploding()
    x.requires_grad_()
    solver = Adaptive("dopri5", 1e-3, 1e-3, name, check=False)
    solution = ensemble.solve(paths.linear(t, x), t, "zero", solver=solver, check=False)
    assert torch.isnan(solution.h[0, 0, -1]).all()
    assert torch.isfinite(solution.h[1]).all()
    single = ContinuousRNN(1, 2, 1, "relu", dtype=F64)
    single.load_state_dict({key: value[1] for key, value in ensemble.state_dict().items()})
    alone = single.solve(paths.linear(t, x), t, "zero", solver=solver).h
    assert torch.allclose(solution.h[1], alone, rtol=1e-13)
    found, expected = (torch.autograd.grad(h.square().sum(), x)[0] for h in (solution.h[1], alone))
    assert torch.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_stiff_model_is_solved(name):
    model = perturb_bias(ContinuousRNN(1, 3, 1, "tanh", dtype=F64))
    model.set_matrix(torch.diag(torch.tensor([-1.0, -30.0, -1000.0], dtype=F64)))
    t = torch.linspace(0, 1, 3, dtype=F64)
    x = torch.sin(3 * t)[None, :, None]
    h0 = torch.tensor([[0.5, 0.5, 0.5]], dtype=F64)
    path = paths.linear(t, x)
    solver = Adaptive(rtol=1e-5, atol=1e-7, backend=name, check=False)
    assert torch.allclose(model.solve(path, t, h0, solver=solver).h, dop853(model, path, t, h0), atol=1e-4)


def test_more_steps_than_the_most_are_an_error():
    model = ContinuousRNN(1, 1, 1, "tanh", dtype=F64)
    model.set_matrix(torch.tensor([[-1e6]], dtype=F64))
    t = torch.tensor([0.0, 1.0], dtype=F64)
    with pytest.raises(DivergedSolve, match=r"t = 1 \(more than 10000 steps in one interval; \|h\| = "):
        model(torch.ones(1, 2, 1, dtype=F64), t, "zero", solver=Adaptive())


def test_long_and_short_times_and_an_origin_far_away():
    model = perturb_bias(ContinuousRNN(1, 3, 1, "tanh", dtype=F64))
    t = torch.tensor([0.0, 1e-9, 0.5, 40.0], dtype=F64)
    x = torch.tensor([[[0.0], [1.0], [-1.0], [1.0]]], dtype=F64)
    path, h0 = paths.linear(t, x), torch.zeros(1, 3, dtype=F64)
    h = model.solve(path, t, h0, solver=Adaptive()).h
    assert torch.allclose(h, dop853(model, path, t, h0), atol=1e-5)
    later = paths.linear(t[[0, 2, 3]] + 1.7e9, x[:, [0, 2, 3]])
    moved = model.solve(later, later.times, h0, solver=Adaptive()).h
    assert torch.allclose(moved, dop853(model, paths.linear(t[[0, 2, 3]], x[:, [0, 2, 3]]), t[[0, 2, 3]], h0), atol=1e-5)


def test_a_drive_so_large_that_rates_overflow_single_precision_squared():
    model = ContinuousRNN(1, 3, 1, "relu", dtype=torch.float32)
    t = torch.linspace(0, 1, 5)
    with torch.no_grad():
        model.layer_weights[0].U.fill_(1.0)
    h = model.solve(paths.linear(t, torch.full((1, 5, 1), 1e25)), t, "zero", solver=Adaptive(check=False)).h
    assert torch.isfinite(h).all()
    assert h[0, -1].min() > 5e24


def test_tolerances_by_default_are_those_of_the_precision():
    for dtype, rtol, atol in ((F64, 1e-6, 1e-8), (torch.float32, 1e-5, 1e-7)):
        model = perturb_bias(ContinuousRNN(1, 4, 1, "tanh", dtype=F64)).to(dtype)
        x, t = torch.randn(3, 9, 1, dtype=dtype), torch.linspace(0, 2, 9, dtype=F64)
        given, default = (model.respond(x, t, solver=solver).solution for solver in (Adaptive("dopri5", rtol, atol), Adaptive()))
        assert torch.equal(given.h, default.h)
        assert given.evaluations == default.evaluations


def test_the_default_of_a_model():
    model = ContinuousRNN(1, 4, 1, "tanh", dtype=F64)
    x, t = torch.randn(3, 9, 1, dtype=F64), torch.linspace(0, 2, 9, dtype=F64)
    solution = model.respond(x, t).solution
    assert solution.accepted > 0
    assert solution.evaluations == 2 + 6 * (solution.accepted + solution.rejected)
    assert torch.equal(solution.h, model.respond(x, t, solver=Adaptive()).solution.h)
    torchdiffeqs = model.respond(x, t, solver=TorchDiffEq("dopri5", adjoint=False)).solution
    assert torchdiffeqs.accepted is None
    assert torch.allclose(solution.h, torchdiffeqs.h, atol=1e-5)


def test_a_solve_whose_own_estimates_fail_is_noticed(monkeypatch):
    model = perturb_bias(ContinuousRNN(1, 4, 1, "tanh", dtype=F64))
    model.layer_weights[0].recurrence.W.data.mul_(10)
    t = torch.linspace(0, 8, 9, dtype=F64)
    x = 3 * torch.sin(2 * t + torch.arange(20)[:, None]).unsqueeze(-1)
    model(x, t, solver=Adaptive("dopri5", 1e-5, 1e-6))  # no warning, which would be an error
    pair = PAIRS["dopri5"]
    monkeypatch.setitem(PAIRS, "dopri5", replace(pair, error=tuple(1e-6 * e for e in pair.error)))
    with pytest.warns(InaccurateSolve, match=r"tolerance of Adaptive\(.*states of this solve are off by about .*rtol=1e-07"):
        model(x.clone(), t, solver=Adaptive("dopri5", 1e-5, 1e-6))  # a new input, of which there is no verdict yet
    model(x, t, solver=Adaptive("dopri5", 1e-5, 1e-6, check=False))


def test_a_comparison_holds_on_while_nothing_changes(monkeypatch):
    model = perturb_bias(ContinuousRNN(1, 4, 1, "tanh", dtype=F64))
    t = torch.linspace(0, 8, 9, dtype=F64)
    x = torch.sin(2 * t + torch.arange(20)[:, None]).unsqueeze(-1)
    compared = []
    distance = comparison._distance
    monkeypatch.setattr(comparison, "_distance", lambda *arguments: compared.append(1) or distance(*arguments))
    for solver in (Adaptive(), TorchDiffEq("dopri5")):
        compared.clear()
        for _ in range(3):
            model(x, t, solver=solver)
        assert len(compared) == 1
        x = x.clone()
        model(x, t, solver=solver)
        assert len(compared) == 2


def test_bad_settings_are_refused():
    for settings, message in (
        ({"method": "rk4"}, "method"),
        ({"rtol": 0.0}, "rtol"),
        ({"atol": -1.0}, "atol"),
        ({"backend": "cuda"}, "backend"),
    ):
        with pytest.raises(ValueError, match=message):
            Adaptive(**settings)
    model = ContinuousRNN(1, 4, 1, SOFTSIGN, num_layers=2, dtype=F64)
    assert not Adaptive().supports(model.field())
    x, t = torch.zeros(2, 3, 1, dtype=F64), torch.arange(3, dtype=F64)
    with pytest.raises(ValueError, match=r"got 2 layer.s. of 4 and 4 units with 'softsign': choose TorchDiffEq\('dopri5'\)"):
        model(x, t, solver=Adaptive())
    single = ContinuousRNN(1, 4, 1, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"below what torch.float32 can hold"):
        single(x.float(), t, solver=Adaptive(rtol=1e-12, atol=1e-12))
    with pytest.raises(ValueError, match=r"backend|float16|bfloat16|computes"):
        ContinuousRNN(1, 4, 1, dtype=torch.bfloat16)(x.bfloat16(), t, solver=Adaptive(backend="numba", rtol=0.1, atol=0.1))


@pytest.mark.slow
def test_a_process_that_does_not_take_them_does_not_load_the_kernels():
    program = """
import sys, torch
from odernn import Adaptive, ContinuousRNN, Fused
model = ContinuousRNN(1, 4, 1, dtype=torch.float64)
x, t = torch.zeros(2, 3, 1, dtype=torch.float64), torch.arange(3, dtype=torch.float64)
model(x, t, solver=Fused()).sum().backward()
assert "odernn.solvers.numba.adaptive" not in sys.modules
model(x, t, solver=Adaptive())
kernels = sys.modules["odernn.solvers.numba.adaptive"]
assert not kernels.adaptive_adjoint.serial.signatures and not kernels.adaptive_adjoint.parallel.signatures
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=200)


def test_linear_state_equations_too():
    model = perturb_bias(StateSpaceModel(2, 4, 1, "tanh", "complex", "exp", dtype=F64))
    arguments = problem(model)
    found, expected = (
        states_and_gradients(model, solver, *arguments) for solver in (Adaptive(rtol=1e-9, atol=1e-11), Fused(substeps=64))
    )
    assert_close(found, expected, 1e-7, 1e-7)
