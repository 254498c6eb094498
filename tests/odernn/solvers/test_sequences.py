"""Times of each sequence against the oracle: every sequence alone with its own."""

from __future__ import annotations

import logging

import pytest
import torch
from problems import F64, perturb_bias

from odernn import Adaptive, ContinuousRNN, DiscreteRNN, DiscreteSSM, DivergedSolve, Exact, Fused, LeakyRNN, StateSpaceModel
from odernn.paths import interpolate
from odernn.solvers import TorchDiffEq, choose_solver, sequences
from targets import inputs

BATCH, TIMES = 5, 12
GENERATOR = torch.Generator().manual_seed(0)
T = torch.rand(BATCH, TIMES, dtype=F64, generator=GENERATOR).cumsum(1) * 0.3 + 7
X = torch.randn(BATCH, TIMES, 2, dtype=F64, generator=GENERATOR)


def loss_and_gradients(model, x, t, each, **options):
    x = x.clone().requires_grad_()
    h0 = (0.1 * torch.ones(*model.ensemble, len(x), model.field().size, dtype=x.dtype)).requires_grad_()
    if each:
        y = torch.cat([model(x[i : i + 1], t[i], h0[..., i : i + 1, :], **options) for i in range(len(x))], -3)
    else:
        y = model(x, t, h0, **options)
    weights = torch.linspace(0.5, 2, y.numel(), dtype=y.dtype).reshape(y.shape)
    found = torch.autograd.grad((weights * y.square()).sum(), [x, h0, *model.parameters()], allow_unused=True)
    return y, [torch.zeros(()) if g is None else g for g in found]


def assert_as_each_alone(model, x=X, t=T, tolerance=1e-10, **options):
    (y, gradients), (expected, oracle) = (loss_and_gradients(model, x, t, each, **options) for each in (False, True))
    assert torch.allclose(y, expected, rtol=tolerance, atol=tolerance)
    for found, wanted in zip(gradients, oracle):
        assert torch.allclose(found, wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max() + 1))


MODELS = {
    "tanh": lambda **options: ContinuousRNN(2, 5, 1, **options),
    "stack": lambda **options: ContinuousRNN(2, 3, 1, num_layers=2, **options),
    "emits": lambda **options: StateSpaceModel(2, 3, 1, num_layers=2, **options),
    "pairs": lambda **options: ContinuousRNN(2, 4, 1, recurrence="complex", **options),
    "leaky": lambda **options: LeakyRNN(2, 5, 1, **options),
    "ensemble": lambda **options: ContinuousRNN(2, 5, 1, ensemble=(3,), **options),
}


def make(name, dtype=F64):
    return perturb_bias(MODELS[name](dtype=dtype, seed=1))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backend", ["numba", "products", "torch"])
@pytest.mark.parametrize("interpolation", ["linear", "hold"])
def test_the_fused_solve_takes_all_sequences_at_once(name, backend, interpolation):
    assert_as_each_alone(make(name), solver=Fused("rk4", 2, backend, check=False), interpolation=interpolation)


@pytest.mark.parametrize("method", ["euler", "midpoint", "bosh3"])
def test_other_methods_do_too(method):
    assert_as_each_alone(make("leaky"), solver=Fused(method, check=False))


@pytest.mark.parametrize("backend", ["numba", "products"])
def test_and_in_single_precision(backend):
    assert_as_each_alone(make("tanh", torch.float32), X.float(), T, tolerance=1e-5, solver=Fused(backend=backend, check=False))


def test_tiles_that_the_batch_does_not_fill():
    t = (torch.rand(67, TIMES, dtype=F64, generator=GENERATOR) + 0.1).cumsum(1)
    x = torch.randn(67, TIMES, 2, dtype=F64, generator=GENERATOR)
    assert_as_each_alone(make("tanh"), x, t, solver=Fused(check=False))


@pytest.mark.parametrize("recurrence", ["dense", "diagonal", "complex"])
@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("ensemble", [(), (3,)])
@pytest.mark.parametrize("interpolation", ["linear", "hold"])
def test_exact_solves(recurrence, backend, ensemble, interpolation):
    model = perturb_bias(StateSpaceModel(2, 4, 1, recurrence=recurrence, ensemble=ensemble, dtype=F64, seed=1))
    assert_as_each_alone(model, solver=Exact(backend), interpolation=interpolation)


def test_the_choice_for_linear_models_takes_sequences_at_once_where_it_can():
    for recurrence, kind in (("diagonal", Exact), ("dense", Fused)):
        model = StateSpaceModel(2, 4, 1, recurrence=recurrence, dtype=F64, seed=1)
        path = interpolate(T, X, "linear")
        assert isinstance(choose_solver(model.field(), path, T, model.rest_state().expand(BATCH, -1)), kind)


@pytest.mark.parametrize("solver", [None, Adaptive(), TorchDiffEq("rk4", adjoint=False, check=False)])
def test_other_solvers_take_sequences_one_by_one(solver):
    assert_as_each_alone(make("tanh"), solver=solver)


@pytest.mark.parametrize("cls", [DiscreteRNN, DiscreteSSM])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_maps(cls, backend):
    model = perturb_bias(cls(2, 4, 1, dtype=F64, seed=1))
    model.backend = backend
    assert_as_each_alone(model)


@pytest.mark.parametrize("solver", [Fused(), Exact(), Adaptive()])
def test_times_that_agree_are_those_of_all(solver):
    model = StateSpaceModel(2, 4, 1, dtype=F64, seed=1)
    y = model(X, T[0], solver=solver)
    assert torch.allclose(model(X, T[0].expand(BATCH, -1), solver=solver), y, rtol=1e-13, atol=1e-13)


def test_the_error_is_that_of_the_sequences_judged():
    x = 0.1 * torch.randn(80, TIMES, 2, dtype=F64, generator=GENERATOR)
    t = torch.linspace(0, 0.5, TIMES, dtype=F64) * (1 + torch.rand(80, 1, dtype=F64, generator=GENERATOR))
    model = make("tanh").requires_grad_(False)
    found = model.respond(x, t, solver=Fused()).solution.error_estimate
    fine = model.respond(x, t, solver=Fused(substeps=8, check=False)).solution.h
    h = model.respond(x, t, solver=Fused(check=False)).solution.h
    off = torch.linalg.vector_norm(h - fine, dim=(-2, -1)) / torch.linalg.vector_norm(h, dim=(-2, -1))
    assert 0.2 * float(off.max()) < found < 2 * float(off.max())


def test_a_choice_of_solver_keeps_to_its_tolerance():
    model = make("tanh")
    path = interpolate(T, X, "linear")
    h0 = model.rest_state().expand(BATCH, -1)
    solver = choose_solver(model.field(), path, T, h0, 1e-5)
    assert isinstance(solver, Fused)
    tight = model(X, T, solver=Adaptive(rtol=1e-9, atol=1e-11))
    assert torch.linalg.vector_norm(model(X, T, solver=solver) - tight) < 1e-4 * torch.linalg.vector_norm(tight)


def test_many_groups_are_said_once(caplog, monkeypatch):
    monkeypatch.setattr(sequences, "_said", [])
    t, x = T.repeat(8, 1) + torch.rand(40, 1, dtype=F64), X.repeat(8, 1, 1)
    with caplog.at_level(logging.WARNING, "odernn"):
        for _ in range(2):
            make("tanh")(x, t)
    assert [record.message for record in caplog.records if "one after the other" in record.message] == [
        "times of each sequence: Adaptive solves 40 groups of them one after the other; Fused takes them all at once"
    ]


def test_a_solve_that_diverges_says_when():
    model = StateSpaceModel(2, 2, 1, dtype=F64, seed=1)
    model.set_matrix(torch.eye(2, dtype=F64) * 400)
    t = T.clone()
    t[:4] = torch.linspace(0, 0.1, TIMES, dtype=F64)
    with pytest.raises(DivergedSolve, match=r"diverged at t = (8|9|1\d)"):
        model(X, t)


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (T[:4], r"t has shape \(4, 12\), times of 4 sequences, x \(5, 12, 2\) holds 5"),
        (T[:, :-1], "with 11 times"),
        (T.flip(1), r"t is not increasing \(t\[0, 0\]"),
        (T.unsqueeze(0), r"expected \(time,\) or \(batch, time\)"),
        (T.where(T[2, 3] != T, torch.nan), r"t\[2, 3\] is not finite"),
        ((20 * T + 1e6).float(), "too coarse"),
    ],
)
def test_times_that_do_not_fit_are_refused(t, message):
    with pytest.raises(ValueError, match=message):
        make("tanh")(X, t)


def test_transforms_refuse_times_of_each_sequence():
    model = make("tanh")
    with pytest.raises(ValueError, match="times of each sequence"):
        torch.func.grad(lambda x: model(x, T).sum())(X)


def test_the_target_of_inputs_has_times_of_all():
    with pytest.raises(ValueError, match=r"t has shape"):
        inputs.random_fourier(T, 3)
