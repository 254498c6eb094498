# mypy: disallow-untyped-defs=False
"""Products of tiles with matrices."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .activations import activate, times_derivative
from .compilation import FLAGS, inline, inner
from .plan import DENSE, PAIRS, ROWS
from .simd import Vector, address, as_vector, lanes_of, load, partners, store
from .tiles import clear, copy


@intrinsic(prefer_literal=True)
def _block(typingctx, a, a0, a_row, a_col, b, b0, b_row, c, c0, c_row, depth, vectors):
    """C[r, :] += sum_k A[r, k] B[k, :] for ROWS rows r and `vectors` vectors of columns, accumulated in registers.

    A[r, k] = a[a0 + r a_row + k a_col], and so on.
    """
    vector, count = Vector(a.dtype), vectors.literal_value
    signature = types.void(a, a0, a_row, a_col, b, b0, b_row, c, c0, c_row, depth, vectors)

    def generate(context, builder, signature, args):
        i64 = ir.IntType(64)
        size, lanes = vector.dtype.bitwidth // 8, vector.lanes
        a0, a_row, a_col, b0, b_row, c0, c_row, depth = (
            context.cast(builder, args[k], signature.args[k], types.int64) for k in (1, 2, 3, 5, 6, 8, 9, 10)
        )

        def place(k, offset, v):
            offset = builder.add(offset, i64(v * lanes))
            return address(context, builder, args[k], offset, vector)

        cells = [(r, v) for r in range(ROWS) for v in range(count)]
        c_at = {(r, v): place(7, builder.add(c0, builder.mul(c_row, i64(r))), v) for r, v in cells}
        a_at = [builder.add(a0, builder.mul(a_row, i64(r))) for r in range(ROWS)]
        # Sums start at 0 and reach C last: added one by one to a large C, products would be rounded to its precision.
        zero = ir.Constant(context.get_value_type(vector), [0.0] * lanes)

        entry, loop, done = builder.block, builder.append_basic_block("depth"), builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">", depth, i64(0)), loop, done)
        builder.position_at_end(loop)
        k = builder.phi(i64)
        sums = {cell: builder.phi(context.get_value_type(vector)) for cell in cells}
        b_k = [builder.load(place(4, builder.add(b0, builder.mul(k, b_row)), v), align=size) for v in range(count)]
        column = builder.mul(k, a_col)
        a_k = [builder.load(builder.gep(args[0], [builder.add(start, column)])) for start in a_at]
        a_k = [as_vector(context, builder, vector, vector.dtype, scalar) for scalar in a_k]
        updated = {(r, v): builder.fadd(builder.fmul(a_k[r], b_k[v], FLAGS), sums[r, v], FLAGS) for r, v in cells}
        following = builder.add(k, i64(1))
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, done)
        k.add_incoming(i64(0), entry)
        k.add_incoming(following, loop)
        builder.position_at_end(done)
        results = {cell: builder.phi(context.get_value_type(vector)) for cell in cells}
        for cell in cells:
            for phi in (sums[cell], results[cell]):
                phi.add_incoming(zero, entry)
                phi.add_incoming(updated[cell], loop)
        for cell in cells:
            total = builder.fadd(builder.load(c_at[cell], align=size), results[cell], FLAGS)
            builder.store(total, c_at[cell], align=size)
        return context.get_dummy_value()

    return signature, generate


@inner
def product(a, a0, a_row, a_col, b, b0, b_row, c, c0, c_row, rows, width, depth):
    """C += A B for A (rows, depth), B (depth, width), C (rows, width); rows a multiple of ROWS, width of whole vectors."""
    lanes = lanes_of(a)
    for r in range(0, rows, ROWS):
        v = 0
        while v + 2 * lanes <= width:
            _block(a, a0 + r * a_row, a_row, a_col, b, b0 + v, b_row, c, c0 + r * c_row + v, c_row, depth, 2)
            v += 2 * lanes
        if v < width:
            _block(a, a0 + r * a_row, a_row, a_col, b, b0 + v, b_row, c, c0 + r * c_row + v, c_row, depth, 1)


@inline
def plus_entries(plan, z, W, w, y):
    """z + y W for vectors of the entries of states, and a W other than dense whose entries for them start at w."""
    z = z + load(W, w) * y
    return z + load(W, w + plan.width) * partners(y) if plan.structure == PAIRS else z


@inner
def apply(plan, W, w0, s, y, z):
    """z += y W for the row vectors of a tile, each layer by itself. W is (layers, m, block), or its diagonal (1, width), or for
    pairs (2, width): W[0, j] multiplies y[j] and W[1, j] the other entry of the pair."""
    width, block = plan.width, plan.block
    if plan.structure == DENSE:
        for layer in range(plan.layers):
            at = layer * block
            product(s, y + at, width, 1, W, w0 + layer * plan.m * block, block, s, z + at, width, plan.rows, block, plan.m)
        return
    for r in range(0, plan.rows * width, width):
        for j in range(0, width, lanes_of(s)):
            store(s, z + r + j, plus_entries(plan, load(s, z + r + j), W, w0 + j, load(s, y + r + j)))


@inner
def emitted(plan, y, e):
    """Where what the layers of a tile at y emit stands: at y itself, or at e."""
    return e if plan.emits else y


@inner
def read_by_own(plan, y, e):
    """Where what W multiplies stands, see `emitted`."""
    return e if plan.inside else y


@inner
def emit(plan, s, y, e):
    """Leaves sigma(y) at e where anything reads it; returns `emitted`."""
    if plan.emits:
        copy(s, y, s, e, plan.rows * plan.width, False)
        activate(s, e, plan.rows * plan.width, plan.between)
    return emitted(plan, y, e)


@inner
def couple(plan, W, w0, s, e, z):
    """z_l += e_{l-1} U for the layers above the first, U of shape (layers - 1, m, block) after the other entries of W; e is what
    `emit` returned."""
    width, block = plan.width, plan.block
    for layer in range(1, plan.layers):
        U, below = w0 + plan.own + (layer - 1) * plan.m * block, (layer - 1) * block
        product(s, e + below, width, 1, W, U, block, s, z + below + block, width, plan.rows, block, plan.m)


@inner
def multiply_back(plan, W, w0, s, g, e, spare, g_y):
    """The adjoint of `emit`, `apply` and `couple`: adds to g_y what the adjoint g of z gives, for the transposes of W and U;
    `spare` is room for a tile."""
    width, block = plan.width, plan.block
    target = g_y
    if plan.emits:
        target = spare
        clear(s, spare, plan.rows * width)
    apply(plan, W, w0, s, g, read_by_own(plan, g_y, target))
    for layer in range(1, plan.layers):
        U, below = w0 + plan.own + (layer - 1) * plan.m * block, (layer - 1) * block
        product(s, g + below + block, width, 1, W, U, block, s, target + below, width, plan.rows, block, plan.m)
    if plan.emits:
        for q in range(0, plan.rows * width, lanes_of(s)):
            store(s, g_y + q, load(s, g_y + q) + times_derivative(load(s, spare + q), load(s, e + q), plan.between))


@inner
def sum_outer(plan, total, t0, s, g, y, e, rows):
    """The gradient of W and U in z = W y + U e, summed over rows: (layers, block, block), or the entries that `apply` takes; then
    (layers - 1, block, block)."""
    width, block = plan.width, plan.block
    own = plan.of_W - (plan.layers - 1) * block * block
    for layer in range(1, plan.layers):
        at, below = t0 + own + (layer - 1) * block * block, (layer - 1) * block
        product(s, g + below + block, 1, width, s, e + below, width, total, at, block, block, block, rows)
    if plan.structure == DENSE:
        for layer in range(plan.layers):
            at = layer * block
            product(s, g + at, 1, width, s, y + at, width, total, t0 + at * block, block, block, block, rows)
        return
    for j in range(0, width, lanes_of(s)):
        own = load(total, t0 + j)
        for r in range(j, j + rows * width, width):
            own = own + load(s, g + r) * load(s, y + r)
        store(total, t0 + j, own)
        if plan.structure == PAIRS:
            other = load(total, t0 + width + j)
            for r in range(j, j + rows * width, width):
                other = other + load(s, g + r) * partners(load(s, y + r))
            store(total, t0 + width + j, other)
