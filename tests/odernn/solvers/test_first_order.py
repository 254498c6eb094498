from __future__ import annotations

import pytest
import torch
from problems import F64, central_difference, perturb_bias

from odernn import Adaptive, ContinuousRNN, Exact, Fused, StateSpaceModel, TorchDiffEq, paths

T = torch.linspace(0, 1, 6, dtype=F64) + 0.02 * torch.sin(2 * torch.arange(6))
X = torch.randn(3, 6, 1, dtype=F64, generator=torch.Generator().manual_seed(0))
FIRST_ORDER = {
    "adjoint": TorchDiffEq("dopri5", 1e-9, 1e-11),
    "adjoint rk4": TorchDiffEq("rk4", step_size=0.02),
    "adjoint scipy": TorchDiffEq("scipy_solver", 1e-9, 1e-9),
    "fused": Fused(check=False),
    "fused torch": Fused(backend="torch", check=False),
    "exact": Exact(),
    "adaptive": Adaptive(),
}
SECOND_ORDER = {
    "rk4": TorchDiffEq("rk4", adjoint=False, check=False),
    "dopri5": TorchDiffEq("dopri5", 1e-10, 1e-12, adjoint=False),
    "exact torch": Exact(backend="torch"),
    "adaptive torch": Adaptive("dopri5", 1e-10, 1e-12, backend="torch"),
}


def penalized(name, solver, output, interpolation="linear"):
    """A model and a loss with the penalty on a gradient; incoming gradients without a history where the output is h."""
    model = perturb_bias((StateSpaceModel if "exact" in name else ContinuousRNN)(1, 3, 1, dtype=F64))
    U = model.layer_weights[0].U

    def loss():
        if output == "y":
            value = model(X, T, solver=solver, interpolation=interpolation)
        else:
            value = model.solve(paths.interpolate(T, X, interpolation), T, solver=solver).h
        (gradient,) = torch.autograd.grad(value.sum(), U, create_graph=True)
        return sum(weight.square().sum() for weight in model.parameters()) + gradient.square().sum()

    return model, loss


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", ["linear", "hold"])
@pytest.mark.parametrize("output", ["h", "y"])
@pytest.mark.parametrize("name", FIRST_ORDER)
def test_a_gradient_penalty_is_refused_where_it_would_be_dropped(name, output, interpolation):
    model, loss = penalized(name, FIRST_ORDER[name], output, interpolation)
    for weight in (model.layer_weights[0].recurrence.W, model.layer_weights[0].U, *([model.c] if output == "y" else [])):
        with pytest.raises(RuntimeError, match=r"cannot be differentiated again.*TorchDiffEq\(\.\.\., adjoint=False\)"):
            torch.autograd.grad(loss(), weight)


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_a_gradient_with_a_graph_that_nobody_differentiates_is_the_gradient(name):
    model, _ = penalized(name, FIRST_ORDER[name], "y")
    found = [
        torch.autograd.grad(model(X, T, solver=FIRST_ORDER[name]).sum(), list(model.parameters()), create_graph=graph)
        for graph in (True, False)
    ]
    assert all(torch.allclose(a.detach(), b, rtol=1e-12, atol=1e-14) for a, b in zip(*found))


@pytest.mark.slow
@pytest.mark.parametrize("output", ["h", "y"])
@pytest.mark.parametrize("name", SECOND_ORDER)
def test_second_derivatives_of_backpropagation_agree_with_central_differences(name, output):
    model, loss = penalized(name, SECOND_ORDER[name], output)
    for weight in (model.layer_weights[0].recurrence.W, model.c):
        (gradient,) = torch.autograd.grad(loss(), weight)
        with torch.enable_grad():
            expected = torch.zeros_like(weight)
            for index in range(weight.numel()):
                flat = weight.data.view(-1)
                value = flat[index].item()
                flat[index] = value + 1e-4
                above = loss().item()
                flat[index] = value - 1e-4
                expected.view(-1)[index] = (above - loss().item()) / 2e-4
                flat[index] = value
        assert torch.allclose(gradient, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [*FIRST_ORDER, *SECOND_ORDER])
@pytest.mark.parametrize("interpolation", ["linear", "hold"])
def test_gradients_in_the_times_are_right_or_refused(name, interpolation):
    solver = (FIRST_ORDER | SECOND_ORDER)[name]
    model = perturb_bias((StateSpaceModel if "exact" in name else ContinuousRNN)(1, 3, 1, dtype=F64))
    t = T.clone().requires_grad_()

    def loss():
        return (model(X, t, "zero", solver=solver, interpolation=interpolation)[:, :, 0] * torch.arange(1, 7)).sum()

    if name not in ("rk4", "dopri5"):
        with pytest.raises(ValueError, match=r"TorchDiffEq\(\.\.\., adjoint=False\)"):
            loss()
        return
    (gradient,) = torch.autograd.grad(loss(), t)
    assert torch.allclose(gradient, central_difference(loss, t), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="times of the path itself"):
        model.solve(paths.interpolate(T, X, interpolation), t, "zero", solver=solver)
