# mypy: disallow-untyped-defs=False
"""The drive U x + b of a tile, and the gradients of what it is made of."""

from __future__ import annotations

from .compilation import inner
from .products import product
from .tiles import clear, input_times, read, write


@inner
def drive(plan, s, inputs, V, v0, x, x_member, first, k, out):
    """out <- [x, 1] V for the rows of a tile at time k, V = [U b]^T of shape (inputs, width)."""
    read(plan, x, x_member, first, input_times(plan), k, plan.d, s, inputs, plan.inputs, False)
    clear(s, out, plan.rows * plan.width)
    product(s, inputs, plan.inputs, 1, V, v0, plan.width, s, out, plan.width, plan.rows, plan.width, plan.d + 1)


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
        product(s, g, width, 1, U, member * plan.m * columns, columns, s, g_inputs, columns, plan.rows, columns, plan.m)
        write(plan, s, g_inputs, columns, g_x, member, first, times, k, plan.d, False)
