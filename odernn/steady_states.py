"""Where a leaky network comes to rest under a constant drive."""

from __future__ import annotations

import torch
from torch import Tensor

from targets import arguments

from .activations import Activation
from .state_matrices import DenseMatrix

# Steps to the steady state; they cover 2^n time constants where they grow all the time.
_MOST_STEPS = 100
# How much a step may grow or shrink from one to the next.
_LONGEST, _SHORTEST = 8.0, 1 / 8
# So many roundings of its terms a residual may be.
_ROUNDINGS = 16


def steady_potential(W: Tensor, v: Tensor, activation: Activation, start: Tensor) -> Tensor:
    """u with u = W sigma(u) + v; where there are several, the one to which du/dt = -u + W sigma(u) + v leads from `start`.

    r = sigma(u) then solves r = sigma(W r + v), and where dr/dt = -r + sigma(W r + v), that is how u = W r + v moves.

    By implicit Euler steps that grow as the residual falls, to Newton's in the end (pseudo-transient continuation: C. T. Kelley,
    D. E. Keyes, SIAM J. Numer. Anal. 35 (1998)). Derivatives in W and v, to the third, come from two steps of Newton's method
    from the solution found.

    Args:
        W: (..., m, m).
        v, start: (..., n, m).

    Returns:
        (..., n, m); NaN where that flow comes to no rest, or to one where the Jacobian is singular.
    """
    if v.dtype in (torch.float16, torch.bfloat16):  # LAPACK has no such kinds
        return steady_potential(W.float(), v.float(), activation, start.float()).to(v.dtype)
    with torch.no_grad():
        u, settled = _settled(W.detach(), v.detach(), activation, start)
    for _ in range(2):
        residual, jacobian = _linearised(W, v, u, activation)
        u = u - DenseMatrix(jacobian).solve(residual)
    return torch.where(settled.unsqueeze(-1), u, torch.nan)


def _settled(W: Tensor, v: Tensor, activation: Activation, start: Tensor) -> tuple[Tensor, Tensor]:
    """u, and whether it is the solution, (..., n)."""
    eye = torch.eye(W.shape[-1]).to(W)
    u = start.detach().expand(*torch.broadcast_shapes(W.shape[:-2], v.shape[:-2]), *v.shape[-2:])
    step = u.new_ones(u.shape[:-1])
    residual, jacobian = _linearised(W, v, u, activation)
    size = residual.abs().amax(-1)
    for _ in range(_MOST_STEPS):
        scale = u.abs().amax(-1) + v.abs().amax(-1) + 1
        settled = size <= _ROUNDINGS * torch.finfo(u.dtype).eps * scale
        if not arguments.traced() and bool((settled | ~torch.isfinite(size)).all()):
            break
        matrix = eye / step[..., None, None] - jacobian
        move = torch.linalg.solve_ex(matrix, residual.unsqueeze(-1)).result.squeeze(-1)
        u = torch.where(settled.unsqueeze(-1), u, u + move)
        residual, jacobian = _linearised(W, v, u, activation)
        before, size = size, residual.abs().amax(-1)
        step = step * (2 * before / size).clamp(_SHORTEST, _LONGEST).nan_to_num(_LONGEST)
    return u, settled


def _linearised(W: Tensor, v: Tensor, u: Tensor, activation: Activation) -> tuple[Tensor, Tensor]:
    """-u + W sigma(u) + v, (..., n, m), and its Jacobian in u, (..., n, m, m)."""
    value, slope = activation.value_and_derivative(u)
    eye = torch.eye(W.shape[-1]).to(W)
    return value @ W.mT + v - u, W.unsqueeze(-3) * slope.unsqueeze(-2) - eye
