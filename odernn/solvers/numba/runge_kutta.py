# mypy: disallow-untyped-defs=False
"""Explicit Runge-Kutta steps along a path, and their exact adjoint."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from .activations import activate, leak, times_derivative
from .compilation import inline, inner, kernel
from .drive import drive, drive_ends, drive_ends_gradient, input_gradient
from .plan import DENSE, LINEAR
from .products import apply, couple, emit, emitted, multiply_back, plus_entries, read_by_own, sum_outer
from .simd import MARGIN, aligned_pointer_to, lanes_of, load, pointer_to, store
from .tiles import batch_share, clear, read_states, set_column, write_states


class Tableau(NamedTuple):
    """Butcher tableau of an explicit method of at most four stages, padded with zeros: A (8, 4), b (4,), c (4,). (The adjoint
    looks for what comes after a stage, past the last one too.)"""

    A: np.ndarray
    b: np.ndarray
    c: np.ndarray


@inline
def weighted(s, base, scale, terms, n, q, c0, c1, c2, c3, count):
    """scale base + sum_j c_j terms_j over j < count, one vector of each."""
    value = scale * load(s, base + q)
    if count > 0:
        value = value + c0 * load(s, terms + q)
    if count > 1:
        value = value + c1 * load(s, terms + n + q)
    if count > 2:
        value = value + c2 * load(s, terms + 2 * n + q)
    if count > 3:
        value = value + c3 * load(s, terms + 3 * n + q)
    return value


@inner
def _stages(plan, A, c, s, y, k, a, e, left, right, dts, step, W, w0):
    """Stage states y_i = h + dt sum_j A_ij k_j, with h = y_0 given, a_i = sigma(W y_i + U e_i + v(t_i)), and rates k_i as in
    `leak` of one step, for the drive v that runs linearly from `left` to `right` in an interval, and e_i as in `emit`."""
    n = plan.rows * plan.width
    fused = plan.structure != DENSE and not plan.inside
    for i in range(plan.stages):
        y_i, a_i = y + i * n, a + i * n
        fraction = (step + c[i]) / plan.substeps
        for row in range(plan.rows):
            r, dt = row * plan.width, dts[row]
            a0, a1, a2 = dt * A[4 * i], dt * A[4 * i + 1], dt * A[4 * i + 2]
            for j in range(0, plan.width, lanes_of(s)):
                q = r + j
                z = (1.0 - fraction) * load(s, left + q) + fraction * load(s, right + q)
                state = weighted(s, y, 1.0, k, n, q, a0, a1, a2, 0.0, i)
                if fused:
                    z = plus_entries(plan, z, W, w0 + j, state)
                if i > 0:
                    store(s, y_i + q, state)
                store(s, a_i + q, z)
        e_i = emit(plan, s, y_i, e + i * n)
        if not fused:
            apply(plan, W, w0, s, read_by_own(plan, y_i, e_i), a_i)
        couple(plan, W, w0, s, e_i, a_i)
        activate(s, a_i, n, plan.activation)
        leak(plan, s, y_i, a_i, k + i * n)


@inner
def _advance(plan, b, s, y, k, dts, following):
    """following = h + dt sum_i b_i k_i, with h = y_0."""
    n = plan.rows * plan.width
    for row in range(plan.rows):
        dt = dts[row]
        b0, b1, b2, b3 = dt * b[0], dt * b[1], dt * b[2], dt * b[3]
        for q in range(row * plan.width, (row + 1) * plan.width, lanes_of(s)):
            store(s, following + q, weighted(s, y, 1.0, k, n, q, b0, b1, b2, b3, plan.stages))


@inner
def _row_steps(plan, steps, first, end, interval, dts):
    """The length of a step in an interval, of each sequence of the tile from `first`; past the `end` of the batch the last's."""
    for row in range(plan.rows):
        sequence = min(first + row, end - 1)
        dts[row] = steps[plan.timed * sequence * plan.intervals + interval] / plan.substeps


@inner
def _forward_item(plan, A, b, c, item, steps, dts, W, V, x_left, x_right, h_all, s):
    stages, n, times = plan.stages, plan.rows * plan.width, plan.intervals + 1
    member = item // plan.per_member
    x_member, w0, v0 = member % plan.x_members, member * plan.weights, member * plan.inputs * plan.width
    left, right, y, k = 0, n, 2 * n, (2 + stages) * n
    a = k + plan.leaks * stages * n
    e = a + stages * n
    inputs = e + plan.emits * stages * n
    set_column(s, inputs + plan.d, plan.inputs, plan.rows)
    begin, end = batch_share(plan, item)
    for first in range(begin, end, plan.rows):
        read_states(plan, h_all, member, first, times, 0, s, y, False)
        if plan.kind == LINEAR:
            drive(plan, s, inputs, V, v0, x_left, x_member, first, 0, right)
        for interval in range(plan.intervals):
            left, right = drive_ends(
                plan, s, inputs, V, v0, x_left, x_right, x_member, first, interval, left, right, False
            )  # fmt: skip
            _row_steps(plan, steps, first, end, interval, dts)
            for step in range(plan.substeps):
                _stages(plan, A, c, s, y, k, a, e, left, right, dts, step, W, w0)
                _advance(plan, b, s, y, k, dts, y)
            write_states(plan, s, y, h_all, member, first, times, interval + 1)


@kernel
def runge_kutta(plan, tableau, steps, W, V, x_left, x_right, h_all):
    """Fills h_all (members, batch, intervals + 1, layers * m) after its first time.

    Args:
        steps: lengths of the intervals, (intervals,), or (batch, intervals) where `plan.timed`.
        W: (members, plan.weights), what `apply` and then what `couple` takes.
        V: (members, inputs, width), [U b]^T.
        x_left, x_right: x at the ends of the intervals; LINEAR: both are x at all times; HOLD: both the same.
    """
    entries = plan.rows * (plan.width * (2 + (2 + plan.leaks + plan.emits) * plan.stages) + plan.inputs)
    for item in prange(plan.items):
        buffer, dts = np.zeros(entries + MARGIN, h_all.dtype), np.zeros(plan.rows)
        _forward_item(
            plan, pointer_to(tableau.A), pointer_to(tableau.b), pointer_to(tableau.c), np.int64(item), pointer_to(steps),
            pointer_to(dts), pointer_to(W), pointer_to(V), pointer_to(x_left), pointer_to(x_right), pointer_to(h_all),
            aligned_pointer_to(buffer),
        )  # fmt: skip
        buffer[0] = dts[0] = 0  # a last use: keeps them alive until here


@inline
def pass_back(plan, s, value, a, fraction, left, right, g_z, g_y):
    """One vector of the adjoint of a rate a = sigma(z) with z = W y + v, passed on: that of z to g_z, 0 to g_y for the product
    with W^T to come, and what it adds to those of the drive, `left` and `right`."""
    value = times_derivative(value, load(s, a), plan.activation)
    of_left = load(s, left) + (1.0 - fraction) * value
    of_right = load(s, right) + fraction * value
    store(s, g_z, value)
    store(s, g_y, 0.0)
    store(s, left, of_left)
    store(s, right, of_right)


@inner
def _leaked(plan, s, g, b_i, g_y_i, a0, a1, a2, count, row):
    """g_y_i <- what the leak of a rate a - y makes of its adjoint, after `pass_back`, in one row."""
    n = plan.rows * plan.width
    for q in range(row * plan.width, (row + 1) * plan.width, lanes_of(s)):
        store(s, g_y_i + q, 0.0 - weighted(s, g, b_i, g_y_i + n, n, q, a0, a1, a2, 0.0, count))


@inner
def _stage_adjoints(plan, A, b, c, s, g, a, e, g_y, g_z, spare, left, right, dts, step, W, w0):
    """The adjoints of one step: g <- that of its h, from that of its result; g_z_i of all stages; and what it adds to those of
    the drive, `left` and `right`. That of k_i is dt (b_i g + sum_{j > i} A_ji g_y_j), that of z_i sigma' times it."""
    stages, n = plan.stages, plan.rows * plan.width
    lanes = lanes_of(s)
    for i in range(stages - 1, -1, -1):
        g_z_i, g_y_i, a_i = g_z + i * n, g_y + i * n, a + i * n
        fraction = (step + c[i]) / plan.substeps
        count = stages - 1 - i
        for row in range(plan.rows):
            dt = dts[row]
            b_i = dt * b[i]
            a0, a1, a2 = dt * A[4 * i + 4 + i], dt * A[4 * i + 8 + i], dt * A[4 * i + 12 + i]
            for q in range(row * plan.width, (row + 1) * plan.width, lanes):
                value = weighted(s, g, b_i, g_y_i + n, n, q, a0, a1, a2, 0.0, count)
                pass_back(plan, s, value, a_i + q, fraction, left + q, right + q, g_z_i + q, g_y_i + q)
            if plan.leaks:
                _leaked(plan, s, g, b_i, g_y_i, a0, a1, a2, count, row)
        multiply_back(plan, W, w0, s, g_z_i, e + i * n, spare, g_y_i)
    for q in range(0, n, lanes):
        store(s, g + q, weighted(s, g, 1.0, g_y, n, q, 1.0, 1.0, 1.0, 1.0, stages))


@inner
def _backward_item(
    plan, A, b, c, item, steps, dts, W, W_adjoint, V, U, x_left, x_right, h_all, g_all, g_W, g_V, g_left, g_right, g_initial, s
):
    stages, n, times, width = plan.stages, plan.rows * plan.width, plan.intervals + 1, plan.width
    member = item // plan.per_member
    x_member, w0, v0 = member % plan.x_members, member * plan.weights, member * plan.inputs * width
    gw0, gv0 = item * plan.of_W, item * plan.inputs * width
    g, left, right, v_left, v_right, g_y = 0, n, 2 * n, 3 * n, 4 * n, 5 * n
    g_z = g_y + stages * n
    # All that the forward pass of one interval went through.
    y_all = g_z + stages * n
    a_all = y_all + plan.substeps * stages * n
    e_all = a_all + plan.substeps * stages * n
    spare = e_all + plan.emits * plan.substeps * stages * n
    of_one_step = spare + plan.emits * n
    inputs = of_one_step + plan.leaks * stages * n
    g_inputs = inputs + plan.rows * plan.inputs
    set_column(s, inputs + plan.d, plan.inputs, plan.rows)
    begin, end = batch_share(plan, item)
    for first in range(begin, end, plan.rows):
        clear(s, g, n)
        clear(s, left, n)
        if plan.kind == LINEAR:
            drive(plan, s, inputs, V, v0, x_left, x_member, first, plan.intervals, v_left)
        for interval in range(plan.intervals - 1, -1, -1):
            read_states(plan, g_all, member, first, times, interval + 1, s, g, True)
            # The adjoints of the drive at both ends; at a sample two intervals meet and add.
            right, left = left, right
            clear(s, left, n)
            if plan.kind != LINEAR:
                clear(s, right, n)
            v_left, v_right = drive_ends(
                plan, s, inputs, V, v0, x_left, x_right, x_member, first, interval, v_left, v_right, True
            )  # fmt: skip
            _row_steps(plan, steps, first, end, interval, dts)
            read_states(plan, h_all, member, first, times, interval, s, y_all, False)
            for step in range(plan.substeps):
                y, a, e = y_all + step * stages * n, a_all + step * stages * n, e_all + step * stages * n
                k = of_one_step if plan.leaks else a
                _stages(plan, A, c, s, y, k, a, e, v_left, v_right, dts, step, W, w0)
                if step + 1 < plan.substeps:
                    _advance(plan, b, s, y, k, dts, y + stages * n)
            for step in range(plan.substeps - 1, -1, -1):
                y, a = y_all + step * stages * n, a_all + step * stages * n
                e = emitted(plan, y, e_all + step * stages * n)
                _stage_adjoints(plan, A, b, c, s, g, a, e, g_y, g_z, spare, left, right, dts, step, W_adjoint, w0)
                if plan.of_W > 0:
                    sum_outer(plan, g_W, gw0, s, g_z, read_by_own(plan, y, e), e, stages * plan.rows)
            drive_ends_gradient(
                plan, s, left, right, inputs, g_inputs, U, x_left, x_right, member, first, interval, g_V, gv0, g_left, g_right
            )  # fmt: skip
        if plan.kind == LINEAR:
            input_gradient(plan, s, left, inputs, g_inputs, U, x_left, member, first, 0, g_V, gv0, g_left)
        read_states(plan, g_all, member, first, times, 0, s, g, True)
        write_states(plan, s, g, g_initial, member, first, 1, 0)


@kernel
def runge_kutta_adjoint(
    plan, tableau, steps, W, W_adjoint, V, U, x_left, x_right, h_all, g_all, g_W, g_V, g_left, g_right, g_initial
):
    """The exact adjoint of `runge_kutta`, from the gradient g_all of its result h_all.

    Args:
        W_adjoint: what W^T is to W.
        U: (members, m, columns), d in whole vectors; empty where no gradient of x is wanted.

    Fills:
        g_W: per item, zeros before; empty where no gradient of W is wanted.
        g_V: (items, inputs, width), zeros before.
        g_left, g_right: like x_left and x_right but with all members; empty where not wanted.
        g_initial: (members, batch, layers * m).
    """
    kept = (2 + plan.emits) * plan.stages * plan.substeps + plan.emits + plan.leaks * plan.stages
    entries = plan.rows * (plan.width * (5 + 2 * plan.stages + kept) + plan.inputs + plan.columns)
    for item in prange(plan.items):
        buffer, dts = np.zeros(entries + MARGIN, h_all.dtype), np.zeros(plan.rows)
        _backward_item(
            plan, pointer_to(tableau.A), pointer_to(tableau.b), pointer_to(tableau.c), np.int64(item), pointer_to(steps),
            pointer_to(dts), pointer_to(W), pointer_to(W_adjoint), pointer_to(V), pointer_to(U), pointer_to(x_left),
            pointer_to(x_right), pointer_to(h_all), pointer_to(g_all), pointer_to(g_W), pointer_to(g_V), pointer_to(g_left),
            pointer_to(g_right), pointer_to(g_initial), aligned_pointer_to(buffer),
        )  # fmt: skip
        buffer[0] = dts[0] = 0  # a last use: keeps them alive until here
