"""Panels of time on which a kernel and the singular functions of its Hankel operator are polynomials to working precision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from targets import Kernel

Array = NDArray[np.float64]

# Gauss-Legendre nodes on each panel, and those of the coarser rule whose difference is the error estimate.
NODES, COARSE_NODES = 16, 14
# Gauss's rule is exact to twice the degree: a panel is narrow enough for it where a polynomial of so many nodes follows rho.
_DEGREE = 28
# Points at which a panel is compared with its polynomial, and octaves below the first panel's end that it is looked at in.
_LOOKS, _OCTAVES_BELOW = 40, 60
# A panel this narrow for where it stands holds a jump or kink that was not declared; its place is sought to this precision.
_NARROW, _PLACE = 1e-5, 1e-15
# Panels begin so many times as far from 0 as they end, or less where that does not resolve the kernel.
_WIDEST = 8.0
# Panels and rounds of bisection that resolve a kernel, at most.
_MOST_PANELS, _MOST_ROUNDS = 4000, 200
# Searches for jumps and kinks that were not declared.
_MOST_SEARCHES = 5
# Part of the tolerance that one panel may take.
_SHARED = 16
# Places of kinks that are followed from one application of the operator to the next, at most, and how often.
_MOST_KINKS, _FOLLOWED = 200, 6
# Edges closer than this part of the end are one: places of kinks are known to rounding alone.
_MERGED = 1e-9
# Panels at least, for kernels with jumps or kinks.
_KINKED = 16
_ROUNDING, _TIME_ROUNDING = 512 * float(np.finfo(np.float64).eps), 16 * float(np.finfo(np.float64).eps)
# Octaves of [0, inf) in which a kernel is looked for: from 2^-100 to 2^1000 time units.
_FIRST_OCTAVE, _LAST_OCTAVE = -100, 1000


class UnresolvedKernel(ValueError):
    """A kernel that these panels cannot follow."""


@dataclass(frozen=True)
class Tail:
    """What a kernel has beyond a time.

    Args:
        end: X, the time.
        bound: of the norm of its Hankel operator beyond X: the smaller of int_X^inf |rho| and pi sup_{t > X} t |rho| (Hilbert).
    """

    end: float
    bound: float


@cache
def gauss(nodes: int) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return (x + 1) / 2, w / 2


def interpolation(nodes: int, at: Array) -> Array:
    """Values of the Lagrange polynomials of the Gauss nodes on [0, 1] at points of any shape, (..., nodes)."""
    x, w = gauss(nodes)
    degree = np.arange(nodes)
    # l_i(t) = w_i sum_k (2k + 1) P_k(x_i) P_k(t): Gauss's rule is exact for these products.
    P = np.polynomial.legendre.legvander
    return np.asarray((P(2 * at - 1, nodes - 1) * (2 * degree + 1)) @ (P(2 * x - 1, nodes - 1) * w[:, None]).T)


def find_tail(kernel: Kernel, tolerance: float) -> Tail:
    """The earliest time beyond which the kernel counts for nothing: the bound of its tail is below `tolerance` int |rho|.

    Raises:
        UnresolvedKernel: int |rho| does not converge, or no kernel was seen.
    """
    edges = 2.0 ** np.arange(_FIRST_OCTAVE, _LAST_OCTAVE + 1)
    edges = np.unique(np.concatenate([[0.0], edges, kernel.breakpoints]))
    x, w = gauss(2 * _LOOKS)
    width = np.diff(edges)
    t = edges[:-1, None] + width[:, None] * x
    size = np.abs(kernel.values(t.ravel())).sum(-1).reshape(t.shape)
    # a kernel that has been 0 for an octave stays so where it cannot be evaluated any more (Ai(1e6))
    gone = np.append(False, np.maximum.accumulate((size == 0).all(-1) & (edges[:-1] > 0))[:-1])
    size[gone[:, None] & ~np.isfinite(size)] = 0.0
    if not np.isfinite(size).all():
        raise UnresolvedKernel(
            f"kernel {kernel.label} is not finite at t = {t[~np.isfinite(size)][0]:.3g}: expected finite values"
        )
    mass = (size @ w) * width
    total = float(mass.sum())
    if total == 0:
        raise UnresolvedKernel(f"kernel {kernel.label} is 0 wherever it was looked at: declare where it is not as breakpoints")
    beyond = np.concatenate([np.cumsum(mass[::-1])[::-1], [0.0]])
    hilbert = math.pi * np.concatenate([np.maximum.accumulate((t * size).max(-1)[::-1])[::-1], [0.0]])
    # what the last octave holds is beyond all that was looked at
    beyond, hilbert = beyond + mass[-1], np.maximum(hilbert, hilbert[-2])
    bound = np.minimum(beyond, hilbert)
    if mass[-1] > mass[-1 - _LAST_OCTAVE // 2] / 2:
        raise UnresolvedKernel(
            f"int |rho| of kernel {kernel.label} does not converge on [0, inf), and its Hankel operator has no "
            "singular values there: give hankel_spectrum a finite horizon"
        )
    k = int(np.argmax(bound <= tolerance * total))
    if not bound[k] <= tolerance * total:
        raise UnresolvedKernel(f"kernel {kernel.label} decays too slowly on [0, inf): give hankel_spectrum a finite horizon")
    return Tail(float(edges[k]), float(bound[k]))


def resolve(kernel: Kernel, end: float, tolerance: float) -> tuple[Array, tuple[float, ...]]:
    """Edges of panels on [0, end] on which the kernel is a polynomial, and its jumps and kinks, declared or found.

    Args:
        tolerance: L1 error of all panels together, as a part of int |rho|.

    Raises:
        UnresolvedKernel: values that are not finite, or no end of the bisection.
    """
    breaks = {time for time in kernel.breakpoints if time < end}
    for _ in range(_MOST_SEARCHES):
        edges, narrow, missed = _bisect(kernel, end, tuple(breaks), tolerance)
        found = [_place(kernel, low, high) for low, high in narrow] or _kinked(kernel, edges, missed)
        new = [place for place in found if not any(abs(place - known) <= _NARROW * known for known in breaks)]
        if not new:
            break
        breaks |= set(new)
    return edges, tuple(sorted(breaks))


def _kinked(kernel: Kernel, edges: Array, missed: float) -> list[float]:
    """Edges that happen to stand at a jump or kink: no polynomial follows the kernel across them, to an L1 error `missed`."""
    width = np.minimum(np.diff(edges)[:-1], np.diff(edges)[1:]) / 4
    inner = edges[1:-1]
    if not inner.size:
        return []
    error, rounding = _errors(kernel, inner - width, inner + width)
    scale = float((np.abs(kernel.values(inner)).sum(-1) * width).max())
    kinked = error > np.maximum(rounding, max(_ROUNDING * scale, missed))
    return [float(edge) for edge in inner[kinked]]


def _errors(kernel: Kernel, low: Array, high: Array, *, exact_times: bool = False) -> tuple[Array, Array]:
    """L1 error of the polynomial on each panel, and what rounding makes of it: of rho, and of the times in its formula unless
    these are exact (sin wt is known to eps wt alone)."""
    x, _ = gauss(_DEGREE)
    looks = (np.arange(_LOOKS) + 0.5) / _LOOKS
    width = high - low
    at_nodes = kernel.values((low[:, None] + width[:, None] * x).ravel()).reshape(len(low), _DEGREE, -1)
    at_looks = kernel.values((low[:, None] + width[:, None] * looks).ravel()).reshape(len(low), _LOOKS, -1)
    if not (np.isfinite(at_nodes).all() and np.isfinite(at_looks).all()):
        raise UnresolvedKernel(f"kernel {kernel.label} is not finite on [{low[0]:.3g}, {high[-1]:.3g}]: expected finite values")
    difference = np.abs(np.einsum("qi,pid->pqd", interpolation(_DEGREE, looks), at_nodes) - at_looks)
    error = difference.max(1).sum(-1) * width
    if low[0] == 0:
        parts: Array = 2.0 ** -np.arange(1.0, _OCTAVES_BELOW)
        there = kernel.values(high[0] * parts)
        wrong = np.abs(interpolation(_DEGREE, parts) @ at_nodes[0] - there).sum(-1)
        error[0] = max(error[0], float(wrong @ parts) * high[0]) if np.isfinite(there).all() else np.inf
    rounding = _ROUNDING * np.abs(at_nodes).max(1).sum(-1) * width
    if not exact_times:
        rounding += _TIME_ROUNDING * high * np.abs(np.diff(at_nodes, axis=1)).sum((1, 2))
    return error, rounding


def _bisect(
    kernel: Kernel, end: float, breaks: tuple[float, ...], tolerance: float
) -> tuple[Array, list[tuple[float, float]], float]:
    """Edges, panels that are too narrow for where they stand, and the L1 error that each of the others may have."""
    coarse = end * _WIDEST ** -np.arange(math.ceil(max(math.log(end, _WIDEST), 0.0)) + 1.0)
    edges = np.unique(np.concatenate([[0.0], coarse, breaks]))
    low, high = edges[:-1], edges[1:]
    x, w = gauss(_DEGREE)
    times = (low[:, None] + (high - low)[:, None] * x).ravel()
    missed = tolerance / _SHARED * float(np.abs(kernel.values(times)).sum(-1) @ ((high - low)[:, None] * w).ravel())
    done: list[Array] = []
    narrow: list[tuple[float, float]] = []
    for _ in range(_MOST_ROUNDS):
        error, rounding = _errors(kernel, low, high)
        wrong = error > np.maximum(missed, rounding)
        thin = wrong & (high - low < _NARROW * high) & (low > 0)
        narrow += list(zip(low[thin].tolist(), high[thin].tolist()))
        wrong &= ~thin
        done.append(low[~wrong])
        if not wrong.any():
            break
        if sum(map(len, done)) + wrong.sum() > _MOST_PANELS:
            raise UnresolvedKernel(f"kernel {kernel.label} is not smooth on any scale down to {float((high - low).min()):.2g}")
        low, high = low[wrong], high[wrong]
        middle = np.where(low > 0, np.where(high > 4 * low, np.sqrt(low) * np.sqrt(high), (low + high) / 2), high / _WIDEST)
        low, high = np.stack([low, middle], 1).ravel(), np.stack([middle, high], 1).ravel()
    else:
        raise UnresolvedKernel(f"kernel {kernel.label} is not smooth on any scale down to {float((high - low).min()):.2g}")
    return np.append(np.sort(np.concatenate(done)), end), narrow, missed


def _place(kernel: Kernel, low: float, high: float) -> float:
    """The jump or kink in a narrow panel: the half in which the polynomial is worse, again and again."""
    while high - low > _PLACE * high:
        middle = (low + high) / 2
        left, right = (_errors(kernel, np.array([a]), np.array([b]))[0][0] for a, b in ((low, middle), (middle, high)))
        _, rounding = _errors(kernel, np.array([low]), np.array([high]), exact_times=True)
        if max(left, right) <= rounding[0]:
            break
        low, high = (low, middle) if left > right else (middle, high)
    return (low + high) / 2


def operator_edges(edges: Array, breaks: tuple[float, ...], end: float, most: int, parts: int = 1) -> Array:
    """Edges of panels on [0, end] for the singular functions: no wider than those of rho at any later time, since they are sums
    of rho(t + s), and with edges at the kinks that the jumps of rho leave at b - t.

    Args:
        edges, breaks: of rho on [0, 2 end], as `resolve` gave them.
        most: panels.
        parts: into which each is cut once more.

    Raises:
        UnresolvedKernel: it takes more.
    """
    width = np.minimum.accumulate(np.diff(edges)[::-1])[::-1]
    inside = edges[:-1] < end
    low, high, width = edges[:-1][inside], np.minimum(edges[1:][inside], end), width[inside]
    if breaks:  # singular values fall slowly, and there are as many as nodes
        width = np.minimum(width, end / _KINKED)
    count = np.ceil((high - low) / width * (1 - 1e-9)).clip(1)
    if count.sum() > most:
        raise UnresolvedKernel(f"it takes {count.sum():.0f} panels on [0, {end:.3g}], more than {most}")
    regular = [np.linspace(a, b, int(n) + 1)[:-1] for a, b, n in zip(low, high, count)]
    kinks = np.array([0.0, end])
    for _ in range(_FOLLOWED):
        images = np.subtract.outer(breaks, kinks).ravel()
        kinks = np.sort(np.concatenate([kinks, images[(images > _MERGED * end) & (images < end)]]))
        kinks = kinks[np.append(True, np.diff(kinks) > _MERGED * end)]
        if len(kinks) > _MOST_KINKS:
            break
    every = np.sort(np.concatenate([*regular, kinks[:_MOST_KINKS]]))
    every = np.append(every[:-1][np.diff(every) > _MERGED * every[1:]], end)
    if len(every) > most:
        raise UnresolvedKernel(f"it takes {len(every)} panels on [0, {end:.3g}], more than {most}")
    cut = every[:-1, None] + np.diff(every)[:, None] * (np.arange(parts) / parts)
    return np.append(cut.ravel(), end)
