# mypy: disable-error-code="no-untyped-def"
"""Products in single precision on tensor cores, which multiply numbers of eight significant bits.

A float32 is the sum of three bfloat16, x = x_0 + x_1 + x_2 to within 2^-24 |x|. Of the nine products of the parts the six largest
count; each of the others is below 2^-24 |x y|, the rounding of one float32. (Products of float32 itself run on the scalar units,
unrolled into thousands of instructions whose operands do not fit in registers.)
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
    x_0 = x.to(tl.bfloat16)
    rest = x - x_0.to(tl.float32)
    x_1 = rest.to(tl.bfloat16)
    return x_0, x_1, (rest - x_1.to(tl.float32)).to(tl.bfloat16)


@triton.jit
def _add_product(x, W, z):
    if _INTERPRETED:
        x, W = x.to(tl.float32), W.to(tl.float32)
    return tl.dot(x, W, z)


@triton.jit
def product(x, W_0, W_1, W_2):
    """x W for x (rows, width) and the parts of W (width, width). One part of x at a time is in registers."""
    x_0, x_1, x_2 = parts_of(x)
    z = tl.zeros(x.shape, dtype=tl.float32)
    z = _add_product(x_2, W_0, z)
    z = _add_product(x_1, W_1, z)
    z = _add_product(x_1, W_0, z)
    z = _add_product(x_0, W_2, z)
    z = _add_product(x_0, W_1, z)
    return _add_product(x_0, W_0, z)
