# mypy: disallow-untyped-defs=False
"""The recurrence h_{k+1} = W h_k + G [x left, x right, 1] along a path, and its exact adjoint."""

from __future__ import annotations

import numpy as np
from numba import prange

from .compilation import inner, kernel
from .plan import HOLD, LINEAR, SUM_ROWS
from .products import apply, product, sum_outer
from .simd import MARGIN, aligned_pointer_to, pointer_to
from .tiles import batch_share, clear, copy, input_times, read, set_column, write


@inner
def _read_inputs(plan, x_left, x_right, x_member, first, k, s, tile):
    """tile <- [x left, x right] of interval k."""
    times = input_times(plan)
    following = k + 1 if plan.kind == LINEAR else k
    read(plan, x_left, x_member, first, times, k, plan.d, s, tile, plan.inputs, False)
    read(plan, x_right, x_member, first, times, following, plan.d, s, tile + plan.d, plan.inputs, False)


@inner
def _scan_item(plan, item, W, V, x_left, x_right, h_all, s):
    n, width, times = plan.rows * plan.width, plan.width, plan.intervals + 1
    member = item // plan.per_member
    x_member = member % plan.x_members
    v_size = plan.inputs * width
    at = member * plan.intervals if plan.changes else member
    h, following, inputs = 0, n, 2 * n
    set_column(s, inputs + 2 * plan.d, plan.inputs, plan.rows)
    begin, end = batch_share(plan, item)
    for first in range(begin, end, plan.rows):
        read(plan, h_all, member, first, times, 0, plan.m, s, h, width, False)
        for k in range(plan.intervals):
            now = at + k if plan.changes else at
            _read_inputs(plan, x_left, x_right, x_member, first, k, s, inputs)
            clear(s, following, n)
            product(s, inputs, plan.inputs, 1, V, now * v_size, width, s, following, width, plan.rows, width, 2 * plan.d + 1)
            apply(plan, W, now * plan.weights, s, h, following)
            h, following = following, h
            write(plan, s, h, width, h_all, member, first, times, k + 1, plan.m, False)


@kernel
def scan(plan, W, V, x_left, x_right, h_all):
    """h_{k+1} = W h_k + G [x left, x right, 1]: fills h_all (members, batch, intervals + 1, m) after its first time.

    Args:
        W: (members, intervals or 1, m, width), W^T, or as in `apply`.
        V: (members, intervals or 1, inputs, width), G^T.
    """
    entries = plan.rows * (2 * plan.width + plan.inputs)
    for item in prange(plan.items):
        buffer = np.zeros(entries + MARGIN, h_all.dtype)
        _scan_item(
            plan, np.int64(item), pointer_to(W), pointer_to(V), pointer_to(x_left), pointer_to(x_right), pointer_to(h_all),
            aligned_pointer_to(buffer),
        )  # fmt: skip
        buffer[0] = 0  # a last use: keeps it alive until here


@inner
def _scan_adjoint_item(plan, item, W, U, x_left, x_right, h_all, g_all, g_W, g_V, g_left, g_right, g_initial, slots, s):
    n, width, times, columns = plan.rows * plan.width, plan.width, plan.intervals + 1, plan.columns
    member = item // plan.per_member
    x_member, x_times = member % plan.x_members, input_times(plan)
    u_size, v_size, tile = plan.m * columns, plan.inputs * width, plan.rows * plan.inputs
    at = member * plan.intervals if plan.changes else member
    sums = item * plan.intervals if plan.changes else item
    # The adjoints, states and inputs of the last `slots` steps wait for their products to be summed together.
    g_slots, h_slots, inputs, spare = 0, slots * n, 2 * slots * n, 2 * slots * n + slots * tile
    g_inputs = spare + n
    set_column(s, inputs + 2 * plan.d, plan.inputs, slots * plan.rows)
    begin, end = batch_share(plan, item)
    for first in range(begin, end, plan.rows):
        clear(s, spare, n)
        used = 0
        for k in range(plan.intervals - 1, -1, -1):
            now = at + k if plan.changes else at
            g = g_slots + used * n
            copy(s, spare, s, g, n, False)
            read(plan, g_all, member, first, times, k + 1, plan.m, s, g, width, True)
            read(plan, h_all, member, first, times, k, plan.m, s, h_slots + used * n, width, False)
            _read_inputs(plan, x_left, x_right, x_member, first, k, s, inputs + used * tile)
            used += 1
            if used == slots or k == 0:
                total = sums + k if plan.changes else sums
                if plan.of_W > 0:
                    sum_outer(plan, g_W, total * plan.of_W, s, g_slots, h_slots, h_slots, used * plan.rows)
                product(
                    s, inputs, 1, plan.inputs, s, g_slots, width, g_V, total * v_size, width, plan.inputs, width, used * plan.rows
                )
                used = 0
            if columns > 0:
                clear(s, g_inputs, plan.rows * columns)
                product(s, g, width, 1, U, now * u_size, columns, s, g_inputs, columns, plan.rows, columns, plan.m)
                if plan.kind == LINEAR:
                    # The sample after this interval already holds what the next interval gives, save for the last one.
                    adds = k + 1 < plan.intervals
                    write(plan, s, g_inputs + plan.d, columns, g_left, member, first, x_times, k + 1, plan.d, adds)
                    write(plan, s, g_inputs, columns, g_left, member, first, x_times, k, plan.d, False)
                else:
                    write(plan, s, g_inputs, columns, g_left, member, first, x_times, k, plan.d, False)
                    adds = plan.kind == HOLD
                    write(plan, s, g_inputs + plan.d, columns, g_right, member, first, x_times, k, plan.d, adds)
            clear(s, spare, n)
            apply(plan, W, now * plan.weights, s, g, spare)
        read(plan, g_all, member, first, times, 0, plan.m, s, spare, width, True)
        write(plan, s, spare, width, g_initial, member, first, 1, 0, plan.m, False)


@kernel
def scan_adjoint(plan, W, U, x_left, x_right, h_all, g_all, g_W, g_V, g_left, g_right, g_initial):
    """The exact adjoint of `scan`, from the gradient g_all of its result h_all.

    Args:
        W: what W^T is to W: (members, intervals or 1, m, width), W itself, or as in `apply`.
        U: (members, intervals or 1, m, columns), G without its last column; empty where no gradient of x is wanted.

    Fills:
        g_W, g_V: per item (and interval, where the matrices change), zeros before, as in `runge_kutta_adjoint`.
        g_left, g_right: like x_left and x_right but with all members; the same unless JUMPS; empty where not wanted.
        g_initial: (members, batch, m).
    """
    slots = 1 if plan.changes else (SUM_ROWS + plan.rows - 1) // plan.rows
    entries = plan.rows * (slots * (2 * plan.width + plan.inputs) + plan.width + plan.columns)
    for item in prange(plan.items):
        buffer = np.zeros(entries + MARGIN, h_all.dtype)
        _scan_adjoint_item(
            plan, np.int64(item), pointer_to(W), pointer_to(U), pointer_to(x_left), pointer_to(x_right), pointer_to(h_all),
            pointer_to(g_all), pointer_to(g_W), pointer_to(g_V), pointer_to(g_left), pointer_to(g_right), pointer_to(g_initial),
            slots, aligned_pointer_to(buffer),
        )  # fmt: skip
        buffer[0] = 0  # a last use: keeps it alive until here
