"""Stacks of layers in one compiled solve."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from problems import F64, dop853, perturb_bias
from solves import RECURRENCES, assert_close, problem, relative, states_and_gradients

from odernn import Adaptive, ContinuousRNN, DivergedSolve, Fused, StateSpaceModel, TorchDiffEq, paths
from odernn.activations import ACTIVATIONS
from odernn.solvers import batched_products
from odernn.solvers.numba.plan import SET_STRIDE

BACKENDS = ("numba", "products", "torch")
FORMS = (ContinuousRNN, StateSpaceModel)
REFERENCE = TorchDiffEq("rk4", adjoint=False, check=False)
TIGHT = TorchDiffEq("dopri5", 1e-11, 1e-13, adjoint=False)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fixed_steps_are_torchdiffeqs_in_states_and_gradients(activation, backend):
    for cls in FORMS:
        for layers, recurrence in enumerate(RECURRENCES, 2):
            model = perturb_bias(cls(2, 6, 1, activation, *recurrence, num_layers=layers, dtype=F64))
            arguments = problem(model, interpolation=("linear", "hold", "jumps")[layers % 3])
            expected = states_and_gradients(model, REFERENCE, *arguments)
            assert_close(states_and_gradients(model, Fused(backend=backend, check=False), *arguments), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cls", FORMS)
def test_ensembles_and_inputs_of_their_own(cls, backend):
    model = perturb_bias(cls(2, 6, 1, "tanh", "complex", "exp", num_layers=3, ensemble=(2, 3), dtype=F64))
    for x_axes in ((), (3,), (2, 3)):
        arguments = problem(model, interpolation="jumps", x_axes=x_axes)
        expected = states_and_gradients(model, Fused(substeps=2, backend="torch", check=False), *arguments)
        assert_close(states_and_gradients(model, Fused(substeps=2, backend=backend, check=False), *arguments), expected)


@pytest.mark.parametrize("size", [1, 3, 8, 17])
@pytest.mark.parametrize("cls", FORMS)
def test_sizes_of_layer_and_batch(cls, size):
    for batch, times, layers in ((1, 2, 2), (19, 3, 5)):
        model = perturb_bias(cls(1, size, 1, "sigmoid", num_layers=layers, dtype=F64))
        arguments = problem(model, batch=batch, times=times)
        expected = states_and_gradients(model, Fused(backend="torch", check=False), *arguments)
        assert_close(states_and_gradients(model, Fused(check=False), *arguments), expected)
        model, arguments = model.float(), [a.float() if isinstance(a, torch.Tensor) else a for a in arguments]
        found = states_and_gradients(model, Fused(check=False), *arguments)
        assert_close(found, expected, 3e-6, 3e-5)


def test_rows_that_a_cache_would_hold_in_few_sets():
    size = SET_STRIDE // 8
    model = perturb_bias(StateSpaceModel(1, size, 1, "tanh", num_layers=2, dtype=F64))
    arguments = problem(model, batch=2, times=3)
    expected = states_and_gradients(model, Fused(backend="torch", check=False), *arguments)
    assert_close(states_and_gradients(model, Fused(check=False), *arguments), expected)


def test_long_solves_of_products_go_in_segments(monkeypatch):
    monkeypatch.setattr(batched_products, "SEGMENT_BYTES", 20_000)
    model = perturb_bias(StateSpaceModel(1, 4, 1, "tanh", num_layers=2, dtype=F64))
    arguments = problem(model, times=9)
    expected = states_and_gradients(model, Fused(backend="torch", check=False), *arguments)
    assert_close(states_and_gradients(model, Fused(backend="products", check=False), *arguments), expected)


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
@pytest.mark.parametrize("cls", FORMS)
def test_the_error_of_adaptive_steps_follows_the_tolerance(cls, method, backend):
    model = perturb_bias(cls(2, 3, 1, "tanh", "symmetric", "softplus", num_layers=3, dtype=F64))
    x, t, h0, *_ = problem(model, batch=3, times=4)
    path = paths.linear(t, x)
    exact = dop853(model, path, t, h0)
    for tolerance in (1e-3, 1e-5, 1e-7):
        h = model.solve(path, t, h0, solver=Adaptive(method, tolerance, tolerance, backend, check=False)).h
        assert float((h - exact).detach().abs().max()) < 20 * tolerance


@pytest.mark.parametrize("interpolation", ["linear", "hold", "jumps"])
@pytest.mark.parametrize("cls", FORMS)
def test_gradients_of_adaptive_steps(cls, interpolation):
    for layers, recurrence in enumerate(RECURRENCES, 2):
        model = perturb_bias(cls(2, 4, 1, "tanh", *recurrence, num_layers=layers, ensemble=(2,), dtype=F64))
        arguments = problem(model, batch=9, times=4, interpolation=interpolation)
        tight = states_and_gradients(model, Adaptive("tsit5", 1e-10, 1e-12), *arguments)
        assert_close(tight, states_and_gradients(model, TIGHT, *arguments), 1e-8, 1e-8)
        # One block of sequences takes the steps of the plain form.
        arguments = problem(model, batch=8, times=4, interpolation=interpolation)
        loose = [Adaptive("dopri5", 1e-3, 1e-5, backend, check=False) for backend in ("numba", "torch")]
        assert_close(*(states_and_gradients(model, solver, *arguments) for solver in loose), 1e-10, 1e-8)


def test_many_steps_in_one_interval_go_back_in_segments():
    model = perturb_bias(StateSpaceModel(1, 3, 1, "tanh", num_layers=2, dtype=F64))
    x, _, h0, weights, _ = problem(model, batch=8, times=3)
    arguments = x, torch.tensor([0.0, 9.0, 20.0], dtype=F64), h0, weights, "linear"
    found, expected = (
        states_and_gradients(model, Adaptive(rtol=1e-8, atol=1e-10, backend=backend, check=False), *arguments)
        for backend in ("numba", "torch")
    )
    assert_close(found, expected, 1e-10, 1e-8)


@pytest.mark.parametrize("cls", FORMS)
def test_the_default_solver_takes_them(cls):
    model = perturb_bias(cls(1, 4, 1, "tanh", num_layers=2, dtype=F64))
    x, t, *_ = problem(model)
    response = model.respond(x, t)
    assert response.solution.accepted > 0
    assert relative(response.y, model(x, t, solver=TIGHT)) < 1e-4


def test_one_layer_that_diverges_is_an_error():
    model = ContinuousRNN(1, 2, 1, "relu", num_layers=2, dtype=F64)
    model.set_matrix(40 * torch.eye(2, dtype=F64), layer=1)
    x, t = torch.ones(3, 400, 1, dtype=F64), torch.linspace(0, 100, 400, dtype=F64)
    with torch.no_grad():
        model.layer_weights[1].U.fill_(1.0)
        model.layer_weights[0].U.fill_(1.0)
    for solver in (None, Fused(check=False)):
        with pytest.raises(DivergedSolve, match=r"spectrum of W = 40"):
            model(x, t, solver=solver)


def test_an_estimate_is_not_that_of_another_activation_between_layers():
    models = [perturb_bias(StateSpaceModel(1, 4, 1, name, num_layers=2, seed=0, dtype=F64)) for name in ("tanh", "relu")]
    t = torch.linspace(0, 2, 11, dtype=F64)
    x = torch.randn(3, 11, 1, dtype=F64, generator=torch.Generator().manual_seed(0))
    alone = [model.respond(x.clone(), t, "zero", solver=Fused(substeps=8)).solution.error_estimate for model in models]
    assert alone[0] != alone[1]
    assert [model.respond(x, t, "zero", solver=Fused(substeps=8)).solution.error_estimate for model in models] == alone


def test_layers_of_different_sizes_or_structures_are_not_taken():
    def layer(size, recurrence, inputs):
        return ContinuousRNN(inputs, size, 1, "tanh", *recurrence, dtype=F64).field().layers[0]

    field = ContinuousRNN(1, 4, 1, dtype=F64).field()
    below = layer(4, ("dense", "direct"), 1)
    for above in (layer(3, ("dense", "direct"), 4), layer(4, ("diagonal", "softplus"), 4)):
        mixed = replace(field, layers=(below, above))
        assert not Fused().supports(mixed)
        assert not Adaptive().supports(mixed)
    t = torch.arange(3, dtype=F64)
    with pytest.raises(ValueError, match="layers of one size and one structure of W"):
        Fused().solve(mixed, paths.linear(t, torch.zeros(1, 3, 1, dtype=F64)), t, torch.zeros(1, 8, dtype=F64))
