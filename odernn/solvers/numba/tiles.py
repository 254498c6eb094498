# mypy: disallow-untyped-defs=False
"""Tiles: what is read into them and written from them, and which of them belong to an item."""

from __future__ import annotations

from .compilation import inner
from .plan import LINEAR
from .simd import lanes_of, load, store


@inner
def copy(source, start, target, at, count, adds):
    """target[at : at + count] = source[start : start + count], or += where `adds`."""
    lanes = lanes_of(source)
    whole = count // lanes * lanes
    for j in range(0, whole, lanes):
        value = load(source, start + j)
        store(target, at + j, load(target, at + j) + value if adds else value)
    for j in range(whole, count):
        target[at + j] = target[at + j] + source[start + j] if adds else source[start + j]


@inner
def read(plan, source, member, first, times, k, channels, s, tile, stride, adds):
    """tile[r, :channels] = source[member, first + r, k], or += where `adds`.

    Rows past the end of the batch repeat its last one (rows of zeros could diverge where the true ones do not); nothing is
    added to them.
    """
    for r in range(min(plan.rows, plan.batch - first) if adds else plan.rows):
        row = min(first + r, plan.batch - 1)
        copy(source, ((member * plan.batch + row) * times + k) * channels, s, tile + r * stride, channels, adds)


@inner
def write(plan, s, tile, stride, target, member, first, times, k, channels, adds):
    """target[member, first + r, k] = tile[r, :channels], or += where `adds`, for the rows within the batch."""
    for r in range(min(plan.rows, plan.batch - first)):
        at = ((member * plan.batch + first + r) * times + k) * channels
        copy(s, tile + r * stride, target, at, channels, adds)


@inner
def read_states(plan, source, member, first, times, k, s, tile, adds):
    """`read` for states: every layer of (member, first + r, k) into its columns of the tile."""
    for r in range(min(plan.rows, plan.batch - first) if adds else plan.rows):
        row = min(first + r, plan.batch - 1)
        at = ((member * plan.batch + row) * times + k) * plan.layers * plan.m
        for layer in range(plan.layers):
            copy(source, at + layer * plan.m, s, tile + r * plan.width + layer * plan.block, plan.m, adds)


@inner
def write_states(plan, s, tile, target, member, first, times, k):
    """The way back of `read_states`."""
    for r in range(min(plan.rows, plan.batch - first)):
        at = ((member * plan.batch + first + r) * times + k) * plan.layers * plan.m
        for layer in range(plan.layers):
            copy(s, tile + r * plan.width + layer * plan.block, target, at + layer * plan.m, plan.m, False)


@inner
def set_column(s, start, stride, count):
    for r in range(count):
        s[start + r * stride] = 1


@inner
def clear(s, start, n):
    for q in range(start, start + n, lanes_of(s)):
        store(s, q, 0.0)


@inner
def batch_share(plan, item):
    """First row and end of an item's share of the batch, in whole tiles."""
    tiles = (plan.batch + plan.rows - 1) // plan.rows
    share = item % plan.per_member
    first, last = tiles * share // plan.per_member, tiles * (share + 1) // plan.per_member
    return first * plan.rows, min(plan.batch, last * plan.rows)


@inner
def input_times(plan):
    return plan.intervals + 1 if plan.kind == LINEAR else plan.intervals
