"""Moments of a kernel on grid cells by scipy.integrate, with their error estimate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.polynomial.legendre import legval
from numpy.typing import ArrayLike, NDArray

from targets import arguments
from targets.kernels import Kernel

Array = NDArray[np.float64]

# An estimate above this, relative to int |rho|, is no answer.
RELATIVE_TOLERANCE = 1e-8

# Two Gauss-Kronrod rules are compared on each piece of a cell. The difference measures the error of the
# coarser one: the finer one, which is kept, is better than its estimate by orders where rho is smooth.
_FINE, _COARSE = "gk21", "gk15"
# Neither rule sees what lies between its outermost node and the end of a piece, this part of its width. A jump there shows
# as a difference between rho at the end and the polynomial of degree 10 that fits rho best, which at theta = 0 is
# int rho K dtheta, K(theta) = sum_k (2k + 1) P_k(1 - 2 theta), P_k of Legendre.
_END_GAP = 0.00217
_END_SERIES = 2.0 * np.arange(11) + 1
# A piece is accepted when its estimate is below this part of its own int |rho| ...
_PIECE_TOLERANCE = 1e-12
# ... or of its cell's: near a singularity pieces are similar to one another, and only ever smaller.
_CELL_TOLERANCE = 1e-13
# ... or of all cells together: far in a tail rho is too small (denormal) to be accurate, or to matter.
_TOTAL_TOLERANCE = 1e-20
# Nodes near t are rounded to eps t, which makes eps t / h of a piece of width h; times a safety factor.
_ROUNDING = 8 * np.finfo(np.float64).eps
# Bisections, at most: to the smallest normal number from any practical step. t^-0.9 needs some 400.
_MAX_LEVELS = 1000
# Pieces beyond which rho is taken for noise: a constant, plus so many for each cell.
_MAX_PIECES, _MAX_PIECES_PER_CELL = 200_000, 64
# A piece that both rules accept is integrated once more: on panels that shrink towards t = 0 by this factor if it begins there
# (a kernel of rate r lives on [0, 1/r], and both rules step over that if their first node is far beyond), and on even ones,
# of which so many are shared out among the cells. A difference of this part of int |rho| means that something was missed.
_SHRINK, _SHRINKING_PANELS = 4.0, 50
_EVEN_PANELS = 1000
_MISSED = 1e-10
# If over so many levels the estimate of what is left has not fallen to this part, it never will (1/t: stays;
# t^-1.5: grows; t^-0.99 falls to 0.87).
_STALL_LEVELS, _STALL_RATIO = 20, 0.9


class QuadratureError(ValueError):
    """A kernel that cannot be integrated to the tolerance.

    Example:
        >>> from targets import QuadratureError, kernels, quadrature
        >>> rho = kernels.from_callable(lambda t: 1 / t)
        >>> try:
        ...     quadrature.moments(rho, [0.0], [1.0])
        ... except QuadratureError:
        ...     print("1/t has no integral from 0 on")
        1/t has no integral from 0 on
    """


@dataclass(frozen=True)
class Moments:
    """Moments of rho on cells [a_i, b_i], with error estimate and evaluation count.

    m0_i = int rho(tau) dtau,   m1_i = int rho(tau) (tau - a_i)/(b_i - a_i) dtau

    Args:
        m0, m1: (cells, d).
        absolute_error: sum of the error estimates of all cells.
        relative_error: the same divided by the sum of int |rho|_1 of all cells.
        evaluations: number of times at which rho was evaluated.

    Example:
        >>> from targets import kernels, quadrature
        >>> quadrature.moments(kernels.sine(), [0.0, 1.0], [1.0, 2.0]).m1.shape
        (2, 1)
    """

    m0: Array
    m1: Array
    absolute_error: float
    relative_error: float
    evaluations: int


def moments(kernel: Kernel, left: ArrayLike, right: ArrayLike) -> Moments:
    """Zeroth and first moment of a kernel on each cell, by adaptive Gauss-Kronrod quadrature.

    Cells are split at the kernel's breakpoints. All pieces are integrated together by
    `scipy.integrate.quad_vec` with two rules; pieces on which the rules disagree are bisected, again
    together, until they agree. Jumps that were not declared and integrable singularities at t = 0 are met in
    this way by ever smaller pieces. Rules can agree because both miss a feature: pieces that they accept are
    integrated once more on smaller panels, some 16,000 nodes over all cells, and down to 1e-30 of a cell at t = 0. What
    it misses: a bump that falls between those nodes, at an undeclared place. A rho that was 0 at all of
    them is refused, unless its breakpoints are declared: zero is then no measurement.

    Args:
        kernel: the kernel; rho may be infinite at t = 0.
        left, right: (cells,) ends of the cells, 0 <= left < right. Cells may overlap.

    Raises:
        ValueError: the cells are no such cells.
        QuadratureError: rho is not finite at some t > 0, the relative error estimate is above 1e-8, or rho was not seen at all.

    Example:
        >>> from targets import kernels, quadrature
        >>> quadrature.moments(kernels.exponential(), [0.0], [1.0]).m0.round(6)  # 1 - 1/e
        array([[0.632121]])
    """
    arguments.instance("kernel", kernel, Kernel, "wrap a function in kernels.from_callable")
    a, b = (
        np.atleast_1d(arguments.real_tensor(name, ends).detach().cpu().double().numpy())
        for name, ends in (("left", left), ("right", right))
    )
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"left has shape {a.shape}, right {b.shape}, expected both (cells,)")
    if not ((a >= 0) & (a < b) & (b < np.inf)).all():
        i = int(np.argmin((a >= 0) & (a < b) & (b < np.inf)))
        raise ValueError(f"cell {i} is [{a[i]:g}, {b[i]:g}], expected 0 <= left < right; sort the grid")

    sums = np.zeros((3, len(a), kernel.size))  # m0, m1 and int |rho| of each cell
    errors = np.zeros(len(a))
    cell, lower, upper = _split(a, b, kernel.breakpoints)
    cell_mass = np.zeros(len(a))
    evaluations = pieces = 0
    open_errors: list[float] = []
    for level in range(_MAX_LEVELS):
        offset, cell_width = (lower - a[cell]) / (b - a)[cell], (b - a)[cell]
        rule = partial(_integrate, kernel, lower, upper, offset, cell_width)
        (fine, fine_evaluations), (coarse, coarse_evaluations) = rule(_FINE), rule(_COARSE)
        evaluations += fine_evaluations + coarse_evaluations + int((lower > 0).sum()) + len(lower)
        pieces += len(cell)
        error = np.abs(fine - coarse)[:2].sum(axis=-1).max(axis=0) + _end_error(kernel, lower, upper, fine[3:])
        mass = fine[2].sum(axis=-1)
        middle = 0.5 * (lower + upper)
        if level == 0:
            np.add.at(cell_mass, cell, mass)
        relative = np.maximum(_PIECE_TOLERANCE, _ROUNDING * upper / (upper - lower))
        tolerance = np.maximum(relative * mass, _CELL_TOLERANCE * cell_mass[cell])
        rejected = error > np.maximum(tolerance, _TOTAL_TOLERANCE * cell_mass.sum())
        allowed = np.maximum(tolerance, _MISSED * cell_mass.sum())
        missed = _missed(kernel, lower, upper, offset, cell_width, fine, ~rejected, allowed, _EVEN_PANELS // len(a))
        evaluations += missed.evaluations
        error, middle = np.where(missed.error > 0, missed.error, error), np.where(missed.error > 0, missed.middle, middle)
        rejected |= missed.error > 0
        np.maximum.at(cell_mass, cell, missed.mass)
        open_errors.append(float(error[rejected].sum()))
        stalled = level >= _STALL_LEVELS and open_errors[-1] > _STALL_RATIO * open_errors[-1 - _STALL_LEVELS]
        exhausted = pieces > _MAX_PIECES + _MAX_PIECES_PER_CELL * len(a)
        if stalled or exhausted or level == _MAX_LEVELS - 1:
            rejected[:] = False  # the estimate stands as it is, and is judged below
        kept = ~rejected
        for total, part in zip(sums, fine[:3], strict=True):
            np.add.at(total, cell[kept], part[kept])
        errors += np.bincount(cell[kept], error[kept], len(a))
        if kept.all():
            break
        cell, lower, upper = np.repeat(cell[rejected], 2), lower[rejected], upper[rejected]
        middle = middle[rejected]
        lower, upper = np.stack([lower, middle], 1).ravel(), np.stack([middle, upper], 1).ravel()

    if not sums[2].any() and a.min() == 0 and not kernel.breakpoints:
        raise QuadratureError(
            f"kernel {kernel.label} is 0 at all {evaluations} times evaluated on [0, {b.max():g}], which is no proof that "
            "its integral is 0; expected a kernel that is seen, so declare where it is not 0 as breakpoints"
        )
    total_error, total_mass = float(errors.sum()), float(sums[2].sum())
    relative_error = total_error / total_mass if total_error != 0 else 0.0
    if not relative_error <= RELATIVE_TOLERANCE:
        worst = int(np.argmax(errors))
        raise QuadratureError(
            f"kernel {kernel.label} cannot be integrated over [{a[worst]:g}, {b[worst]:g}]: "
            f"relative error estimate {relative_error:.1e}, expected <= {RELATIVE_TOLERANCE:.0e}; "
            "use a rho that is integrable there (not 1/t at 0), and declare its jumps as breakpoints"
        )
    return Moments(sums[0], sums[1], total_error, relative_error, evaluations)


def _split(a: Array, b: Array, breakpoints: tuple[float, ...]) -> tuple[NDArray[np.intp], Array, Array]:
    """Cells cut at the breakpoints: the cell each piece belongs to, and the piece's ends."""
    cell, lower, upper = np.arange(len(a)), a, b
    for time in breakpoints:
        cut = (lower < time) & (time < upper)
        cell = np.concatenate([cell, cell[cut]])
        lower, upper = (
            np.concatenate([lower, np.full(cut.sum(), time)]),
            np.concatenate([np.where(cut, time, upper), upper[cut]]),
        )
    return cell, lower, upper


@dataclass(frozen=True)
class _Missed:
    """Features that both rules stepped over, by piece: the difference (0 for none), int |rho| with it, where to cut the piece."""

    error: Array
    mass: Array
    middle: Array
    evaluations: int


def _missed(
    kernel: Kernel,
    lower: Array,
    upper: Array,
    offset: Array,
    cell_width: Array,
    fine: Array,
    accepted: NDArray[np.bool_],
    allowed: Array,
    panels_each: int,
) -> _Missed:
    """The accepted pieces once more, on panels, at most `panels_each` even ones; the others as in `_integrate`."""
    error, mass, middle = np.zeros(len(lower)), np.zeros(len(lower)), 0.5 * (lower + upper)
    even = min(panels_each, _EVEN_PANELS // max(int(accepted.sum()), 1))
    evaluations = 0
    groups = [(accepted & (lower == 0), np.append(0.0, _SHRINK ** -np.arange(_SHRINKING_PANELS, -1.0, -1.0)))]
    if even > 1:
        groups.append((accepted, np.linspace(0.0, 1.0, even + 1)))
    for chosen, edges in groups:
        if not chosen.any():
            continue
        start, width, panels = lower[chosen], (upper - lower)[chosen], len(edges) - 1
        left, right = (np.ravel(start[:, None] + width[:, None] * part) for part in (edges[:-1], edges[1:]))
        whole = np.repeat(cell_width[chosen], panels)
        at = np.repeat(offset[chosen], panels) + (left - np.repeat(start, panels)) / whole
        again, count = _integrate(kernel, left, right, at, whole, _FINE)
        evaluations += count
        again = again.reshape(len(again), len(start), panels, -1)
        # int |rho| is no measure of it: |.| has kinks where rho changes its sign
        difference = np.abs(again[:2].sum(axis=2) - fine[:2, chosen]).sum(axis=-1).max(axis=0)
        by_panel = again[2].sum(axis=-1)
        found = np.where(difference > np.maximum(allowed[chosen], _MISSED * by_panel.sum()), difference, 0.0)
        error[chosen] = np.maximum(error[chosen], found)
        mass[chosen] = np.maximum(mass[chosen], np.where(found > 0, by_panel.sum(axis=1), 0.0))
        if edges[1] < 0.1 / panels:
            # Towards 0: cut beyond the last panel that holds anything, and not one level after another.
            last = panels - 1 - np.argmax((by_panel > _CELL_TOLERANCE * by_panel.sum(axis=1, keepdims=True))[:, ::-1], axis=1)
            cut = start + width * edges[last + 1]
            middle[chosen] = np.where((found > 0) & (last < panels - 1), cut, middle[chosen])
    return _Missed(error, mass, middle, evaluations)


@cache
def _end_weights(theta: float) -> tuple[float, float]:
    """K(theta) and K(1 - theta); kept, as the rules have 36 nodes between them."""
    at_lower, at_upper = legval([1 - 2 * theta, 2 * theta - 1], _END_SERIES)
    return float(at_lower), float(at_upper)


def _end_error(kernel: Kernel, lower: Array, upper: Array, fitted: Array) -> Array:
    """The error of int |rho|_1, (pieces,), from a jump between the outermost nodes and the ends of a piece.

    The end t = 0 is left out: rho may be infinite there.
    """
    error = np.zeros(len(lower))
    inside = np.nextafter(lower, upper), np.nextafter(upper, lower)  # a breakpoint belongs to neither side
    for at, fit, judged in zip(inside, fitted, (lower > 0, upper > 0), strict=True):
        width = (upper - lower)[judged]
        difference = np.abs(kernel.values(at[judged]) * width[:, None] - fit[judged]).sum(axis=-1)
        error[judged] += _END_GAP * difference
    return error


def _integrate(kernel: Kernel, lower: Array, upper: Array, offset: Array, cell_width: Array, rule: str) -> tuple[Array, int]:
    """One Gauss-Kronrod rule over theta in [0, 1], tau = lower + width theta, on every piece at once.

    Returns:
        (5, pieces, d): int rho, int rho (tau - a)/(b - a), int |rho|, and the width of the piece times the values of a
        polynomial fit at its two ends; and the number of evaluations of rho.
    """
    width = upper - lower
    slope = width / cell_width

    def integrand(theta: float) -> Array:
        tau = lower + width * theta
        rho = kernel.values(tau)
        if not np.isfinite(rho).all():
            i, channel = np.argwhere(~np.isfinite(rho))[0]
            raise QuadratureError(
                f"kernel {kernel.label} is {rho[i, channel]} at t = {tau[i]:g}, "
                "expected finite values; only a singularity at t = 0 can be integrated"
            )
        rho = rho * width[:, None]
        at_lower, at_upper = _end_weights(theta)
        return np.stack([rho, rho * (offset + slope * theta)[:, None], np.abs(rho), rho * at_lower, rho * at_upper])

    from scipy.integrate import quad_vec  # slow to import

    # limit=1: the rule is applied once. quad_vec would bisect all pieces alike, the caller only some.
    integral, _, info = quad_vec(integrand, 0.0, 1.0, quadrature=rule, limit=1, full_output=True)
    return integral, int(info.neval) * len(lower)
