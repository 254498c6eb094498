# mypy: disable-error-code="no-untyped-def"
"""Products in single precision on tensor cores, which multiply numbers of eight significant bits.

A float32 is the sum of three bfloat16, x = x_0 + x_1 + x_2. Of the nine products of the parts the six largest count; the others
are 2^-27 |x y| in the root mean square, and less than 2^-23 |x y|. What is left is the rounding of the sums: for 16 to 128 terms,
with tensor cores that cut off, an error of 0.6 to 1.0 times that of a sum of float32 products (three products of tf32: 1.2 to 2.3
times). Products of float32 itself would run on the scalar units, unrolled into thousands of instructions whose operands spill.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

# Triton's interpreter multiplies the bit patterns of bfloat16 as integers; float32 holds the parts as well.
_INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def parts_of(x):
    """x_0, x_1, x_2 in bfloat16."""
    x_0, rest = _split(x)
    x_1, rest = _split(rest)
    return x_0, x_1, rest.to(tl.bfloat16)


@triton.jit
def _split(x):
    """The nearest bfloat16 and the rest, by whole numbers: the GPU's own conversion is slow. NaN stays in the rest."""
    whole = (x.to(tl.int32, bitcast=True) + 0x8000) & -0x10000
    part = (whole >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
    return part, x - whole.to(tl.float32, bitcast=True)


@triton.jit
def _add_product(x, W, z):
    if _INTERPRETED:
        x, W = x.to(tl.float32), W.to(tl.float32)
    return tl.dot(x, W, z)


@triton.jit
def product(x, W_0, W_1, W_2):
    """x W for x (rows, width) and the parts of W (width, width), in two sums that tensor cores work on at once."""
    x_0, x_1, x_2 = parts_of(x)
    small = tl.zeros(x.shape, dtype=tl.float32)
    small = _add_product(x_2, W_0, small)
    small = _add_product(x_1, W_1, small)
    small = _add_product(x_0, W_2, small)
    large = tl.zeros(x.shape, dtype=tl.float32)
    large = _add_product(x_1, W_0, large)
    large = _add_product(x_0, W_1, large)
    large = _add_product(x_0, W_0, large)
    return large + small
