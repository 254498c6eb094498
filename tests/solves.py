"""One solve with its gradients in everything, to compare routes through it."""

from __future__ import annotations

from typing import Any

import torch
from problems import F64
from torch import Tensor

from odernn import paths
from odernn.models import ContinuousModel
from odernn.solvers import Solver

RECURRENCES = (("dense", "direct"), ("diagonal", "softplus"), ("symmetric", "exp"), ("complex", "inverse"), ("lru", "exp"))


def problem(
    model: ContinuousModel,
    *,
    batch: int = 5,
    times: int = 7,
    even: bool = False,
    interpolation: str = "linear",
    x_axes: tuple[int, ...] = (),
) -> tuple[Any, ...]:
    """x, t, h0, the weights of a scalar loss of the states, and the interpolation: what `states_and_gradients` takes."""
    generator = torch.Generator().manual_seed(1)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=F64)

    uneven = torch.cumsum(0.1 + 0.5 * torch.rand(times, generator=generator, dtype=F64), 0)
    t = torch.linspace(0, 2, times, dtype=F64) if even else uneven
    x = randn(*x_axes, batch, times, model.input_size)
    states = model.num_layers * model.hidden_size
    h0 = randn(*model.ensemble, batch, states)
    return x, t, h0, randn(*model.ensemble, batch, times, states), interpolation


def states_and_gradients(
    model: ContinuousModel, solver: Solver, x: Tensor, t: Tensor, h0: Tensor, loss_weights: Tensor, interpolation: Any
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """h and the gradients of a loss in every weight of the recurrence and drive, in x and in h0."""
    x, h0 = x.clone().requires_grad_(), h0.clone().requires_grad_()
    if interpolation == "jumps":
        path = paths.Path(t, "jumps", 2 * x[..., :-1, :], x[..., 1:, :] ** 2)
    else:
        path = paths.interpolate(t, x, interpolation)
    h = model.solve(path, t, h0, solver=solver).h
    weights = [weight for name, weight in model.named_parameters() if name != "c"]
    return h.detach(), torch.autograd.grad((h * loss_weights).sum(), [*weights, x, h0])


def assert_close(
    found: tuple[Tensor, tuple[Tensor, ...]],
    expected: tuple[Tensor, tuple[Tensor, ...]],
    states: float = 1e-12,
    gradients: float = 1e-10,
) -> None:
    assert relative(found[0], expected[0]) < states
    for a, b in zip(found[1], expected[1], strict=True):
        assert relative(a, b) < gradients


def relative(a: Tensor, b: Tensor) -> float:
    """The largest deviation of a from b, relative to the largest entry of b."""
    return float((a - b).detach().abs().max() / b.detach().abs().max().clamp_min(1e-300))
