"""Where a leaky network comes to rest under a constant drive, and where any other flow does."""

from __future__ import annotations

from collections.abc import Callable

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
# The last Newton step to a rest of a flow that nothing is known of, relative to 1 + |h|: larger where there is none near.
_NEAR = 1e-6


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


def settled_flow(F: Callable[[Tensor], Tensor], jacobian: Callable[[Tensor], Tensor], start: Tensor) -> tuple[Tensor, Tensor]:
    """The rest to which dh/dt = F(h) leads from `start`, and whether it leads to one, by the steps of `steady_potential`.

    Args:
        F: (..., n, m) to (..., n, m).
        jacobian: dF/dh, (..., n, m, m).
        start: (..., n, m).

    Returns:
        h, (..., n, m), and (..., n): False where the flow comes to no rest, or to one where the Jacobian is singular.
    """
    h, residual, J = start, F(start), jacobian(start)
    eye, size = torch.eye(h.shape[-1]).to(h), residual.abs().amax(-1)
    first, step = size, 0.5 / J.abs().sum(-1).amax(-1).clamp_min(torch.finfo(h.dtype).tiny)
    step = torch.where(torch.isfinite(step), step, 1.0)
    settled = torch.zeros_like(size, dtype=torch.bool)
    for _ in range(_MOST_STEPS):
        scale = (J.abs() @ h.abs().unsqueeze(-1)).squeeze(-1).amax(-1) + first
        settled = size <= _ROUNDINGS * torch.finfo(h.dtype).eps * scale
        if bool((settled | ~torch.isfinite(size)).all()):
            break
        move = torch.linalg.solve_ex(eye / step[..., None, None] - J, residual.unsqueeze(-1)).result.squeeze(-1)
        h = torch.where(settled.unsqueeze(-1), h, h + move)
        residual, J = F(h), jacobian(h)
        before, size = size, residual.abs().amax(-1)
        step = step * (2 * before / size).clamp(_SHORTEST, _LONGEST).nan_to_num(_LONGEST)
    last = torch.linalg.solve_ex(J, residual.unsqueeze(-1)).result.squeeze(-1).abs().amax(-1)
    return h, settled & (last <= _NEAR * (1 + h.abs().amax(-1)))


def _linearised(W: Tensor, v: Tensor, u: Tensor, activation: Activation) -> tuple[Tensor, Tensor]:
    """-u + W sigma(u) + v, (..., n, m), and its Jacobian in u, (..., n, m, m)."""
    value, slope = activation.value_and_derivative(u)
    eye = torch.eye(W.shape[-1]).to(W)
    return value @ W.mT + v - u, W.unsqueeze(-3) * slope.unsqueeze(-2) - eye
