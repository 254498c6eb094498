# mypy: disallow-untyped-defs=False
"""Embedded Runge-Kutta pairs along a path: steps chosen tile by tile, and the exact adjoint of the steps taken.

A tile goes through every interval on steps of its own, none of which straddles the end of one. Their lengths are recorded, so
that the way back takes the same ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from . import step_control
from .activations import activate, leak
from .compilation import inline, inner, kernel
from .drive import drive, drive_ends, drive_ends_gradient, input_gradient
from .plan import LINEAR
from .products import apply, couple, emit, emitted, multiply_back, read_by_own, sum_outer
from .runge_kutta import pass_back, weighted
from .simd import MARGIN, aligned_pointer_to, lanes_of, load, pointer_to, store, where_less
from .step_control import DONE, LEAST_ERROR, MAX_STEPS, TOO_MANY, UNDERFLOW
from .tiles import batch_share, clear, copy, read_states, set_column, write_states

# Columns of a tableau: stages of the longest pair.
COLUMNS = 6
_step_within, _step_after, _step_again = (
    inner(step_control.step_within),
    inner(step_control.step_after),
    inner(step_control.step_again),
)
_exploring_step, _first_step = inner(step_control.exploring_step), inner(step_control.first_step)
_error_to_remember = inner(step_control.error_to_remember)


class Pair(NamedTuple):
    """A pair whose last evaluation is the first of the next step, padded with zeros: A (12, 6), the row of the result after those
    of the stages (the adjoint looks for what comes after that, too), c (7,), and the weights of the error, e (7,)."""

    A: np.ndarray
    c: np.ndarray
    e: np.ndarray


@inline
def _weighted_six(s, base, scale, terms, n, q, c0, c1, c2, c3, c4, c5, count):
    """As `weighted`, of two terms more."""
    value = weighted(s, base, scale, terms, n, q, c0, c1, c2, c3, count)
    if count > 4:
        value = value + c4 * load(s, terms + 4 * n + q)
    if count > 5:
        value = value + c5 * load(s, terms + 5 * n + q)
    return value


@inner
def _rate(plan, s, y, k, a, e, left, right, fraction, W, w0):
    """a = sigma(W y + U e + v) at a fraction of the interval, e as in `emit`, and the rate k as in `leak`."""
    n = plan.rows * plan.width
    for q in range(0, n, lanes_of(s)):
        store(s, a + q, (1.0 - fraction) * load(s, left + q) + fraction * load(s, right + q))
    e = emit(plan, s, y, e)
    apply(plan, W, w0, s, read_by_own(plan, y, e), a)
    couple(plan, W, w0, s, e, a)
    activate(s, a, n, plan.activation)
    leak(plan, s, y, a, k)


@inner
def _activated(plan, k, a):
    """Where sigma(z) of a rate at k stands: there itself, or at a."""
    return a if plan.leaks else k


@inner
def _stage(plan, A, i, s, h, k, dt, y):
    """y = h + dt sum_{j < i} A_ij k_j."""
    n, row = plan.rows * plan.width, COLUMNS * i
    a0, a1, a2 = dt * A[row], dt * A[row + 1], dt * A[row + 2]
    a3, a4, a5 = dt * A[row + 3], dt * A[row + 4], dt * A[row + 5]
    for q in range(0, n, lanes_of(s)):
        store(s, y + q, _weighted_six(s, h, 1.0, k, n, q, a0, a1, a2, a3, a4, a5, i))


@inline
def _larger_size(a, b):
    a, b = where_less(a, 0.0, 0.0 - a, a), where_less(b, 0.0, 0.0 - b, b)
    return where_less(a, b, b, a)


@inner
def _step_error(plan, control, e, s, h, k, y, dt, ratio, spare):
    """The largest RMS over the states of a sequence of the estimated error / (atol + rtol max(|h|, |y|)); inf where it is not
    finite."""
    n, m, lanes = plan.rows * plan.width, plan.m, lanes_of(s)
    states = plan.layers * m
    rtol, atol, last = control.rtol, control.atol, k + plan.stages * n
    e0, e1, e2, e3, e4, e5, e6 = dt * e[0], dt * e[1], dt * e[2], dt * e[3], dt * e[4], dt * e[5], dt * e[6]
    for q in range(0, n, lanes):
        value = _weighted_six(s, last, e6, k, n, q, e0, e1, e2, e3, e4, e5, plan.stages)
        store(s, ratio + q, value / (atol + rtol * _larger_size(load(s, h + q), load(s, y + q))))
    whole, worst = m // lanes * lanes, 0.0
    for r in range(ratio, ratio + n, plan.width):
        total = 0.0
        for start in range(r, r + plan.width, plan.block):
            if whole > 0:
                squares = load(s, start) * load(s, start)
                for j in range(lanes, whole, lanes):
                    squares = squares + load(s, start + j) * load(s, start + j)
                store(s, spare, squares)
                for j in range(lanes):
                    total += s[spare + j]
            for j in range(whole, m):
                total += s[start + j] * s[start + j]
        if not total < np.inf:
            return np.inf
        worst = max(worst, total)
    return np.sqrt(worst / states)


@inner
def _size(plan, control, s, v, h):
    """As `_step_error` of v / (atol + rtol |h|), in double precision: rates may be far larger than errors."""
    worst = 0.0
    for r in range(0, plan.rows * plan.width, plan.width):
        total = 0.0
        for start in range(r, r + plan.width, plan.block):
            for j in range(start, start + plan.m):
                ratio = s[v + j] / (control.atol + control.rtol * abs(s[h + j]))
                total += ratio * ratio
        if not total < np.inf:
            return np.inf
        worst = max(worst, total)
    return np.sqrt(worst / (plan.layers * plan.m))


@inner
def _first_proposal(plan, control, s, h, k, a, e, left, right, length, y, rate, W, w0):
    n = plan.rows * plan.width
    slope = _size(plan, control, s, k, h)
    exploring = _exploring_step(length, _size(plan, control, s, h, h), slope)
    for q in range(0, n, lanes_of(s)):
        store(s, y + q, load(s, h + q) + exploring * load(s, k + q))
    _rate(plan, s, y, rate, _activated(plan, rate, a), e, left, right, exploring / length, W, w0)
    for q in range(0, n, lanes_of(s)):
        store(s, rate + q, load(s, rate + q) - load(s, k + q))
    return _first_step(control.order, length, exploring, slope, _size(plan, control, s, rate, h) / exploring)


@inner
def _try_step(plan, A, c, s, h, k, y, a, e, left, right, dt, done, length, W, w0):
    """y at the end of a step that starts `done` into the interval, and the rates k_1, ... of it and at its end, from k_0."""
    stages, n = plan.stages, plan.rows * plan.width
    for i in range(1, stages):
        _stage(plan, A, i, s, h, k, dt, y)
        k_i = k + i * n
        _rate(plan, s, y, k_i, _activated(plan, k_i, a), e, left, right, (done + c[i] * dt) / length, W, w0)
    _stage(plan, A, stages, s, h, k, dt, y)
    last = k + stages * n
    _rate(plan, s, y, last, _activated(plan, last, a), e, left, right, min(1.0, (done + dt) / length), W, w0)


@inner
def _forward_item(plan, control, A, c, e, item, lengths, W, V, x_left, x_right, h_all, steps, starts, counts, tries, ends, s):
    stages, n, times, width = plan.stages, plan.rows * plan.width, plan.intervals + 1, plan.width
    member = item // plan.per_member
    tiles = (plan.batch + plan.rows - 1) // plan.rows
    x_member, w0, v0 = member % plan.x_members, member * plan.weights, member * plan.inputs * width
    left, right, h, y, ratio, k = 0, n, 2 * n, 3 * n, 4 * n, 5 * n
    a = k + (stages + 1) * n
    e_at = a + plan.leaks * n
    spare = e_at + plan.emits * n
    inputs = spare + MARGIN
    set_column(s, inputs + plan.d, plan.inputs, plan.rows)
    begin, end = batch_share(plan, item)
    for first in range(begin, end, plan.rows):
        tile = member * tiles + first // plan.rows
        position, room = starts[tile], starts[tile + 1]
        read_states(plan, h_all, member, first, times, 0, s, h, False)
        if plan.kind == LINEAR:
            drive(plan, s, inputs, V, v0, x_left, x_member, first, 0, right)
        proposal, before, tried, how = 0.0, LEAST_ERROR, 0, DONE
        for interval in range(plan.intervals):
            left, right = drive_ends(
                plan, s, inputs, V, v0, x_left, x_right, x_member, first, interval, left, right, False
            )  # fmt: skip
            length = lengths[interval]
            if plan.kind != LINEAR or interval == 0:
                _rate(plan, s, h, k, _activated(plan, k, a), e_at, left, right, 0.0, W, w0)
            if interval == 0:
                proposal = _first_proposal(plan, control, s, h, k, a, e_at, left, right, length, y, k + n, W, w0)
            done, count, attempts, again = 0.0, 0, 0, False
            while done < length and how == DONE:
                rest = length - done
                dt = _step_within(rest, proposal)
                if not done + dt > done:
                    how = UNDERFLOW
                elif attempts == MAX_STEPS:
                    how = TOO_MANY
                else:
                    attempts += 1
                    _try_step(plan, A, c, s, h, k, y, a, e_at, left, right, dt, done, length, W, w0)
                    error = _step_error(plan, control, e, s, h, k, y, dt, ratio, spare)
                    if error <= 1.0:
                        if position < room:
                            steps[position] = dt
                        position += 1
                        count += 1
                        done = length if dt == rest else done + dt
                        last = k + stages * n
                        for q in range(0, n, lanes_of(s)):
                            value, rate = load(s, y + q), load(s, last + q)
                            store(s, h + q, value)
                            store(s, k + q, rate)
                        following = _step_after(control.order, dt, error, before, proposal, again)
                        before = _error_to_remember(dt, error, before, proposal)
                        proposal, again = following, False
                    else:
                        proposal, again = _step_again(control.order, dt, error), True
            tried += attempts
            counts[tile * plan.intervals + interval] = count
            if how != DONE:  # nothing is known from here on
                for q in range(0, n, lanes_of(s)):
                    store(s, h + q, np.nan)
                for later in range(interval, plan.intervals):
                    write_states(plan, s, h, h_all, member, first, times, later + 1)
                break
            write_states(plan, s, h, h_all, member, first, times, interval + 1)
        tries[tile], ends[tile] = tried, how


@kernel
def adaptive(plan, control, pair, lengths, W, V, x_left, x_right, h_all, steps, starts, counts, tries, ends):
    """As `runge_kutta.runge_kutta`, on steps whose error the control bounds. A tile that fails leaves nan from there on.

    Args:
        starts: (tiles + 1,), where the steps of a tile begin in `steps`.

    Fills:
        steps: the lengths of the accepted steps of tile k, from starts[k] to before starts[k + 1], as far as there is room.
        counts: accepted steps, (tiles, intervals), zeros before.
        tries: steps tried, (tiles,).
        ends: DONE, UNDERFLOW or TOO_MANY, (tiles,).
    """
    entries = plan.rows * (plan.width * (6 + plan.stages + plan.leaks + plan.emits) + plan.inputs) + MARGIN
    for item in prange(plan.items):
        buffer = np.zeros(entries + MARGIN, h_all.dtype)
        _forward_item(
            plan, control, pointer_to(pair.A), pointer_to(pair.c), pointer_to(pair.e), np.int64(item), pointer_to(lengths),
            pointer_to(W), pointer_to(V), pointer_to(x_left), pointer_to(x_right), pointer_to(h_all), pointer_to(steps),
            pointer_to(starts), pointer_to(counts), pointer_to(tries), pointer_to(ends), aligned_pointer_to(buffer),
        )  # fmt: skip
        buffer[0] = 0  # a last use: keeps it alive until here


@inner
def _leaked(plan, s, g, b_i, g_y_i, a0, a1, a2, a3, a4, count):
    """As in `runge_kutta`."""
    n = plan.rows * plan.width
    for q in range(0, n, lanes_of(s)):
        store(s, g_y_i + q, 0.0 - _weighted_six(s, g, b_i, g_y_i + n, n, q, a0, a1, a2, a3, a4, 0.0, count))


@inner
def _step_adjoint(plan, A, c, s, g, a, e, g_y, g_z, spare, left, right, dt, done, length, W, w0):
    """As `runge_kutta._stage_adjoints`, for a step that starts `done` into the interval."""
    stages, n = plan.stages, plan.rows * plan.width
    lanes = lanes_of(s)
    for i in range(stages - 1, -1, -1):
        g_z_i, g_y_i, a_i = g_z + i * n, g_y + i * n, a + i * n
        fraction = (done + c[i] * dt) / length
        count, b_i, column = stages - 1 - i, dt * A[COLUMNS * stages + i], COLUMNS * (i + 1) + i
        a0, a1, a2 = dt * A[column], dt * A[column + COLUMNS], dt * A[column + 2 * COLUMNS]
        a3, a4 = dt * A[column + 3 * COLUMNS], dt * A[column + 4 * COLUMNS]
        for q in range(0, n, lanes):
            value = _weighted_six(s, g, b_i, g_y_i + n, n, q, a0, a1, a2, a3, a4, 0.0, count)
            pass_back(plan, s, value, a_i + q, fraction, left + q, right + q, g_z_i + q, g_y_i + q)
        if plan.leaks:
            _leaked(plan, s, g, b_i, g_y_i, a0, a1, a2, a3, a4, count)
        multiply_back(plan, W, w0, s, g_z_i, e + i * n, spare, g_y_i)
    for q in range(0, n, lanes):
        store(s, g + q, _weighted_six(s, g, 1.0, g_y, n, q, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, stages))


@inner
def _again(plan, A, c, s, y, k, a, e, left, right, dt, done, length, following, W, w0):
    """The stage states y, a = sigma(z) and rates of a step from y_0 (which are at k where states leak), and where `following` is
    a place (not -1), the state at its end."""
    n = plan.rows * plan.width
    k = k if plan.leaks else a
    for i in range(plan.stages):
        if i > 0:
            _stage(plan, A, i, s, y, k, dt, y + i * n)
        _rate(plan, s, y + i * n, k + i * n, a + i * n, e + i * n, left, right, (done + c[i] * dt) / length, W, w0)
    if following >= 0:
        _stage(plan, A, plan.stages, s, y, k, dt, following)


@inner
def _backward_item(
    plan, segment, segments, A, c, item, lengths, W, W_adjoint, V, U, x_left, x_right, h_all, steps, starts, counts, g_all, g_W,
    g_V, g_left, g_right, g_initial, s,
):  # fmt: skip
    stages, n, times, width = plan.stages, plan.rows * plan.width, plan.intervals + 1, plan.width
    member = item // plan.per_member
    tiles = (plan.batch + plan.rows - 1) // plan.rows
    x_member, w0, v0 = member % plan.x_members, member * plan.weights, member * plan.inputs * width
    gw0, gv0 = item * plan.of_W, item * plan.inputs * width
    g, left, right, v_left, v_right, g_y = 0, n, 2 * n, 3 * n, 4 * n, 5 * n
    g_z = g_y + stages * n
    # All that the forward pass of one segment went through, and the states that the segments of an interval start from.
    y_all = g_z + stages * n
    a_all = y_all + segment * stages * n
    e_all = a_all + segment * stages * n
    spare = e_all + plan.emits * segment * stages * n
    k = spare + plan.emits * n
    checkpoints = k + plan.leaks * stages * n
    inputs = checkpoints + segments * n
    g_inputs = inputs + plan.rows * plan.inputs
    set_column(s, inputs + plan.d, plan.inputs, plan.rows)
    begin, end = batch_share(plan, item)
    for first in range(begin, end, plan.rows):
        tile = member * tiles + first // plan.rows
        position = starts[tile]
        for interval in range(plan.intervals):
            position += counts[tile * plan.intervals + interval]
        clear(s, g, n)
        clear(s, left, n)
        if plan.kind == LINEAR:
            drive(plan, s, inputs, V, v0, x_left, x_member, first, plan.intervals, v_left)
        for interval in range(plan.intervals - 1, -1, -1):
            read_states(plan, g_all, member, first, times, interval + 1, s, g, True)
            state = h_all[((member * plan.batch + first) * times + interval + 1) * plan.layers * plan.m]
            if state != state:  # the tile failed: nobody knows what such a state depends on
                for q in range(g, g + n, lanes_of(s)):
                    store(s, q, where_less(0.0, load(s, q) * load(s, q), np.nan, load(s, q)))
            # The adjoints of the drive at both ends; at a sample two intervals meet and add.
            right, left = left, right
            clear(s, left, n)
            if plan.kind != LINEAR:
                clear(s, right, n)
            v_left, v_right = drive_ends(
                plan, s, inputs, V, v0, x_left, x_right, x_member, first, interval, v_left, v_right, True
            )  # fmt: skip
            length = lengths[interval]
            count = counts[tile * plan.intervals + interval]
            position -= count
            read_states(plan, h_all, member, first, times, interval, s, checkpoints, False)
            done, last_segment = 0.0, max(0, count - 1) // segment
            for step in range(last_segment * segment):
                if step % segment == 0:
                    copy(s, checkpoints + step // segment * n, s, y_all, n, False)
                dt = steps[position + step]
                _again(plan, A, c, s, y_all, k, a_all, e_all, v_left, v_right, dt, done, length, y_all, W, w0)
                done += dt
                if (step + 1) % segment == 0:
                    copy(s, y_all, s, checkpoints + (step + 1) // segment * n, n, False)
            for place in range(last_segment, -1, -1):
                begins, stop = place * segment, min(count, (place + 1) * segment)
                if place < last_segment:
                    done = 0.0
                    for step in range(begins):
                        done += steps[position + step]
                copy(s, checkpoints + place * n, s, y_all, n, False)
                for step in range(begins, stop):
                    dt = steps[position + step]
                    at = (step - begins) * stages * n
                    following = y_all + at + stages * n if step + 1 < stop else -1
                    y, a, e = y_all + at, a_all + at, e_all + at
                    _again(plan, A, c, s, y, k, a, e, v_left, v_right, dt, done, length, following, W, w0)
                    done += dt
                for step in range(stop - 1, begins - 1, -1):
                    dt = steps[position + step]
                    done -= dt
                    at = (step - begins) * stages * n
                    y, a, e = y_all + at, a_all + at, emitted(plan, y_all + at, e_all + at)
                    _step_adjoint(plan, A, c, s, g, a, e, g_y, g_z, spare, left, right, dt, done, length, W_adjoint, w0)
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
def adaptive_adjoint(
    plan, segment, segments, pair, lengths, W, W_adjoint, V, U, x_left, x_right, h_all, steps, starts, counts, g_all, g_W, g_V,
    g_left, g_right, g_initial,
):  # fmt: skip
    """The exact adjoint of the steps that `adaptive` took; arguments and results as in `runge_kutta.runge_kutta_adjoint`.

    Args:
        segment, segments: the steps of an interval are gone through again in at most so many segments of so many steps.
    """
    buffers = 5 + (2 + plan.leaks) * plan.stages + (2 + plan.emits) * plan.stages * segment + plan.emits + segments
    entries = plan.rows * (plan.width * buffers + plan.inputs + plan.columns)
    for item in prange(plan.items):
        buffer = np.zeros(entries + MARGIN, h_all.dtype)
        _backward_item(
            plan, segment, segments, pointer_to(pair.A), pointer_to(pair.c), np.int64(item), pointer_to(lengths), pointer_to(W),
            pointer_to(W_adjoint), pointer_to(V), pointer_to(U), pointer_to(x_left), pointer_to(x_right), pointer_to(h_all),
            pointer_to(steps), pointer_to(starts), pointer_to(counts), pointer_to(g_all), pointer_to(g_W), pointer_to(g_V),
            pointer_to(g_left), pointer_to(g_right), pointer_to(g_initial), aligned_pointer_to(buffer),
        )  # fmt: skip
        buffer[0] = 0  # a last use: keeps it alive until here
