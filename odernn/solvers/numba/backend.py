"""Lays tensors out for the kernels of this folder and runs these."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from ..standard_form import EmbeddedPair, Problem, Scan, StepCount, Tableau
from ..torch_reference import adjoint_entries
from . import runge_kutta, scan
from .activations import CODES
from .compilation import Kernel
from .plan import DENSE, JUMPS, KINDS, ROWS, SET_STRIDE, STRUCTURES, TILE_ENTRIES, Plan
from .simd import VECTOR_BYTES
from .step_control import Control, count_steps

# Shares of work per thread: more than one evens out cores that are slowed down, each costs a sum of weight gradients.
_SHARES = 2
# Rows of a tile that chooses its steps, on every machine and any number of threads: the steps depend on them. Few, so that no
# sequence pays for many others, but no fewer than `product` takes at once.
ADAPTIVE_ROWS = 8
# Steps that the first record of an adaptive solve has room for: so many, and so many more in each interval.
_ROOM, _ROOM_PER_INTERVAL = 256, 8
# Steps of an interval that its adjoint holds in memory, at least.
_SEGMENT = 8
# Some of numba's threading layers are not thread-safe.
_lock = threading.Lock()
# In a forked child the threads of its parent are gone, and both OpenMP's and numba's wait for them, or end the process. One
# thread then runs the same shares of work one after the other, to the same bits. (PyTorch's own operations on large tensors hang
# in a child of a parent that ran some on several threads: start workers by 'spawn', or take torch.set_num_threads(1) before.)
_forked = False


def _after_fork() -> None:
    global _lock, _forked
    _lock, _forked = threading.Lock(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def forward(problem: Problem, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h0: Tensor) -> Tensor:
    """Shapes as for `Problem`."""
    plan = _runge_kutta_plan(problem, W, left, h0)
    h = _with_initial(h0, plan.intervals)
    W, V = _forwards(problem, W, V, plan)
    _run(runge_kutta.runge_kutta, plan, _tableau(problem.tableau), problem.steps, W, V, left, right, h)
    return h


def backward(
    problem: Problem, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h: Tensor, g: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    plan = _runge_kutta_plan(problem, W, left, h[:, :, 0])
    sums = _Sums.of(plan, problem, W, V, left, wanted)
    plan = sums.plan
    W_forwards, V_forwards = _forwards(problem, W, V, plan)
    given = W_forwards, _adjoint(problem, W, plan), V_forwards, _to_inputs(V, plan), left, right, h, g
    _run(runge_kutta.runge_kutta_adjoint, plan, _tableau(problem.tableau), problem.steps, *given, *sums.tensors)
    return sums.gradients(W, V, left, right)


@dataclass(frozen=True)
class Record:
    """The steps of an adaptive solve, tile by tile: see `adaptive.adaptive`."""

    steps: Tensor
    starts: Tensor
    counts: Tensor


def adaptive_forward(
    problem: Problem, control: Control, records: bool, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h0: Tensor
) -> tuple[Tensor, StepCount, Record]:
    """h on steps that keep to the tolerance, and their record for `adaptive_backward`, which is empty unless `records`."""
    from . import adaptive  # compiled where it is used

    plan = _adaptive_plan(problem, W, left, h0)
    h, tiles = _with_initial(h0, plan.intervals), h0.shape[0] * -(-plan.batch // plan.rows)
    W, V = _forwards(problem, W, V, plan)
    counts = torch.zeros(tiles, plan.intervals, dtype=torch.int64)
    tries, ends = torch.zeros(tiles, dtype=torch.int64), torch.zeros(tiles, dtype=torch.int64)
    room = torch.full((tiles,), _ROOM + _ROOM_PER_INTERVAL * plan.intervals if records else 0)
    for _ in range(2):
        starts = torch.nn.functional.pad(room.cumsum(0), (1, 0))
        steps = torch.empty(int(starts[-1]), dtype=torch.float64)
        given = problem.steps, W, V, left, right, h, steps, starts, counts, tries, ends
        _run(adaptive.adaptive, plan, control, _pair(problem.tableau), *given)
        taken = counts.sum(1)
        if not records or bool((taken <= room).all()):
            break
        # Some tile took more steps than there was room for: it takes the very same ones again.
        room = taken
        counts.zero_()
    most = int(tries.argmax())
    return h, count_steps(int(taken[most]), int(tries[most]), int(ends.max())), Record(steps, starts, counts)


def adaptive_backward(
    problem: Problem, record: Record, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h: Tensor, g: Tensor,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    from . import adaptive

    sums = _Sums.of(_adaptive_plan(problem, W, left, h[:, :, 0]), problem, W, V, left, wanted)
    plan = sums.plan
    most = max(1, int(record.counts.max())) if record.counts.numel() else 1
    segment = min(most, max(_SEGMENT, math.isqrt(most)))
    W_forwards, V_forwards = _forwards(problem, W, V, plan)
    given = W_forwards, _adjoint(problem, W, plan), V_forwards, _to_inputs(V, plan), left, right, h
    taken, sizes = (record.steps, record.starts, record.counts), (segment, -(-most // segment))
    _run(adaptive.adaptive_adjoint, plan, *sizes, _pair(problem.tableau), problem.steps, *given, *taken, g, *sums.tensors)
    return sums.gradients(W, V, left, right)


def scan_forward(problem: Scan, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h0: Tensor) -> Tensor:
    """Shapes as for `Scan`."""
    plan = _plan(problem, W, left, h0, d_inputs=2 * left.shape[-1] + 1)
    h = _with_initial(h0, plan.intervals)
    W, V = _forwards(problem, W, V, plan)
    _run(scan.scan, plan, W, V, left, right, h)
    return h


def scan_backward(
    problem: Scan, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h: Tensor, g: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    plan = _plan(problem, W, left, h[:, :, 0], d_inputs=2 * left.shape[-1] + 1)
    sums = _Sums.of(plan, problem, W, V, left, wanted)
    plan = sums.plan
    _run(scan.scan_adjoint, plan, _adjoint(problem, W, plan), _to_inputs(V, plan), left, right, h, g, *sums.tensors)
    return sums.gradients(W, V, left, right)


@dataclass(frozen=True)
class _Sums:
    """Where the adjoint kernels put gradients: those of the weights item by item, those of x for every member."""

    plan: Plan
    of_V: bool
    W: Tensor
    V: Tensor
    left: Tensor
    right: Tensor
    h0: Tensor

    @staticmethod
    def of(plan: Plan, problem: Problem | Scan, W: Tensor, V: Tensor, left: Tensor, wanted: Sequence[bool]) -> _Sums:
        members, between = W.shape[0], W.shape[1:-2]  # `between`: the intervals of a scan that changes
        columns = _round_up(V.shape[-1] - 1, _lanes(V)) if wanted[2] or wanted[3] else 0
        rows = plan.block if problem.structure == "dense" else _rows(problem, W) // plan.layers
        of_W = rows * plan.width + (plan.layers - 1) * plan.block**2
        g_W = W.new_zeros(plan.items, *between, of_W) if wanted[0] else W.new_empty(0)
        g_V = V.new_zeros(plan.items, *between, plan.inputs, plan.width)
        g_left = left.new_empty(members, *left.shape[1:]) if columns else left.new_empty(0)
        g_right = torch.empty_like(g_left) if problem.kind == "jumps" else g_left
        g_h0 = W.new_empty(members, plan.batch, plan.layers * plan.m)
        plan = plan._replace(columns=columns, of_W=of_W if wanted[0] else 0)
        return _Sums(plan, wanted[1], g_W, g_V, g_left, g_right, g_h0)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.W, self.V, self.left, self.right, self.h0

    def gradients(self, W: Tensor, V: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor | None, ...]:
        plan = self.plan

        def total(shares: Tensor) -> Tensor:
            return shares.unflatten(0, (-1, plan.per_member)).sum(1)

        of_x = plan.columns > 0
        return (
            _entries(plan, total(self.W)) if plan.of_W else None,
            _unpadded(plan, total(self.V)[..., : V.shape[-1], :]).mT if self.of_V else None,
            self.left.sum_to_size(left.shape) if of_x else None,
            self.right.sum_to_size(right.shape) if of_x and plan.kind == JUMPS else None,
            self.h0,
        )


def _runge_kutta_plan(problem: Problem, W: Tensor, x: Tensor, h0: Tensor) -> Plan:
    plan = _plan(problem, W, x, h0, d_inputs=x.shape[-1] + 1)
    return plan._replace(
        activation=CODES[problem.activation],
        between=CODES[problem.between],
        emits=int(problem.emits),
        inside=int(problem.emits and problem.inside),
        leaks=int(problem.leaks),
        timed=problem.steps.ndim - 1,
        stages=problem.tableau.stages,
        substeps=problem.substeps,
    )


def _adaptive_plan(problem: Problem, W: Tensor, x: Tensor, h0: Tensor) -> Plan:
    plan = _runge_kutta_plan(problem, W, x, h0)
    per_member = min(-(-plan.batch // ADAPTIVE_ROWS), -(-_SHARES * _threads() // h0.shape[0]))
    return plan._replace(rows=ADAPTIVE_ROWS, per_member=per_member, items=h0.shape[0] * per_member)


def _plan(problem: Problem | Scan, W: Tensor, x: Tensor, h0: Tensor, d_inputs: int) -> Plan:
    members, batch, states = h0.shape
    m = states // problem.layers
    block = _round_up(m, max(_lanes(W), ROWS))
    if block * W.element_size() % SET_STRIDE == 0:
        block += max(_lanes(W), ROWS)
    width, own = problem.layers * block, _rows(problem, W)
    changes = W.ndim > 3
    threads = _threads()
    # Tiles as large as caches like, but no fewer of them than threads.
    rows = max(1, TILE_ENTRIES // width // ROWS) * ROWS
    fair = -(-batch // -(-threads // members))
    rows = min(rows, _round_up(fair, ROWS))
    # Gradients of matrices that change with time are large: one sum of them per member.
    per_member = 1 if changes else min(-(-batch // rows), -(-_SHARES * threads // members))
    return Plan(
        items=members * per_member,
        per_member=per_member,
        rows=rows,
        batch=batch,
        intervals=x.shape[2] - (problem.kind == "linear"),
        m=m,
        d=x.shape[-1],
        layers=problem.layers,
        block=block,
        width=width,
        inputs=_round_up(d_inputs, ROWS),
        columns=0,
        x_members=x.shape[0],
        weights=W.shape[-2] * block,
        own=own * block,
        of_W=0,
        structure=STRUCTURES[problem.structure],
        kind=KINDS[problem.kind],
        activation=CODES["linear"],
        between=CODES["linear"],
        emits=0,
        inside=0,
        leaks=0,
        timed=0,
        stages=0,
        substeps=1,
        changes=int(changes),
    )


def _rows(problem: Problem | Scan, W: Tensor) -> int:
    """Rows of W that lead from layers to themselves."""
    return W.shape[-2] - (problem.layers - 1) * W.shape[-1]


def _forwards(problem: Problem | Scan, W: Tensor, V: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """W and V, laid out for the kernels: as matrices that multiply row vectors from the right."""
    V = V.mT.unflatten(-1, (plan.layers, plan.m))
    V = _padded(V, columns=plan.block).flatten(-2)
    return _laid_out(problem, W, plan, transposed=False), _padded(V, rows=plan.inputs)


def _adjoint(problem: Problem | Scan, W: Tensor, plan: Plan) -> Tensor:
    """W^T, laid out likewise."""
    return _laid_out(problem, W, plan, transposed=True)


def _laid_out(problem: Problem | Scan, W: Tensor, plan: Plan, transposed: bool) -> Tensor:
    rows = _rows(problem, W)
    own = W[..., :rows, :].unflatten(-2, (plan.layers, -1))  # (..., L, rows of a layer, m)
    if problem.structure == "dense":
        own = _padded(own if transposed else own.mT, columns=plan.block).flatten(-3)
    else:
        own = adjoint_entries(problem.structure, own) if transposed else own
        own = _padded(own, columns=plan.block).transpose(-3, -2).flatten(-3)
    if plan.layers == 1:
        return own
    above = W[..., rows:, :].unflatten(-2, (plan.layers - 1, -1))
    return torch.cat([own, _padded(above if transposed else above.mT, columns=plan.block).flatten(-3)], -1)


def _entries(plan: Plan, total: Tensor) -> Tensor:
    """The gradient of the entries of W, as `Problem` has them, from that in the order of `sum_outer`, (..., plan.of_W)."""
    m, block = plan.m, plan.block
    above = (plan.layers - 1) * block**2
    own, couplings = total.split([total.shape[-1] - above, above], -1)
    if plan.structure == DENSE:
        own = own.unflatten(-1, (plan.layers, block, block))[..., :m, :m]
    else:
        own = own.unflatten(-1, (-1, plan.layers, block))[..., :m].transpose(-3, -2)
    own = own.flatten(-3, -2)
    if plan.layers == 1:
        return own
    return torch.cat([own, couplings.unflatten(-1, (plan.layers - 1, block, block))[..., :m, :m].flatten(-3, -2)], -2)


def _unpadded(plan: Plan, tile: Tensor) -> Tensor:
    """(..., L m) of (..., width)."""
    return tile.unflatten(-1, (plan.layers, plan.block))[..., : plan.m].flatten(-2)


def _to_inputs(V: Tensor, plan: Plan) -> Tensor:
    """The matrix that leads from the drive of the first layer back to x; empty where no gradient of x is wanted."""
    return _padded(V[..., : plan.m, :-1], columns=plan.columns) if plan.columns else V.new_empty(0)


def _with_initial(h0: Tensor, intervals: int) -> Tensor:
    """(members, batch, intervals + 1, m) with h0 in its first place."""
    # NumPy asks the system for huge pages, PyTorch does not: long paths then spend a third of their time on page faults.
    h = torch.from_numpy(np.empty((*h0.shape[:2], intervals + 1, h0.shape[-1]), h0.numpy().dtype))
    h[:, :, 0] = h0
    return h


def _run(kernel: Kernel, plan: Plan, *arguments: Any) -> None:
    arrays = [_flat(argument) if isinstance(argument, Tensor) else argument for argument in arguments]
    threads = _threads()
    if threads == 1 or _forked:
        kernel.serial(plan, *arrays)
        return
    with _lock:
        numba.set_num_threads(threads)
        kernel.parallel(plan, *arrays)


@cache
def _tableau(tableau: Tableau) -> runge_kutta.Tableau:
    A, b, c = np.zeros((8, 4)), np.zeros(4), np.zeros(4)
    for i, row in enumerate(tableau.A):
        A[i, : len(row)] = row
    b[: tableau.stages], c[: tableau.stages] = tableau.b, tableau.c
    return runge_kutta.Tableau(A, b, c)


@cache
def _pair(pair: EmbeddedPair) -> Any:
    from . import adaptive

    A, c, e = np.zeros((2 * adaptive.COLUMNS, adaptive.COLUMNS)), np.zeros(adaptive.COLUMNS + 1), np.zeros(adaptive.COLUMNS + 1)
    for i, row in enumerate((*pair.A, pair.b)):
        A[i, : len(row)], c[i] = row, sum(row)
    e[: pair.stages], e[adaptive.COLUMNS] = pair.error[:-1], pair.error[-1]
    return adaptive.Pair(A, c, e)


def _threads() -> int:
    return min(torch.get_num_threads(), int(numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def _lanes(like: Tensor) -> int:
    return VECTOR_BYTES // like.element_size()


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
