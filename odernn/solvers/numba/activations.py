# mypy: disallow-untyped-defs=False
"""Activations of the states of a tile."""

from __future__ import annotations

from typing import Any

from numba.extending import overload

from .compilation import INLINE_OPTIONS, inline, inner
from .simd import SINGLE, lanes_of, load, power_of_two, rough_reciprocal, store, where_less
from .tanh import FAR, P1, P2, P3, P4, Q1, Q2, Q3, Q4

# As integers.
HARDTANH, TANH, RELU, SIGMOID = range(1, 5)
CODES = {"linear": 0, "hardtanh": HARDTANH, "tanh": TANH, "relu": RELU, "sigmoid": SIGMOID}

# tanh in double precision: x + x z N(z) / D(z), z = x^2, for |x| < _NEAR, else 1 - 2 / (e^{2x} + 1) with
# e^r = (B + r A) / (B - r A), A and B polynomials in r^2. Source: S. Moshier's Cephes, tanh.c and exp.c.
_NEAR = 0.625
_N0, _N1, _N2 = -1.61468768441708447952e3, -9.92877231001918586564e1, -9.64399179425052238628e-1
_D0, _D1, _D2 = 4.84406305325125486048e3, 2.23548839060100448583e3, 1.12811678491632931402e2
_A0, _A1, _A2 = 9.99999999999999999910e-1, 3.02994407707441961300e-2, 1.26177193074810590878e-4
_B0, _B1, _B2, _B3 = 2.0, 2.27265548208155028766e-1, 2.52448340349684104192e-3, 3.00198505138664455042e-6
_ROUNDS_TO_ONE = 20.0  # tanh(20) = 1 - 8e-18
_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.4426950408889634, 6.93145751953125e-1, 1.42860682030941723212e-6
_ROUNDER = 6755399441055744.0  # 1.5 * 2^52: x + it - it rounds x to an integer


def _tanh(x: Any) -> Any:
    """tanh of a vector to the precision of its numbers; NaN stays NaN."""
    raise NotImplementedError("for compiled code only")


@overload(_tanh, jit_options=INLINE_OPTIONS)
def _overload_tanh(x):
    def single(x):
        x = where_less(FAR, x, FAR, x)
        x = where_less(x, -FAR, -FAR, x)
        z = x * x
        top = x * (1.0 + z * (P1 + z * (P2 + z * (P3 + z * P4))))
        bottom = 1.0 + z * (Q1 + z * (Q2 + z * (Q3 + z * Q4)))
        # The quotient by Newton's method, three times faster than the division of most processors.
        inverse = rough_reciprocal(bottom)
        inverse = inverse + inverse * (1.0 - bottom * inverse)
        inverse = inverse + inverse * (1.0 - bottom * inverse)
        quotient = top * inverse
        return quotient + inverse * (top - bottom * quotient)

    def double(x):
        size = where_less(x, 0.0, 0.0 - x, x)
        size = where_less(_ROUNDS_TO_ONE, size, _ROUNDS_TO_ONE, size)
        z = size * size
        y = size + size
        shifted = y * _LOG2_E + _ROUNDER
        n = shifted - _ROUNDER
        r = y - n * _LN2_HIGH - n * _LN2_LOW
        rr = r * r
        odd = r * (_A0 + rr * (_A1 + rr * _A2))
        even = _B0 + rr * (_B1 + rr * (_B2 + rr * _B3))
        top = where_less(size, _NEAR, size * z * (_N0 + z * (_N1 + z * _N2)), -2.0 * (even - odd))
        bottom = where_less(size, _NEAR, _D0 + z * (_D1 + z * (_D2 + z)), power_of_two(shifted) * (even + odd) + (even - odd))
        value = where_less(size, _NEAR, size, 1.0) + top / bottom
        return where_less(x, 0.0, 0.0 - value, value)

    return single if x == SINGLE else double


@inner
def activate(s, z, n, activation):
    """z <- sigma(z)."""
    step = lanes_of(s)
    if activation == TANH:
        for q in range(z, z + n, step):
            store(s, q, _tanh(load(s, q)))
    elif activation == SIGMOID:
        for q in range(z, z + n, step):
            store(s, q, 0.5 + 0.5 * _tanh(0.5 * load(s, q)))
    elif activation == RELU:
        for q in range(z, z + n, step):
            value = load(s, q)
            store(s, q, where_less(value, 0.0, 0.0, value))
    elif activation == HARDTANH:
        for q in range(z, z + n, step):
            value = load(s, q)
            value = where_less(1.0, value, 1.0, value)
            store(s, q, where_less(value, -1.0, -1.0, value))


@inner
def leak(plan, s, y, a, k):
    """k <- a - y, the rates of states y, from a = sigma(z); where nothing leaks they are a itself, and k is a."""
    if plan.leaks:
        for q in range(0, plan.rows * plan.width, lanes_of(s)):
            store(s, k + q, load(s, a + q) - load(s, y + q))


@inline
def times_derivative(g, k, activation):
    """g sigma'(z), from k = sigma(z)."""
    if activation == TANH:
        return g * (1.0 - k * k)
    if activation == SIGMOID:
        return g * (k * (1.0 - k))
    if activation == RELU:
        return where_less(0.0, k, g, 0.0 * k)
    if activation == HARDTANH:
        return where_less(k * k, 1.0, g, 0.0 * k)
    return g
