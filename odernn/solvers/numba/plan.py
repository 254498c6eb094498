"""The sizes and the case of one solve."""

from __future__ import annotations

from typing import NamedTuple

from .simd import WIDE

# Register blocking of `product`: ROWS x 2 accumulators, two vectors and a broadcast fit 32 (AVX-512) or 16 registers.
ROWS = 8 if WIDE else 4
# Entries of one tile buffer: a dozen such buffers and W stay in the first two caches.
TILE_ENTRIES = 512
# Rows of a product that sums a weight gradient: shorter sums spend their time on loading and storing the result.
SUM_ROWS = 64
# Bytes that rows of a matrix must not be a multiple of: products run down its columns, whose entries would then share few sets of
# the caches and push each other out (the adjoint at m = 1024 in single precision then takes 1.3 to 1.7 times as long).
SET_STRIDE = 2048
# Structures of W and kinds of paths, as integers.
DENSE, DIAGONAL, PAIRS = range(3)
LINEAR, HOLD, JUMPS = range(3)
STRUCTURES = {"dense": DENSE, "diagonal": DIAGONAL, "pairs": PAIRS}
KINDS = {"linear": LINEAR, "hold": HOLD, "jumps": JUMPS}


class Plan(NamedTuple):
    """The sizes of one solve.

    Args:
        items, per_member: shares of work in all, and for each member of the ensemble.
        rows: of a tile, a multiple of ROWS.
        batch, intervals, m, d: as everywhere.
        layers: of a stack; the states of one are `layers * m` entries.
        block: columns of a tile that hold one layer: m in whole vectors, and one more where `SET_STRIDE` divides that.
        width: of a tile, `layers * block`.
        inputs: width of a tile of inputs, a multiple of ROWS: [x, 1] for Runge-Kutta; [x left, x right, 1] for scans.
        columns: of the matrix that leads back to x, in whole vectors; 0 where no gradient of x is wanted.
        x_members: leading axis of x: the members, or 1 for an x that all share.
        weights: entries of W per member, and per interval where it changes with these.
        own: of these, the ones that lead from a layer to itself; those from layer to layer come after.
        of_W: entries of the gradient of W per item, and per interval likewise; 0 where it is not wanted.
        structure, kind: of W and of the path, the integers above.
        activation, between: of the rates and between layers, each one of `activations.CODES`.
        emits: whether products read something else than states (0 or 1).
        inside: whether W multiplies what a layer emits, and not its state (0 or 1).
        leaks: whether rates are sigma(z) - h instead of sigma(z) (0 or 1).
        timed: whether each sequence has steps of its own (0 or 1).
        stages, substeps: of Runge-Kutta: evaluations in a step, steps in an interval.
        changes: whether the matrices of a scan change from interval to interval (0 or 1).
    """

    items: int
    per_member: int
    rows: int
    batch: int
    intervals: int
    m: int
    d: int
    layers: int
    block: int
    width: int
    inputs: int
    columns: int
    x_members: int
    weights: int
    own: int
    of_W: int
    structure: int
    kind: int
    activation: int
    between: int
    emits: int
    inside: int
    leaks: int
    timed: int
    stages: int
    substeps: int
    changes: int
