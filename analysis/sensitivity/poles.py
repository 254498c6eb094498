"""Linear models of one layer as poles and residues, and as impulse responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from odernn.fields import VectorField
from odernn.models import SequenceModel
from odernn.parameterizations import Time
from odernn.state_matrices import DenseMatrix, StateMatrix
from targets import arguments

Observed = Literal["output", "state"]
# Eigenvectors of a dense W with a larger condition number: residues cancel, and keep fewer than 8 digits.
_WORST_CONDITION = 1e8


@dataclass(frozen=True)
class Poles:
    """The response of a linear model, differentiable in its raw weights:

        y_o = mean_o + sum_i sum_p a_oip (k_p * x_i),   k_p(t) = e^{z_p t},   of maps k_p(n) = z_p^{n-1}, n >= 1.

    Args:
        z: eigenvalues, complex, (..., P), with both partners of every pair.
        a: residues, complex, (..., output, input, P).
        bias: residues of the bias, complex, (..., output, P).
        time: whether the state flows or jumps once a sample.
        step: time between two samples of a map.
    """

    z: Tensor
    a: Tensor
    bias: Tensor
    time: Time
    step: float

    @property
    def decays(self) -> Tensor:
        """Of each pole, bool."""
        return self.z.real < 0 if self.time == "continuous" else self.z.abs() < 1

    @property
    def mean(self) -> Tensor:
        """What the bias makes of no input by the modes that decay, (..., output)."""
        z = torch.where(self.decays, self.z, -1.0 if self.time == "continuous" else 0.0)
        gain = torch.where(self.decays, -1 / z if self.time == "continuous" else 1 / (1 - z), 0.0)
        return (self.bias * gain.unsqueeze(-2)).sum(-1).real


@dataclass(frozen=True)
class _Linear:
    """h' = W h + U x + b, of maps the next state, and y = c h, in double precision."""

    W: StateMatrix
    U: Tensor
    b: Tensor
    c: Tensor
    time: Time
    step: float


def poles(model: SequenceModel, *, of: Observed = "output", dt: float | None = None) -> Poles:
    """Poles and residues of one linear layer, in double precision.

    Args:
        model: linear, one layer; an ensemble has leading axes.
        of: 'output' for y, or 'state' for h: its m entries stand where outputs do.
        dt: time between two samples of a map, 1 by default; a `DiscreteRNN` must be given it.

    Raises:
        ValueError: another kind of model, a missing dt, or a dense W whose eigenvectors all but coincide.
    """
    arguments.choice("of", of, get_args(Observed))
    linear = _linear(model, of, dt)
    W, c = linear.W, linear.c
    U = torch.cat([linear.U, linear.b.unsqueeze(-1)], -1)
    if isinstance(W, DenseMatrix):
        z, V = torch.linalg.eig(W.W)
        condition = float(torch.linalg.cond(V.detach()).max())
        if not condition < _WORST_CONDITION:
            raise ValueError(
                f"the eigenvectors of W have the condition number {condition:.2g}, and their residues lose their digits; "
                "perturb W, or take measured_sensitivity and loss_curvature"
            )
        a = _residues(c.to(V) @ V, torch.linalg.solve(V, U.to(V)).mT)
    else:
        a = _residues(W.to_modes(c).conj(), W.to_modes(U.mT))
        z = W.eigenvalue
        if z.is_complex():
            z, a = torch.cat([z, z.conj()], -1), torch.cat([a, a.conj()], -1) / 2
        else:
            z, a = torch.complex(z, torch.zeros_like(z)), torch.complex(a, torch.zeros_like(a))
    return Poles(z, a[..., :-1, :], a[..., -1, :], linear.time, linear.step)


def impulse_response(model: SequenceModel, count: int, *, dt: float | None = None) -> Tensor:
    """g_1, ..., g_count of a linear map of one layer, y_n = mean + sum_k g_k x_{n-k}: g_k = c W^{k-1} U.

    Unstable ones have their true, large values. Dense W by doubling, W^n [U, .., W^{n-1} U]; others by powers.

    Args:
        model: as in `poles`.
        count: how many.
        dt: as in `poles`.

    Returns:
        (..., output, input, count).

    Raises:
        ValueError: a model in continuous time, or as `poles`.
    """
    count = arguments.count("count", count)
    linear = _linear(model, "output", dt)
    if linear.time == "continuous":
        raise ValueError(f"impulse responses by sample are those of maps, got a {type(model).__name__}; take DiscreteSSM")
    W, U, c = linear.W, linear.U, linear.c
    if isinstance(W, DenseMatrix):
        power, states, n = W.W, U, 1  # states: (..., m, n input), columns W^k U
        while n < count:
            states, power, n = torch.cat([states, power @ states], -1), power @ power, 2 * n
        g = (c @ states)[..., : count * U.shape[-1]]
        return g.unflatten(-1, (count, -1)).mT
    a = _residues(W.to_modes(c).conj(), W.to_modes(U.mT))
    z, k = W.eigenvalue.unsqueeze(-1), torch.arange(count).to(U)
    if z.is_complex():
        size, turn = z.abs() ** k, z.angle() * k
        g = a.real.flatten(-3, -2) @ (size * turn.cos()) - a.imag.flatten(-3, -2) @ (size * turn.sin())
    else:
        g = a.flatten(-3, -2) @ z**k
    return g.unflatten(-2, a.shape[-3:-1])


def _residues(c: Tensor, u: Tensor) -> Tensor:
    """(..., output, input, modes) of c (..., output, modes) and u (..., input, modes)."""
    return c.unsqueeze(-2) * u.unsqueeze(-3)


def _linear(model: SequenceModel, of: Observed, dt: float | None) -> _Linear:
    arguments.instance("model", model, SequenceModel, "give a model of odernn")
    field: VectorField = model.field()
    if len(field.layers) != 1 or not field.activation.linear:
        what = f"{len(field.layers)} layers" if len(field.layers) != 1 else f"activation {field.activation.name!r}"
        raise ValueError(
            f"exact expectations are those of models of one linear layer, got {what}; take activation='linear', or "
            "measured_sensitivity and loss_curvature"
        )
    field = field.mapped(torch.Tensor.double)
    layer, step = field.layers[0], 1.0 if dt is None else arguments.number("dt", dt, above=0)
    eye = torch.eye(model.hidden_size).to(layer.U)
    c = field.c if of == "output" else eye.expand(*model.ensemble, -1, -1)
    b = torch.zeros_like(layer.U[..., 0]) if layer.b is None else layer.b
    if model.is_map and model.time == "continuous":  # h + dt (W h + U x)
        if dt is None:
            raise ValueError(f"a {type(model).__name__} moves by the time between two samples; give dt")
        return _Linear(layer.W.scaled_plus_identity(step), step * layer.U, step * b, c, "discrete", step)
    return _Linear(layer.W, layer.U, b, c, "discrete" if model.is_map else "continuous", step)
