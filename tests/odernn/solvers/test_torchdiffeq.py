from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from problems import F64, central_difference, dop853, perturb_bias
from torchdiffeq._impl.odeint import SOLVERS as INSTALLED_METHODS

from odernn import ContinuousRNN, DivergedSolve, Exact, StateSpaceModel, TorchDiffEq, paths
from odernn.solvers import METHODS

ADAPTIVE = {"dopri8": 8, "dopri5": 5, "bosh3": 3, "fehlberg2": 2, "adaptive_heun": 2}
ORDERS = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}
MULTISTEP = ("explicit_adams", "implicit_adams", "fixed_adams")


def nonlinear_problem():
    """A tanh RNN over one interval whose drive runs from -1 to 2: its solution is not a polynomial in t."""
    model = perturb_bias(ContinuousRNN(1, 3, 1, "tanh", "dense", dtype=F64))
    t = torch.tensor([0.0, 2.0], dtype=F64)
    path = paths.linear(t, torch.tensor([[[-1.0], [2.0]]], dtype=F64))
    h0 = torch.tensor([[0.3, -0.2, 0.5]], dtype=F64)
    return model, path, t, h0, dop853(model, path, t, h0)


def test_every_method_of_the_installed_torchdiffeq_is_on_offer():
    assert tuple(INSTALLED_METHODS) == METHODS
    assert set(METHODS) == {*ADAPTIVE, *ORDERS, *MULTISTEP, "scipy_solver"}


@pytest.mark.parametrize("method", ORDERS)
def test_fixed_step_methods_converge_at_their_order(method):
    model, path, t, h0, reference = nonlinear_problem()
    steps = np.array([0.2, 0.1, 0.05, 0.025])
    errors = [
        (model.solve(path, t, h0, solver=TorchDiffEq(method, step_size=float(step), adjoint=False, check=False)).h - reference)
        .abs()
        .max()
        .item()
        for step in steps
    ]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(ORDERS[method], abs=0.25)


@pytest.mark.parametrize("method", MULTISTEP)
def test_multistep_methods_converge(method):
    model, path, t, h0, reference = nonlinear_problem()
    # torchdiffeq's explicit Adams goes up to order 12, whose region of stability is tiny: it needs small steps.
    steps = (0.01, 0.0025) if method == "explicit_adams" else (0.05, 0.0125)
    coarse, fine = (
        (model.solve(path, t, h0, solver=TorchDiffEq(method, step_size=step, adjoint=False, check=False)).h - reference)
        .abs()
        .max()
        .item()
        for step in steps
    )
    assert fine < 1e-5
    assert fine < coarse / 4**2  # they start up at low order; at least second order remains


def test_a_corrector_that_does_not_converge_is_an_error():
    model = ContinuousRNN(1, 3, 1, "linear", "dense", dtype=F64)
    model.set_matrix(-20 * torch.eye(3))
    t = torch.linspace(0, 1, 2, dtype=F64)
    with pytest.raises(DivergedSolve, match="Functional iteration did not converge"):
        model(torch.ones(1, 2, 1, dtype=F64), t, solver=TorchDiffEq("implicit_adams", step_size=0.1))


@pytest.mark.parametrize("method", [*ADAPTIVE, "scipy_solver"])
@pytest.mark.parametrize("interpolation", ["linear", "hold"])
def test_adaptive_methods_keep_to_their_tolerance_across_kinks_and_jumps(method, interpolation):
    model = perturb_bias(ContinuousRNN(2, 3, 1, "tanh", "dense", dtype=F64))
    t = torch.tensor([0.0, 0.3, 0.5, 1.0], dtype=F64)
    x = torch.randn(2, 4, 2, dtype=F64)
    path = paths.interpolate(t, x, interpolation)
    h0 = torch.zeros(2, 3, dtype=F64)
    reference = dop853(model, path, t, h0)
    # A tolerance bounds the estimated error of a step; torchdiffeq's Fehlberg pair of order 2 underestimates it.
    factor = 100 if method == "fehlberg2" else 10
    for tolerance in (1e-4, 1e-7):
        solver = TorchDiffEq(method, rtol=tolerance, atol=tolerance)
        assert (model.solve(path, t, h0, solver=solver).h - reference).abs().max() < factor * tolerance


def test_outputs_between_the_breakpoints_of_the_input_are_those_of_the_solution():
    model, path, _, h0, _ = nonlinear_problem()
    t = torch.tensor([0.0, 0.7, 1.1, 2.0], dtype=F64)
    reference = dop853(model, path, t, h0)
    for solver in (TorchDiffEq("dopri5", 1e-10, 1e-12), TorchDiffEq("rk4", step_size=0.01)):
        assert (model.solve(path, t, h0, solver=solver).h - reference).abs().max() < 1e-8


@pytest.mark.parametrize("interpolation", ["linear", "hold"])
@pytest.mark.parametrize("recurrence", ["dense", "diagonal", "complex", "symmetric"])
@pytest.mark.parametrize("even", [True, False])
def test_exact_is_exact_on_any_grid(recurrence, interpolation, even):
    t = torch.linspace(0, 2, 9, dtype=F64)
    if not even:
        t = t + 0.05 * torch.sin(7 * t)
    model = perturb_bias(StateSpaceModel(2, 4, 1, "tanh", recurrence, "direct", dtype=F64))
    path = paths.interpolate(t, torch.randn(3, 9, 2, dtype=F64), interpolation)
    h0 = torch.randn(3, 4, dtype=F64)
    assert torch.allclose(model.solve(path, t, h0, solver=Exact()).h, dop853(model, path, t, h0), atol=1e-11)


def test_exact_holds_from_vanishing_to_stiff_rates():
    model = StateSpaceModel(1, 6, 1, "linear", "diagonal", bias=False, dtype=F64)
    rates = torch.tensor([1e-12, 1e-6, 1e-2, 0.49, 10.0, 1e4], dtype=F64)
    model.set_matrix(torch.diag(-rates))
    t = torch.tensor([0.0, 1.0, 2.0], dtype=F64)
    h = model.solve(paths.heaviside(t, torch.ones(1, 1, dtype=F64)), t, solver=Exact()).h[0]
    expected = model.layer_weights[0].U[:, 0] * (-torch.expm1(-rates * t[:, None]) / rates)
    assert torch.allclose(h, expected, rtol=1e-13)


SOLVERS = {
    "adjoint dopri5": TorchDiffEq("dopri5", rtol=1e-9, atol=1e-11, adjoint=True),
    "adjoint rk4": TorchDiffEq("rk4", step_size=0.01, adjoint=True),
    "backpropagation dopri5": TorchDiffEq("dopri5", rtol=1e-9, atol=1e-11, adjoint=False),
    "backpropagation rk4": TorchDiffEq("rk4", adjoint=False, check=False),
    "scipy": TorchDiffEq("scipy_solver", rtol=1e-10, atol=1e-12),
    "exact": Exact(),
}


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", ["linear", "hold"])
@pytest.mark.parametrize("name", SOLVERS)
def test_gradients_of_every_parameter_and_the_input_agree_with_central_differences(name, interpolation):
    solver = SOLVERS[name]
    t = torch.tensor([0.0, 0.15, 0.2], dtype=F64)
    structures = [
        ("dense", "direct"),
        ("diagonal", "exp"),
        ("complex", "softplus"),
        ("symmetric", "inverse"),
        ("diagonal", "lru"),
    ]
    for recurrence, parameterization in structures:
        cls = StateSpaceModel if name == "exact" else ContinuousRNN
        model = perturb_bias(cls(2, 2, 1, "tanh", recurrence, parameterization, dtype=F64))
        x = torch.randn(1, 3, 2, dtype=F64).requires_grad_()
        target = torch.randn(1, 3, 1, dtype=F64)

        def loss(model=model, x=x, target=target):
            return (model(x, t, solver=solver, interpolation=interpolation) - target).square().mean()

        loss().backward()
        scale = max(parameter.grad.abs().max() for parameter in model.parameters())
        for label, parameter in [*model.named_parameters(), ("x", x)]:
            expected = central_difference(loss, parameter)
            assert torch.allclose(parameter.grad, expected, rtol=1e-6, atol=1e-6 * float(scale)), (label, recurrence)


def test_a_solution_counts_its_evaluations():
    model, path, t, h0, _ = nonlinear_problem()
    solution = model.solve(path, t, h0, solver=TorchDiffEq("rk4", step_size=0.1))
    assert solution.evaluations == 4 * math.ceil(2 / 0.1)
    assert model.solve(path, t, h0, solver=TorchDiffEq("dopri5")).evaluations > 6


def test_single_precision_stays_single():
    model = ContinuousRNN(2, 4, 1, dtype=torch.float32)
    t = torch.linspace(0, 1, 5)
    x = torch.randn(3, 5, 2)
    reference = model.double()(x.double(), t.double(), solver=TorchDiffEq("dopri5", 1e-9, 1e-10))
    for interpolation in ("linear", "hold"):
        for method in ("rk4", "dopri5"):
            solver = TorchDiffEq(method, step_size=0.02 if method == "rk4" else None)
            y = model.float()(x, t, solver=solver, interpolation=interpolation)
            assert y.dtype == torch.float32
            if interpolation == "linear":
                assert torch.allclose(y.double(), reference, atol=1e-4)
