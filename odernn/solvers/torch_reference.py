"""The fused solve in plain tensor operations: the oracle of the other backends.

Shapes are those of `odernn.solvers.standard_form.Problem`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import activations
from .standard_form import Problem


def forward(problem: Problem, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h0: Tensor) -> Tensor:
    v_left, v_right = drive(problem, V, left, right)
    h, states = h0, [h0]
    for interval, length in enumerate(lengths(problem.steps, h0)):
        for step in range(problem.substeps):
            _, _, k = _stages(problem, W, h, v_left[..., interval, :], v_right[..., interval, :], length, step)
            h = _advance(problem, h, k, length)
        states.append(h)
    return torch.stack(states, -2)


def backward(
    problem: Problem, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h_all: Tensor, g_all: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    v_left, v_right = drive(problem, V, left, right)
    derivative = activations.get(problem.activation).derivative_of_value
    assert derivative is not None  # of all that have kernels
    A, b, c = problem.tableau.A, problem.tableau.b, problem.tableau.c
    g_W = torch.zeros_like(W)
    g_left, g_right = torch.zeros_like(v_left), torch.zeros_like(v_right)
    g, steps = torch.zeros_like(h_all[..., 0, :]), lengths(problem.steps, h_all)
    for interval in reversed(range(len(steps))):
        length = steps[interval]
        dt = length / problem.substeps
        g = g + g_all[..., interval + 1, :]
        h, visited = h_all[..., interval, :], []
        for step in range(problem.substeps):
            y, a, k = _stages(problem, W, h, v_left[..., interval, :], v_right[..., interval, :], length, step)
            h = _advance(problem, h, k, length)
            visited.append((y, a))
        for step in reversed(range(problem.substeps)):
            y, a = visited[step]
            # The adjoint of k_i is dt (b_i g + sum_{j > i} A_ji g_y_j), that of z_i is sigma' times it.
            g_y: dict[int, Tensor] = {}
            for i in reversed(range(len(b))):
                g_k = dt * (b[i] * g + sum(A[j][i] * g_y[j] for j in g_y))
                g_z = g_k * derivative(a[i])
                g_y[i] = adjoint_product(problem, W, g_z, y[i])
                if problem.leaks:
                    g_y[i] = g_y[i] - g_k
                g_W += product_gradient(problem, g_z, y[i])
                fraction = (step + c[i]) / problem.substeps
                g_left[..., interval, :] += (1 - fraction) * g_z
                g_right[..., interval, :] += fraction * g_z
            g = g + sum(g_y.values())
    g_h0 = g + g_all[..., 0, :]
    return (g_W, *input_gradients(problem, V, left, right, g_left, g_right, wanted[2] or wanted[3]), g_h0)


def lengths(steps: Tensor, like: Tensor) -> Sequence[Any]:
    """Lengths of intervals, (K,), or (batch, K), as factors of states (..., batch, m): K numbers, or K tensors (batch, 1)."""
    return steps.tolist() if steps.ndim == 1 else steps.to(like).mT.unsqueeze(-1).unbind(0)


def product(problem: Problem, W: Tensor, y: Tensor) -> Tensor:
    """W_l y_l + U_l phi(y_{l-1}) of all layers, or W_l phi(y_l) + ..., for y (E, n, L m)."""
    own, above = blocks(problem, W)
    layers = y.chunk(problem.layers, -1)
    z = [_apply(problem.structure, W_l, _read_by_own(problem, y_l)) for W_l, y_l in zip(own, layers)]
    for index, U in enumerate(above):
        z[index + 1] = z[index + 1] + _emit(problem, layers[index]) @ U.mT
    return torch.cat(z, -1)


def adjoint_product(problem: Problem, W: Tensor, g: Tensor, y: Tensor) -> Tensor:
    """The gradient of y in z = product(W, y), from the gradient g of z."""
    own, above = blocks(problem, W)
    phi = activations.get(problem.between)
    assert phi.derivative_of_value is not None
    layers, of_layers = y.chunk(problem.layers, -1), g.chunk(problem.layers, -1)
    g_y = [_apply(problem.structure, adjoint_entries(problem.structure, W_l), g_l) for W_l, g_l in zip(own, of_layers)]
    if problem.inside:
        g_y = [phi.derivative_of_value(_emit(problem, y_l)) * g_l for y_l, g_l in zip(layers, g_y)]
    for index, U in enumerate(above):
        slope = phi.derivative_of_value(_emit(problem, layers[index]))
        g_y[index] = g_y[index] + slope * (of_layers[index + 1] @ U)
    return torch.cat(g_y, -1)


def product_gradient(problem: Problem, g: Tensor, y: Tensor) -> Tensor:
    """The gradient of W in z = product(W, y), from the gradient g of z, summed over n."""
    layers, of_layers = y.chunk(problem.layers, -1), g.chunk(problem.layers, -1)
    own = [_outer(problem.structure, g_l, _read_by_own(problem, y_l)) for g_l, y_l in zip(of_layers, layers)]
    above = [g_l.mT @ _emit(problem, y_l) for g_l, y_l in zip(of_layers[1:], layers)]
    return torch.cat([*own, *above], 1)


def blocks(problem: Problem, W: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """W_l of all layers, and U_l of those above the first."""
    above = (problem.layers - 1) * W.shape[-1]
    own, couplings = W.split([W.shape[-2] - above, above], -2)
    return own.chunk(problem.layers, -2), couplings.split(W.shape[-1], -2) if above else ()


def _emit(problem: Problem, y: Tensor) -> Tensor:
    return activations.get(problem.between)(y)


def _read_by_own(problem: Problem, y: Tensor) -> Tensor:
    return _emit(problem, y) if problem.inside else y


def rate(problem: Problem, W: Tensor, y: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
    """a = sigma(z) at states y, and their rates: a, or a - y."""
    a = activations.get(problem.activation)(product(problem, W, y) + drive)
    return a, a - y if problem.leaks else a


def _apply(structure: str, W: Tensor, y: Tensor) -> Tensor:
    """W y for y (E, batch, m) and the entries of W that belong to its structure."""
    if structure == "dense":
        return y @ W.mT
    own = W[:, :1] * y
    return own if structure == "diagonal" else own + W[:, 1:] * partners(y)


def adjoint_entries(structure: str, W: Tensor) -> Tensor:
    """The entries of W^T."""
    if structure == "dense":
        return W.mT
    return W if structure == "diagonal" else torch.cat([W[..., :1, :], partners(W[..., 1:, :])], -2)


def partners(y: Tensor) -> Tensor:
    """y with the entries of each pair exchanged."""
    return y.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


def _outer(structure: str, g: Tensor, y: Tensor) -> Tensor:
    if structure == "dense":
        return g.mT @ y
    own = (g * y).sum(-2, keepdim=True)
    return own if structure == "diagonal" else torch.cat([own, (g * partners(y)).sum(-2, keepdim=True)], 1)


def drive_along(V: Tensor, x: Tensor) -> Tensor:
    """U x + b at all times in one product, (E, batch, times, m)."""
    flat = x.flatten(1, 2).expand(V.shape[0], -1, -1)
    return torch.baddbmm(V[:, None, :, -1], flat, V[..., :-1].mT).unflatten(1, x.shape[1:3])


def drive(problem: Problem, V: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """U x + b at both ends of all intervals, (E, batch, K, m)."""
    v = drive_along(V, left)
    if problem.kind == "jumps":
        return v, drive_along(V, right)
    return (v, v) if problem.kind == "hold" else (v[..., :-1, :], v[..., 1:, :])


def input_gradients(
    problem: Problem, V: Tensor, left: Tensor, right: Tensor, g_left: Tensor, g_right: Tensor, wanted: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of V, left and right, from those of the drive."""
    if problem.kind == "linear":
        nothing = torch.zeros_like(g_left[..., :1, :])
        pieces = [(left, torch.cat([g_left, nothing], -2) + torch.cat([nothing, g_right], -2))]
    elif problem.kind == "hold":
        pieces = [(left, g_left + g_right)]
    else:
        pieces = [(left, g_left), (right, g_right)]
    g_V = torch.zeros_like(V)
    g_x: list[Tensor | None] = [None, None]
    for index, (x, g) in enumerate(pieces):
        flat = g.flatten(1, 2)
        g_V[..., :-1] += flat.mT @ x.flatten(1, 2)
        g_V[..., -1] += flat.sum(1)
        if wanted:
            g_x[index] = (flat @ V[..., :-1]).unflatten(1, x.shape[1:3]).sum_to_size(x.shape)
    return g_V, g_x[0], g_x[1]


def _stages(
    problem: Problem, W: Tensor, h: Tensor, v_left: Tensor, v_right: Tensor, length: Any, step: int
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Stage states y_i, a_i = sigma(z_i) and rates k_i of one step."""
    dt = length / problem.substeps
    y: list[Tensor] = []
    a: list[Tensor] = []
    k: list[Tensor] = []
    for row, c in zip(problem.tableau.A, problem.tableau.c):
        y.append(h + dt * sum(weight * k_j for weight, k_j in zip(row, k)) if k else h)
        drive = torch.lerp(v_left, v_right, (step + c) / problem.substeps)
        a_i, k_i = rate(problem, W, y[-1], drive)
        a.append(a_i)
        k.append(k_i)
    return y, a, k


def _advance(problem: Problem, h: Tensor, k: list[Tensor], length: Any) -> Tensor:
    return h + length / problem.substeps * sum(b * k_i for b, k_i in zip(problem.tableau.b, k))
