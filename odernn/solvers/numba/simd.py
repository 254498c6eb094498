# mypy: disallow-untyped-defs=False
"""Vectors of numbers in one register, pointers to them, and what the compiler is told of them."""

from __future__ import annotations

import operator
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

from .compilation import FLAGS, INLINE_OPTIONS

WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
VECTOR_BYTES = 64 if WIDE else 32
CACHE_LINE = 64
# Entries to allocate beyond those of a buffer that is to start on a cache line.
MARGIN = CACHE_LINE // 4


class Vector(types.Type):
    """VECTOR_BYTES of numbers in one register."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.lanes = VECTOR_BYTES // (dtype.bitwidth // 8)
        super().__init__(f"vector({dtype})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        element = manager.lookup(vector.dtype).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


def as_vector(context, builder, vector, kind, value):
    """The value itself, or a vector full of it."""
    if kind == vector:
        return value
    model = context.get_value_type(vector)
    undefined = ir.Constant(model, ir.Undefined)
    first = builder.insert_element(undefined, context.cast(builder, value, kind, vector.dtype), ir.IntType(32)(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), model.count), [0] * model.count))


def _define_operator(symbol, instruction):
    @intrinsic
    def apply(typingctx, a, b):
        vector = a if isinstance(a, Vector) else b

        def generate(context, builder, signature, args):
            x, y = (as_vector(context, builder, vector, kind, value) for kind, value in zip(signature.args, args))
            return getattr(builder, instruction)(x, y, flags=FLAGS)

        return vector(a, b), generate

    @overload(symbol, jit_options=INLINE_OPTIONS)
    def choose(a, b):
        if isinstance(a, Vector) or isinstance(b, Vector):
            return lambda a, b: apply(a, b)
        return None


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define_operator(_symbol, _instruction)


@intrinsic
def where_less(typingctx, a, b, yes, no):
    """yes where a < b, else no (where either is NaN, too)."""
    vector = next(kind for kind in (a, b, yes, no) if isinstance(kind, Vector))

    def generate(context, builder, signature, args):
        a, b, yes, no = (as_vector(context, builder, vector, kind, value) for kind, value in zip(signature.args, args))
        return builder.select(builder.fcmp_ordered("<", a, b), yes, no)

    return vector(a, b, yes, no), generate


@intrinsic
def pointer_to(typingctx, array):
    """Where the entries of an array start. Pointers, not arrays, go through the code below: numba counts references to arrays
    at every call, inside the innermost loops. Nothing but the caller keeps the array alive."""

    def generate(context, builder, signature, args):
        return context.make_array(signature.args[0])(context, builder, value=args[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def aligned_pointer_to(typingctx, array):
    """The first cache line that starts in an array, so that no vector straddles two."""

    def generate(context, builder, signature, args):
        i64 = ir.IntType(64)
        start = context.make_array(signature.args[0])(context, builder, value=args[0]).data
        address = builder.add(builder.ptrtoint(start, i64), i64(CACHE_LINE - 1))
        return builder.inttoptr(builder.and_(address, i64(-CACHE_LINE)), start.type)

    return types.CPointer(array.dtype)(array), generate


def lanes_of(pointer: Any) -> int:
    """Numbers in a vector of what a pointer points to."""
    raise NotImplementedError("for compiled code only")


@overload(lanes_of, inline="always")
def _overload_lanes_of(pointer):
    count = Vector(pointer.dtype).lanes
    return lambda pointer: count


def address(context, builder, pointer, offset, vector):
    return builder.bitcast(builder.gep(pointer, [offset]), context.get_value_type(vector).as_pointer())


@intrinsic
def load(typingctx, pointer, start):
    """The vector pointer[start : start + lanes]."""
    vector = Vector(pointer.dtype)

    def generate(context, builder, signature, args):
        return builder.load(address(context, builder, args[0], args[1], vector), align=vector.dtype.bitwidth // 8)

    return vector(pointer, types.int64), generate


@intrinsic
def store(typingctx, pointer, start, value):
    """pointer[start : start + lanes] = value."""
    vector = Vector(pointer.dtype)

    def generate(context, builder, signature, args):
        filled = as_vector(context, builder, vector, signature.args[2], args[2])
        builder.store(filled, address(context, builder, args[0], args[1], vector), align=vector.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, value), generate


@intrinsic
def partners(typingctx, x):
    """The vector with the numbers of each pair of lanes exchanged."""

    def generate(context, builder, signature, args):
        count = context.get_value_type(x).count
        order = ir.Constant(ir.VectorType(ir.IntType(32), count), [lane ^ 1 for lane in range(count)])
        return builder.shuffle_vector(args[0], args[0], order)

    return x(x), generate


def define_bit_trick(vector, bits, compute):
    """A function of a vector that works on the bits of its numbers as integers."""

    @intrinsic
    def trick(typingctx, x):
        if x != vector:
            return None

        def generate(context, builder, signature, args):
            model = context.get_value_type(vector)
            integers = ir.VectorType(ir.IntType(bits), model.count)

            def constant(value):
                return ir.Constant(integers, [value] * model.count)

            return builder.bitcast(compute(builder, builder.bitcast(args[0], integers), constant), model)

        return vector(vector), generate

    return trick


SINGLE, DOUBLE = Vector(types.float32), Vector(types.float64)
# 1 / x for positive x to 5 %: negates the exponent and, roughly, inverts the mantissa.
_RECIPROCAL_BITS = 0x7EF311C3
rough_reciprocal = define_bit_trick(SINGLE, 32, lambda builder, x, constant: builder.sub(constant(_RECIPROCAL_BITS), x))
# 2^n from 1.5 * 2^52 + n, whose last bits are those of n.
_EXPONENT_BIAS, _EXPONENT_SHIFT = 1023, 52
power_of_two = define_bit_trick(
    DOUBLE, 64, lambda builder, x, constant: builder.shl(builder.add(x, constant(_EXPONENT_BIAS)), constant(_EXPONENT_SHIFT))
)
