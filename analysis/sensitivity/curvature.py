"""Curvature of a training loss in the weights of a model: the Hessian, or its Gauss-Newton part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import grad

from odernn.citations import record
from odernn.losses import LOSSES, Loss
from odernn.paths import Interpolation
from odernn.solvers import Solver
from odernn.training import Data
from targets import arguments

from .measured import Derivatives
from .weight_matrix import WeightMatrix, check_weights

Kind = Literal["gauss_newton", "hessian"]
# Bytes of the derivatives of some sequences in all weights.
_JACOBIAN_BYTES = 2**28


def loss_curvature(
    model: nn.Module,
    data: Data,
    loss: str | Loss = "mse",
    *,
    kind: Kind = "gauss_newton",
    weights: Sequence[str] | None = None,
    solver: Solver | str | None = None,
    interpolation: Interpolation = "linear",
) -> WeightMatrix:
    """The second derivatives of a training loss in the weights.

    For L = sum_n a_n (y_n - target_n)^2 and J = dy/dtheta the Hessian is

        2 J^T diag(a) J + 2 sum_n a_n (y_n - target_n) d2y_n/dtheta2,

    whose first term, Gauss-Newton's, has no negative eigenvalues, and is all of it where the model fits the data.

    Args:
        model: a model of `odernn` (one member of an ensemble), or a torch module on (batch, time, channel).
        data: its training sequences, of common times; missing targets have no weight.
        loss: a name of `odernn.losses.LOSSES`, or a function (y, target, mask) -> () or (1,).
        kind: 'gauss_newton', which needs a loss that is a weighted sum of squares, or 'hessian'.
        weights: names of `model.named_parameters()`; None for all that are trained.
        solver, interpolation: as in `measured_sensitivity`.

    Returns:
        The matrix; .largest is the largest eigenvalue, .trace the trace, .block("c") a part.

    Raises:
        ValueError: a model, data or loss that does not fit, more than 4096 weights (name some), a curvature that is not finite.
        DivergedSolve: the state did not stay finite.

    Source: of recurrent models [VEG] Fig 4.

    Example:
        loss_curvature(model, Data.split(t, x, y)).largest
    """
    record(loss_curvature)
    arguments.choice("kind", kind, get_args(Kind))
    arguments.instance("data", data, Data, "make one with Data.split(t, x, y)")
    function: Loss = LOSSES[arguments.choice("loss", loss, LOSSES)] if isinstance(loss, str) else loss
    along = Derivatives(model, weights=weights, solver=solver, interpolation=interpolation)
    check_weights(along.weights, "name some with weights=")
    with torch.no_grad():
        along(along.theta, data.x, data.t)  # says so where the solve diverges, or where its steps are too long
    matrix = _hessian(along, data, function) if kind == "hessian" else _gauss_newton(along, data, function)
    if not torch.isfinite(matrix).all():
        raise ValueError("the curvature is not finite: derivatives overflow; take a model that is stable on these inputs")
    return WeightMatrix((matrix + matrix.mT) / 2, tuple(along.weights), along.shapes)


def _hessian(along: Derivatives, data: Data, loss: Loss) -> Tensor:
    samples = data.training

    def value(theta: Tensor) -> Tensor:
        return loss(along(theta, samples.x, samples.t), samples.y, samples.mask).sum()

    states = samples.x.shape[0] * samples.x.shape[1] * getattr(along.module.system, "hidden_size", 1)
    return torch.cat(list(along.columns(grad(value), states * along.theta.element_size())))


def _gauss_newton(along: Derivatives, data: Data, loss: Loss) -> Tensor:
    root, count = _root_weights(loss, data), along.theta.numel()
    matrix = torch.zeros(count, count).to(along.theta)
    bytes_each = count * root[0].numel() * root.element_size()
    for some in torch.arange(len(root), device=root.device).split(max(1, _JACOBIAN_BYTES // bytes_each)):
        part, weight = data.training[some], root[some]

        def weighted(theta: Tensor, part: Any = part, weight: Tensor = weight) -> Tensor:
            return weight * along(theta, part.x, part.t)

        with torch.no_grad():
            J = torch.cat([columns.flatten(1) for columns in along.columns(weighted, weight.numel() * weight.element_size())])
        matrix += 2 * J @ J.mT
    return matrix


def _root_weights(loss: Loss, data: Data) -> Tensor:
    """The roots of a_n, from the gradient at residuals of 1, (batch, time, output)."""
    residuals, zeros = torch.ones_like(data.y).requires_grad_(), torch.zeros_like(data.y)
    (gradient,) = torch.autograd.grad(loss(residuals, zeros, data.mask).sum(), residuals)
    others = torch.linspace(-1, 2, zeros.numel()).to(zeros).reshape(zeros.shape)
    expected = (gradient / 2 * others.square()).sum()
    if (gradient < 0).any() or not torch.isclose(loss(others, zeros, data.mask).sum(), expected, rtol=1e-5):
        raise ValueError("the loss is no weighted sum of squares, which Gauss-Newton needs; take kind='hessian'")
    return (gradient / 2).sqrt()
