# mypy: disable-error-code="no-untyped-def"
"""Embedded Runge-Kutta pairs along a path: every program chooses the steps of its tile, and its way back takes the same ones.

Of each step that it accepts a program keeps the interval (`places`) and three numbers (`record`): the length, and as parts of the
interval where the step begins and its length again; of every `EVERY`-th one also the state that it starts from (`checkpoints`).

The rates of a step are more than registers hold beside W. They stay in memory, which means in the cache nearest to the program,
and the stages are a loop: unrolled, its products would be more instructions than their cache holds.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..numba import step_control
from .forward import rate_at, slope_of, square_at
from .products import product

# Steps from one checkpoint to the next, which a program takes again.
EVERY = 16
# Columns of a table of coefficients: seven of terms (in the adjoint's the last is b_i), then c_i.
COLUMNS = 8
_EVERY, _COLUMNS = tl.constexpr(EVERY), tl.constexpr(COLUMNS)
_EQUAL, _SAFETY, _MEMORY = (tl.constexpr(getattr(step_control, name)) for name in ("EQUAL", "SAFETY", "MEMORY"))
_SHORTEST, _LONGEST, _LEAST_ERROR = (tl.constexpr(getattr(step_control, name)) for name in ("SHORTEST", "LONGEST", "LEAST_ERROR"))
_EXPLORING, _NOTHING, _MAX_STEPS = (tl.constexpr(getattr(step_control, name)) for name in ("EXPLORING", "NOTHING", "MAX_STEPS"))
_DONE, _UNDERFLOW, _TOO_MANY = (tl.constexpr(getattr(step_control, name)) for name in ("DONE", "UNDERFLOW", "TOO_MANY"))


@triton.jit
def _size(value, state, mask, rtol, atol, m: tl.constexpr):
    """The largest RMS over the states of a sequence of value / (atol + rtol state); inf where it is not finite."""
    ratio = tl.where(mask, value / (atol + rtol * state), 0.0)
    total = tl.sum(ratio * ratio, 1)
    return tl.sqrt(tl.max(tl.where(total < float("inf"), total, float("inf")), 0) / m)


@triton.jit
def _power(x, exponent):
    return tl.exp2(tl.log2(x) * exponent)


# The step control of `odernn.solvers.numba.step_control`, with lengths in double precision. (An error of 0 counts as 1e-30.)


@triton.jit
def _step_within(rest, proposal):
    shared = tl.where(proposal > 0.5 * rest, 0.5 * rest, proposal)
    return tl.where(proposal >= rest * _EQUAL, rest, shared)


@triton.jit
def _step_after(step, error, before, proposal, again, ORDER: tl.constexpr):
    growth = _power(tl.maximum(error, 1e-30), (0.75 * _MEMORY - 1.0) / ORDER) * _power(before, _MEMORY / ORDER) * _SAFETY
    growth = tl.minimum(tl.maximum(growth, _SHORTEST), _LONGEST)
    growth = tl.where(again, tl.minimum(growth, 1.0), growth)
    following = step * growth
    return tl.where((step < proposal) & (growth >= _LONGEST), tl.maximum(proposal, following), following)


@triton.jit
def _step_again(step, error, ORDER: tl.constexpr):
    return step * tl.maximum(_power(tl.maximum(error, 1e-30), -1.0 / ORDER) * _SAFETY, _SHORTEST)


@triton.jit
def _first_step(
    h, k, W_0, W_1, W_2, left, right, length, mask, rtol, atol, ORDER: tl.constexpr, m: tl.constexpr, ACTIVATION: tl.constexpr
):
    # Sizes in double precision: rates may be far larger than errors.
    state = tl.abs(h).to(tl.float64)
    slope, size = _size(k.to(tl.float64), state, mask, rtol, atol, m), _size(state, state, mask, rtol, atol, m)
    tells = (size >= _NOTHING) & (slope >= _NOTHING) & (slope < float("inf"))
    exploring = tl.minimum(tl.where(tells, 0.01 * size / tl.maximum(slope, _NOTHING), _EXPLORING), length)
    y, fraction = h + exploring.to(tl.float32) * k, (exploring / length).to(tl.float32)
    change = rate_at(y, W_0, W_1, W_2, left, right, fraction, left, 0, mask, ACTIVATION, False) - k
    largest = tl.maximum(slope, _size(change.to(tl.float64), state, mask, rtol, atol, m) / exploring)
    first = tl.minimum(100.0 * exploring, _power(0.01 / tl.maximum(largest, 1e-15), 1.0 / ORDER))
    return tl.where(largest < float("inf"), tl.where(largest <= 1e-15, length, first), exploring)


@triton.jit
def _sum(terms, coefficients, count, mask, STAGES: tl.constexpr, m: tl.constexpr):
    """sum_{j < count} coefficients_j terms_j."""
    total = tl.zeros(mask.shape, tl.float32)
    for j in tl.static_range(STAGES + 1):
        total += tl.load(coefficients + j) * tl.load(terms + j * m, mask=mask & (j < count), other=0.0)
    return total


@triton.jit
def _rates(
    h, W_0, W_1, W_2, left, right, dt, start, share, A, rates, states, mask, FIRST: tl.constexpr, STAGES: tl.constexpr,
    m: tl.constexpr, ACTIVATION: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """The rates k_i of a step from i = FIRST on, STAGES of them; with KEEP the states y_i, too. Returns the last state."""
    y = h
    for i in range(FIRST, FIRST + STAGES):
        tl.debug_barrier()  # between stores of rates and loads
        y = h + dt * _sum(rates, A + i * _COLUMNS, i, mask, STAGES, m)
        fraction = tl.minimum(1.0, start + share * tl.load(A + i * _COLUMNS + _COLUMNS - 1))
        k = rate_at(y, W_0, W_1, W_2, left, right, fraction, left, 0, mask, ACTIVATION, False)
        tl.store(rates + i * m, k, mask=mask)
        if KEEP:
            tl.store(states + i * m, y, mask=mask)
    tl.debug_barrier()
    return y


@triton.jit(do_not_specialize=["batch", "intervals", "x_times", "shift", "room", "rtol", "atol"])
def forward(
    h_all, left, right, W, A, rates, lengths, record, places, checkpoints, counts, batch, intervals, x_times, shift, room, rtol,
    atol, STAGES: tl.constexpr, ORDER: tl.constexpr, RESTARTS: tl.constexpr, ACTIVATION: tl.constexpr,
    m: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The states at intervals + 1 times from the first one, in h_all (members, batch, intervals + 1, m), as far as they come.

    Of the steps that are accepted the first `room` are kept, in record (members, tiles, room, 3), places (members, tiles, room)
    and checkpoints (members, batch, room / EVERY, m). counts (members, tiles, 3): of steps accepted and tried, and how it ended.

    A: a row of coefficients for each stage, one for the result, one for the error; see `launch`.
    rates (members, batch, STAGES + 1, m): room for those of a step.
    RESTARTS: whether the drive jumps from one interval to the next.
    """
    member = tl.program_id(1).to(tl.int64)
    tile = member * tl.num_programs(0) + tl.program_id(0)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    mask = (row < batch) & (column < m)
    sequence = member * batch + row
    stride = tl.cast(m, tl.int64)
    W_0, W_1, W_2 = square_at(W + member * m * m, m, WIDTH, True)
    h_all += sequence * (intervals + 1) * m + column
    left += sequence * x_times * m + column
    right += (sequence * x_times + shift) * m + column
    rates += sequence * ((STAGES + 1) * m) + column
    checkpoints += sequence * (room // _EVERY) * m + column
    places += tile * room
    record += tile * room * 3
    counts += tile * 3
    h = tl.load(h_all, mask=mask, other=0.0)
    before, proposal, done = tl.cast(_LEAST_ERROR, tl.float32), tl.cast(0.0, tl.float64), tl.cast(0.0, tl.float64)
    again = tl.cast(0, tl.int1)
    interval, attempts, position = tl.cast(0, tl.int32), tl.cast(0, tl.int32), tl.cast(0, tl.int32)
    tries, end = tl.cast(0, tl.int32), tl.cast(_DONE, tl.int32)
    while (interval < intervals) & (end == _DONE):
        left_at, right_at = left + interval * stride, right + interval * stride
        length = tl.load(lengths + interval)
        if (done == 0.0) & ((interval == 0) | RESTARTS):
            k = rate_at(h, W_0, W_1, W_2, left_at, right_at, 0.0, left, 0, mask, ACTIVATION, False)
            tl.store(rates, k, mask=mask)
            if tries == 0:
                proposal = _first_step(h, k, W_0, W_1, W_2, left, right, length, mask, rtol, atol, ORDER, m, ACTIVATION)
        rest = length - done
        step = _step_within(rest, proposal)
        end = tl.where(done + step > done, tl.where(attempts == _MAX_STEPS, _TOO_MANY, _DONE), _UNDERFLOW)
        tries += (end == _DONE).to(tl.int32)
        dt, start, share = step.to(tl.float32), (done / length).to(tl.float32), (step / length).to(tl.float32)
        y = _rates(h, W_0, W_1, W_2, left_at, right_at, dt, start, share, A, rates, rates, mask, 1, STAGES, m, ACTIVATION, False)
        estimate = dt * _sum(rates, A + (STAGES + 1) * _COLUMNS, STAGES + 1, mask, STAGES, m)
        error = _size(estimate, tl.maximum(tl.abs(h), tl.abs(y)), mask, rtol, atol, m)
        accepted = (error <= 1.0) & (end == _DONE)
        remembers = accepted & (step >= proposal * _EQUAL)
        following = tl.where(accepted, _step_after(step, error, before, proposal, again, ORDER), _step_again(step, error, ORDER))
        before = tl.where(remembers, tl.maximum(error, _LEAST_ERROR), before)
        proposal, again = following, error > 1.0
        attempts += 1
        if accepted:
            if position < room:
                tl.store(places + position, interval)
                tl.store(record + 3 * position, dt)
                tl.store(record + 3 * position + 1, start)
                tl.store(record + 3 * position + 2, share)
                if position % _EVERY == 0:
                    tl.store(checkpoints + (position // _EVERY) * stride, h, mask=mask)
            position += 1
            h = y
            tl.store(rates, tl.load(rates + STAGES * m, mask=mask, other=0.0), mask=mask)
            done = tl.where(step == rest, length, done + step)
            if done >= length:
                interval += 1
                tl.store(h_all + interval * stride, h, mask=mask)
                done, attempts = tl.cast(0.0, tl.float64), tl.cast(0, tl.int32)
        # Not after the loop: their place would wait on the stack.
        tl.store(counts, position)
        tl.store(counts + 1, tries)
        tl.store(counts + 2, end)


@triton.jit(do_not_specialize=["batch", "x_times", "shift", "room", "begin", "end"])
def again(
    checkpoints, left, right, W, A, record, places, counts, kept, batch, x_times, shift, room, begin, end,
    STAGES: tl.constexpr, ACTIVATION: tl.constexpr, m: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Steps begin to end - 1 once more, each program those of one checkpoint. What they leave is y_i and k_i, the two of kept
    (2, members, batch, end - begin, STAGES, m); beyond the last step of a tile that is not touched."""
    member = tl.program_id(1).to(tl.int64)
    tile = member * tl.num_programs(0) + tl.program_id(0)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    mask = (row < batch) & (column < m)
    sequence = member * batch + row
    stride = tl.cast(m, tl.int64)
    W_0, W_1, W_2 = square_at(W + member * m * m, m, WIDTH, True)
    left += sequence * x_times * m + column
    right += (sequence * x_times + shift) * m + column
    kept += sequence * (end - begin) * (STAGES * m) + column
    apart = tl.num_programs(1).to(tl.int64) * batch * (end - begin) * (STAGES * m)
    places += tile * room
    record += tile * room * 3
    first = begin + tl.program_id(2) * _EVERY
    h = tl.load(checkpoints + (sequence * (room // _EVERY) + first // _EVERY) * m + column, mask=mask, other=0.0)
    for position in range(first, tl.minimum(first + _EVERY, tl.minimum(end, tl.load(counts + 3 * tile)))):
        states = kept + (position - begin) * (STAGES * stride)
        interval = tl.load(places + position)
        left_at, right_at = left + interval * stride, right + interval * stride
        dt, start, share = tl.load(record + 3 * position), tl.load(record + 3 * position + 1), tl.load(record + 3 * position + 2)
        _rates(
            h, W_0, W_1, W_2, left_at, right_at, dt, start, share, A, states + apart, states, mask, 0, STAGES, m, ACTIVATION, True
        )
        h += dt * _sum(states + apart, A + STAGES * _COLUMNS, STAGES, mask, STAGES, m)


@triton.jit(do_not_specialize=["batch", "intervals", "room", "begin", "end"])
def backward(
    g_all, carry, g_drive, W, A, g_states, record, places, counts, rates, batch, intervals, room, begin, end,
    STAGES: tl.constexpr, ACTIVATION: tl.constexpr, m: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Steps end - 1 down to begin, of which `again` left `rates`: the adjoint of z_i takes the place of k_i. `carry` (members,
    batch, m) is the adjoint of h at the later end, then at the earlier, without what g_all adds there. The adjoints of the drive
    at the left and right ends of the intervals are added to g_drive (2, members, batch, intervals, m).

    A: a row of coefficients for each stage, from the last to the first; see `launch`.
    g_states (members, batch, STAGES + 1, m): room for the adjoints of the y_i, in this order.
    """
    member = tl.program_id(1).to(tl.int64)
    tile = member * tl.num_programs(0) + tl.program_id(0)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    mask = (row < batch) & (column < m)
    sequence = member * batch + row
    stride = tl.cast(m, tl.int64)
    W_0, W_1, W_2 = square_at(W + member * m * m, m, WIDTH, False)
    g_all += (sequence * (intervals + 1) + 1) * m + column
    g_drive += sequence * intervals * m + column
    apart = tl.num_programs(1).to(tl.int64) * batch * intervals * m
    rates += sequence * (end - begin) * (STAGES * m) + column
    g_states += sequence * ((STAGES + 1) * m) + column
    carry += sequence * m + column
    places += tile * room
    record += tile * room * 3
    taken = tl.load(counts + 3 * tile).to(tl.int32)
    last = tl.minimum(end, taken) - 1
    g = tl.load(carry, mask=mask, other=0.0)
    for back in range(last + 1 - begin):
        position = last - back
        interval = tl.load(places + position)
        if tl.load(places + position + 1, mask=position + 1 < taken, other=-1) != interval:  # the last step in it
            g += tl.load(g_all + interval * stride, mask=mask, other=0.0)
        dt, start, share = tl.load(record + 3 * position), tl.load(record + 3 * position + 1), tl.load(record + 3 * position + 2)
        of_left, of_right, total = tl.zeros_like(g), tl.zeros_like(g), g
        for s in range(STAGES):
            tl.debug_barrier()  # between stores of g_states and loads
            of_s = A + s * _COLUMNS
            at = rates + ((position - begin + 1) * STAGES - 1 - s) * stride
            # The adjoint of k_i is dt (b_i g + sum_{j > i} A_ji g_y_j), that of z_i is sigma' times it, g_y_i = W^T g_z_i.
            g_k = dt * (tl.load(of_s + _COLUMNS - 2) * g + _sum(g_states, of_s, s, mask, STAGES, m))
            g_z = g_k * slope_of(tl.load(at, mask=mask, other=0.0), ACTIVATION)
            tl.store(at, g_z, mask=mask)
            fraction = tl.minimum(1.0, start + share * tl.load(of_s + _COLUMNS - 1))
            of_left, of_right = of_left + (1.0 - fraction) * g_z, of_right + fraction * g_z
            g_y = product(g_z, W_0, W_1, W_2)
            tl.store(g_states + s * m, g_y, mask=mask)
            total += g_y
        g = total
        left_at, right_at = g_drive + interval * stride, g_drive + apart + interval * stride
        tl.store(left_at, tl.load(left_at, mask=mask, other=0.0) + of_left, mask=mask)
        tl.store(right_at, tl.load(right_at, mask=mask, other=0.0) + of_right, mask=mask)
    tl.store(carry, g, mask=mask)
