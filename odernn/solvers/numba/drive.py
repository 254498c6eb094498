# mypy: disallow-untyped-defs=False
"""The drive U x + b of a tile, and the gradients of what it is made of."""

from __future__ import annotations

from .compilation import inner
from .plan import JUMPS, LINEAR
from .products import product
from .simd import lanes_of, load, store
from .tiles import clear, input_times, read, write


@inner
def drive(plan, s, inputs, V, v0, x, x_member, first, k, out):
    """out <- [x, 1] V for the rows of a tile at time k, V = [U b]^T of shape (inputs, width)."""
    read(plan, x, x_member, first, input_times(plan), k, plan.d, s, inputs, plan.inputs, False)
    clear(s, out, plan.rows * plan.width)
    product(s, inputs, plan.inputs, 1, V, v0, plan.width, s, out, plan.width, plan.rows, plan.width, plan.d + 1)


@inner
def drive_ends(plan, s, inputs, V, v0, x_left, x_right, x_member, first, interval, left, right, backwards):
    """The drives at both ends of an interval; returns their places among the two given. Of a linear path one is there already:
    the interval before, in the order of the way, left it at `right`, or on the way back at `left`."""
    if plan.kind == LINEAR:
        k, place = (interval, right) if backwards else (interval + 1, left)
        drive(plan, s, inputs, V, v0, x_left, x_member, first, k, place)
        return right, left
    drive(plan, s, inputs, V, v0, x_left, x_member, first, interval, left)
    if plan.kind != JUMPS:
        return left, left
    drive(plan, s, inputs, V, v0, x_right, x_member, first, interval, right)
    return left, right


@inner
def input_gradient(plan, s, g, inputs, g_inputs, U, x, member, first, k, g_V, gv0, g_x):
    """Adds what the adjoint g of the drive at time k gives to the gradient of V = [U b]^T and, where wanted, stores that
    of x."""
    times, width = input_times(plan), plan.width
    read(plan, x, member % plan.x_members, first, times, k, plan.d, s, inputs, plan.inputs, False)
    product(s, inputs, 1, plan.inputs, s, g, width, g_V, gv0, width, plan.inputs, width, plan.rows)
    columns = plan.columns
    if columns > 0:
        clear(s, g_inputs, plan.rows * columns)
        # Only the first layer reads x: its block comes first.
        product(s, g, width, 1, U, member * plan.m * columns, columns, s, g_inputs, columns, plan.rows, columns, plan.m)
        write(plan, s, g_inputs, columns, g_x, member, first, times, k, plan.d, False)


@inner
def drive_ends_gradient(
    plan, s, left, right, inputs, g_inputs, U, x_left, x_right, member, first, interval, g_V, gv0, g_left, g_right
):  # fmt: skip
    """`input_gradient` at the ends of an interval, from the adjoints of the drive there; of a linear path at its right end only,
    as the left one is that of the next interval, too."""
    if plan.kind == LINEAR:
        input_gradient(plan, s, right, inputs, g_inputs, U, x_left, member, first, interval + 1, g_V, gv0, g_left)
        return
    if plan.kind == JUMPS:
        input_gradient(plan, s, right, inputs, g_inputs, U, x_right, member, first, interval, g_V, gv0, g_right)
    else:
        for q in range(0, plan.rows * plan.width, lanes_of(s)):
            store(s, left + q, load(s, left + q) + load(s, right + q))
    input_gradient(plan, s, left, inputs, g_inputs, U, x_left, member, first, interval, g_V, gv0, g_left)
