"""The fused solve on the CPU: lays tensors out for the kernels of `_numba_kernels` and runs these.

Shapes are those of `odernn.solvers.fused.Problem`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numba
import numpy as np
import torch
from torch import Tensor

from . import _numba_kernels as kernels
from ._torch_backend import adjoint_entries

if TYPE_CHECKING:
    from .fused import Problem

_ACTIVATIONS = {
    "linear": kernels.LINEAR,
    "hardtanh": kernels.HARDTANH,
    "tanh": kernels.TANH,
    "relu": kernels.RELU,
    "sigmoid": kernels.SIGMOID,
}
_STRUCTURES = {"dense": kernels.DENSE, "diagonal": kernels.DIAGONAL, "pairs": kernels.PAIRS}
_SOURCES = {"samples": kernels.SAMPLES, "hold": kernels.HOLD, "jumps": kernels.JUMPS}
# Shares of work per thread: more than one evens out cores that are slowed down, each costs a sum of weight gradients.
_SHARES = 2
# Some of numba's threading layers do not stand two calls at once.
_lock = threading.Lock()


def forward(problem: Problem, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h0: Tensor) -> Tensor:
    plan = _plan(problem, W, V, left, h0)
    h = h0.new_empty(h0.shape[0], plan.batch, plan.intervals + 1, plan.m)
    h[:, :, 0] = h0
    W_forward = W.mT if problem.structure == "dense" else W
    tensors = _padded(W_forward, columns=plan.width), _padded(V.mT, plan.inputs, plan.width), left, right, h
    with _lock:
        _set_threads()
        kernels.runge_kutta(plan, _tableau(problem), problem.steps.numpy(), *map(_flat, tensors))
    return h


def backward(
    problem: Problem, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h: Tensor, g: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    members, m, d = h.shape[0], W.shape[-1], left.shape[-1]
    plan = _plan(problem, W, V, left, h[:, :, 0])
    W_forward = W.mT if problem.structure == "dense" else W
    W_adjoint = W if problem.structure == "dense" else adjoint_entries(problem.structure, W)
    of_W, of_V, of_x = wanted[0], wanted[1], wanted[2] or wanted[3]
    U = _padded(V[..., :-1], columns=_round_up(d, _lanes(V))) if of_x else V.new_empty(0)
    g_W = V.new_zeros(plan.items, plan.width if problem.structure == "dense" else W.shape[-2], plan.width)
    g_V = V.new_zeros(plan.items, plan.inputs, plan.width)
    g_left = left.new_empty(members, *left.shape[1:]) if of_x else left.new_empty(0)
    g_right = torch.empty_like(g_left) if problem.source == "jumps" else g_left
    g_h0 = h.new_empty(members, plan.batch, m)
    given = _padded(W_forward, columns=plan.width), _padded(W_adjoint, columns=plan.width), _padded(V.mT, plan.inputs, plan.width)
    sums = g_W if of_W else g_W[:0], g_V, g_left, g_right, g_h0
    with _lock:
        _set_threads()
        kernels.runge_kutta_adjoint(
            plan, _tableau(problem), problem.steps.numpy(), *map(_flat, (*given, U, left, right, h, g, *sums))
        )

    def total(shares: Tensor) -> Tensor:
        return shares.unflatten(0, (members, plan.per_member)).sum(1)

    return (
        total(g_W)[:, : W.shape[-2], :m] if of_W else None,
        total(g_V)[:, : d + 1, :m].mT if of_V else None,
        g_left.sum_to_size(left.shape) if of_x else None,
        g_right.sum_to_size(right.shape) if of_x and problem.source == "jumps" else None,
        g_h0,
    )


def _plan(problem: Problem, W: Tensor, V: Tensor, x: Tensor, h0: Tensor) -> kernels.Plan:
    members, batch, m = h0.shape
    width = _round_up(m, max(_lanes(W), kernels.ROWS))
    threads = _threads()
    # Tiles as large as caches like, but no fewer of them than threads.
    rows = max(1, kernels.TILE_ENTRIES // width // kernels.ROWS)
    fair = -(-batch // -(-threads // members))
    rows = min(rows * kernels.ROWS, _round_up(fair, kernels.ROWS))
    per_member = min(-(-batch // rows), -(-_SHARES * threads // members))
    return kernels.Plan(
        items=members * per_member,
        per_member=per_member,
        rows=rows,
        batch=batch,
        intervals=problem.steps.numel(),
        m=m,
        d=x.shape[-1],
        width=width,
        inputs=_round_up(x.shape[-1] + 1, kernels.ROWS),
        x_members=x.shape[0],
        weights=W.shape[-2] * width,
        structure=_STRUCTURES[problem.structure],
        source=_SOURCES[problem.source],
        activation=_ACTIVATIONS[problem.activation],
        substeps=problem.substeps,
    )


def _tableau(problem: Problem) -> kernels.Tableau:
    tableau = problem.tableau
    A = np.zeros((tableau.stages, tableau.stages))
    for i, row in enumerate(tableau.A):
        A[i, : len(row)] = row
    return kernels.Tableau(A, np.array(tableau.b), np.array(tableau.c))


def _threads() -> int:
    return min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)


def _set_threads() -> None:
    numba.set_num_threads(_threads())


def _lanes(like: Tensor) -> int:
    return kernels.VECTOR_BYTES // like.element_size()


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _padded(tensor: Tensor, rows: int | None = None, columns: int | None = None) -> Tensor:
    """The tensor with zeros after its rows and columns, contiguous."""
    rows, columns = rows or tensor.shape[-2], columns or tensor.shape[-1]
    out = tensor.new_zeros(*tensor.shape[:-2], rows, columns)
    out[..., : tensor.shape[-2], : tensor.shape[-1]] = tensor
    return out


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().view(-1).numpy()
