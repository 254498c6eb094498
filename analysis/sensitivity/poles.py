"""Linear models as poles and residues: y_o = sum_i sum_p a_oip (k_p * x_i), k_p(t) = e^{l_p t}, of maps l_p^k."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odernn.models import SequenceModel
from odernn.parameterizations import Time
from odernn.state_matrices import DenseMatrix
from targets import arguments, grids

# Eigenvectors of a dense W with a larger condition number: their residues cancel, and keep fewer than 8 digits.
_WORST_CONDITION = 1e8


@dataclass(frozen=True)
class Poles:
    """The response of a linear model of one layer, differentiable in its raw weights.

    Args:
        l: eigenvalues of what advances the state, complex, (..., P), conjugate partners both among them.
        a: residues, complex, (..., output, input, P).
        time: whether the state flows or jumps once a sample.
        step: time between two samples of a map, 1 in continuous time.
    """

    l: Tensor
    a: Tensor
    time: Time
    step: float


def poles(model: SequenceModel, *, of: str = "output", dt: float | None = None) -> Poles:
    """Poles and residues of one linear layer.

    Args:
        model: linear, one layer; its bias, which x does not see, is left out.
        of: 'output' for y, or 'state' for h itself (its m entries stand where outputs do).
        dt: time between two samples, of a `DiscreteRNN`, whose step it is.

    Raises:
        ValueError: another kind of model, a missing dt, or a dense W whose eigenvectors all but coincide.
    """
    arguments.instance("model", model, SequenceModel, "give a model of odernn")
    arguments.choice("of", of, ("output", "state"))
    field = model.field()
    if len(field.layers) != 1 or not field.activation.linear:
        raise ValueError(
            f"second moments in closed form are those of one linear layer, got {len(field.layers)} layer(s) with activation "
            f"{field.activation.name!r}; take measured_sensitivity, or activation='linear'"
        )
    layer, m = field.layers[0], model.hidden_size
    W, U = layer.W, layer.U
    c = field.c if of == "output" else torch.eye(m, dtype=U.dtype, device=U.device)
    if isinstance(W, DenseMatrix):
        l, V = torch.linalg.eig(W.W)
        condition = float(torch.linalg.cond(V.detach()).max())
        if not condition < _WORST_CONDITION:
            raise ValueError(
                f"the eigenvectors of W have the condition number {condition:.2g}, and residues lose their digits: "
                "expected a W that is well diagonalisable; take measured_sensitivity"
            )
        left, right = c.to(V) @ V, torch.linalg.solve(V, U.to(V))
        a = left.unsqueeze(-2) * right.mT.unsqueeze(-3)
    elif W.imag is None:
        l = torch.complex(W.real, torch.zeros_like(W.real))
        real = c.unsqueeze(-2) * U.mT.unsqueeze(-3)
        a = torch.complex(real, torch.zeros_like(real))
    else:
        half = W.to_modes(c).conj().unsqueeze(-2) * W.to_modes(U.mT).unsqueeze(-3) / 2
        l, a = torch.cat([W.eigenvalue, W.eigenvalue.conj()], -1), torch.cat([half, half.conj()], -1)
    if model.is_map and model.time == "continuous":  # h + dt (W h + U x)
        if dt is None:
            raise ValueError(f"{type(model).__name__} moves by a step dt, got none; give dt, the time between two samples")
        step = arguments.number("dt", dt, above=0)
        return Poles(1 + step * l, step * a, "discrete", step)
    return Poles(l, a, "discrete" if model.is_map else "continuous", 1.0 if dt is None else arguments.number("dt", dt, above=0))


def impulse_response(model: SequenceModel, count: int) -> Tensor:
    """g_k, k = 1, ..., count, of a linear map of one layer: y_n = sum_k g_k x_{n-k}, (..., output * input, count).

    Dense W by doubling (W^{2 n} [..] = W^n [W^n ..]), so that unstable ones have their true, large values; diagonal W by powers.
    """
    field, count = model.field(), arguments.count("count", count)
    W, U, c = field.layers[0].W, field.layers[0].U, field.c
    if isinstance(W, DenseMatrix):
        A, states = W.W, U  # (..., m, d n), columns W^k U
        d, n = U.shape[-1], 1
        while n < count:
            states = torch.cat([states, A @ states], -1)
            A, n = A @ A, 2 * n
        g = (c @ states)[..., : d * count].unflatten(-1, (count, d))  # (..., output, count, d)
        return g.mT.flatten(-3, -2)
    modes = W.to_modes(c).conj().unsqueeze(-2) * W.to_modes(U.mT).unsqueeze(-3)
    l = W.eigenvalue
    k = torch.arange(count, dtype=U.dtype, device=U.device)
    modulus, angle = (l.abs(), l.angle()) if l.is_complex() else (l.abs(), None)
    size = modulus.unsqueeze(-1) ** k
    if angle is None:
        power = size * torch.where((l < 0).unsqueeze(-1) & (k % 2 == 1), -1.0, 1.0)
        return (modes.flatten(-3, -2) @ power)
    turn = angle.unsqueeze(-1) * k
    modes = modes.flatten(-3, -2)
    return modes.real @ (size * turn.cos()) - modes.imag @ (size * turn.sin())
