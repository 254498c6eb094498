"""Hankel singular values: how well any linear model of m states can do, and how many states a model uses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from odernn.citations import record
from odernn.models import SequenceModel
from targets import ConvolutionalFunctional, Functional, Kernel, arguments, kernels

from ..linear.fits import ExponentialSum
from ..results import Result
from .operator import Discretised
from .panels import COARSE_NODES, NODES, Tail, UnresolvedKernel, find_tail, gauss, operator_edges, resolve
from .state_space import StateSpace, state_space

Array = NDArray[np.float64]
Width = Literal["participation", "entropy", "rank"]

# Values whose estimated error is a larger part of them than this are not given.
_RESOLVED = 1e-3
# Roundings of the largest singular value that any of them may be wrong by.
_ROUNDINGS = 16 * float(np.finfo(np.float64).eps)
# Parts of int |rho| by which the tail of a kernel on [0, inf) may be cut off: the first that the panels hold is taken.
_TOLERANCES = (1e-15, 1e-13, 1e-11, 1e-9, 1e-7)
# Panels of kernels with jumps, whose matrices have full rank, are fewer.
_MOST_PANELS, _MOST_KINKED_PANELS = 240, 140
# Panels are halved until the values are resolved down to this part of the first, or what is cut off decides on their errors; or
# there are more than so many values, or nodes.
_PARTS, _COMPLETE, _LARGE, _LARGEST = (1, 2, 4, 8), 1e-11, 1200, 8000
# Part of the sum of squares that the discretised operator may miss, beside what it is known to leave out at jumps.
_SIZE = 1e-6
# Where the values fall below this part of the first, the sum of the rest is known well enough.
_SUMMED = 1e-8


@dataclass(frozen=True, eq=False, repr=False)
class HankelSpectrum(Result):
    """The Hankel singular values sigma_1 >= sigma_2 >= ... of a kernel or a linear model; in units of rho times time (of the
    gain), in those of y / x for a model in discrete time.

    Args:
        values: those that are resolved, (n,): the estimated error of each is at most a thousandth of it.
        errors: their estimated errors, (n,).
        below: an upper bound of all further ones: sigma_{n+1} and its error. 0 where there are none.
        horizon: T; inf for [0, inf).
        states: m of a model, None for a target.
        system: what it belongs to.
    """

    values: Array
    errors: Array
    below: float
    horizon: float
    states: int | None
    system: str

    def floor(self, m: int) -> float:
        """sigma_{m+1} less its error, a lower bound of the L1 distance of kernels, and of the H-infinity norm of the difference,
        for *every* linear model of m states; 0 where sigma_{m+1} is not resolved.

        Args:
            m: states, >= 0.
        """
        m = arguments.count("m", m, least=0)
        return max(float(self.values[m] - self.errors[m]), 0.0) if m < self.values.size else 0.0

    def ceiling(self, m: int) -> float:
        """2 sum_{i > m} sigma_i, an upper bound of the H-infinity error of the best linear model of m states, which balanced
        truncation meets. nan where the values do not fall far enough to be summed (jumps: the sum may be infinite), and on a
        finite horizon, where there is no such bound.

        Args:
            m: states, >= 0.
        """
        m = arguments.count("m", m, least=0)
        if math.isfinite(self.horizon) or not self._summable:
            return math.nan
        return 2 * float(self.values[m:].sum() + self.errors[m:].sum() + self._rest)

    def states_for(self, error: float) -> tuple[int, int | None]:
        """How many states an error takes: (necessary, sufficient).

            necessary    no linear model of fewer states has an L1 or H-infinity error of `error` or less: #{m: floor(m) > error}
            sufficient   the smallest m at which balanced truncation has an H-infinity error of at most that: ceiling(m) <= error

            hankel_spectrum(kernels.polynomial(2.0)).states_for(1e-3)     # (5, 7)

        Args:
            error: > 0, in units of rho times time.

        Returns:
            Both; None for the second where no ceiling that is known is as low (jumps, a finite horizon).
        """
        error = arguments.number("error", error, above=0)
        necessary = int(np.count_nonzero(np.maximum.accumulate((self.values - self.errors)[::-1]) > error))
        enough = (m for m in range(self.values.size + 1) if self.ceiling(m) <= error)
        return necessary, next(enough, None)

    def effective_width(self, kind: Width = "participation", tolerance: float = 1e-2) -> float:
        """How many states count.

            participation   (sum sigma)^2 / sum sigma^2
            entropy         exp(-sum p log p),   p = sigma / sum sigma
            rank            #{sigma > tolerance sigma_1}

        nan where the values do not fall far enough to be summed, or counted.

        Args:
            kind: which.
            tolerance: of the rank, > 0.
        """
        kind = arguments.choice("kind", kind, ("participation", "entropy", "rank"))  # type: ignore[assignment]
        tolerance = arguments.number("tolerance", tolerance, above=0)
        if not self.values.size:
            return 0.0
        if kind == "rank":
            known = self.below <= tolerance * self.values[0]
            return float((self.values > tolerance * self.values[0]).sum()) if known else math.nan
        if not self._summable:
            return math.nan
        p = self.values / self.values.sum()
        return float(1 / (p @ p)) if kind == "participation" else float(np.exp(-(p @ np.log(p))))

    @property
    def _summable(self) -> bool:
        return self.values.size == 0 or self.below <= _SUMMED * float(self.values[0])

    @property
    def _rest(self) -> float:
        """The sum of what is not resolved: those that a model has left, or by the ratio at which the last values fall."""
        n = self.values.size
        if self.states is not None:
            return self.below * (self.states - n)
        if n < 2:
            return self.below
        ratio = (self.values[-1] / self.values[(n - 1) // 2]) ** (1 / (n - 1 - (n - 1) // 2))
        return float(self.below / (1 - min(ratio, 1 - 1e-6)))


System = Kernel | ConvolutionalFunctional | ExponentialSum | SequenceModel | StateSpace | Callable[[Array], Array]


def hankel_spectrum(system: System, horizon: float = math.inf) -> HankelSpectrum:
    """The singular values of the Hankel operator, which takes the past of the input to the future of the output,

        (Gamma u)(t) = int_0^inf rho(t + s) u(s) ds,

    of a target or a linear model. By Adamyan, Arov and Krein no linear model of m states is closer than sigma_{m+1}:

        sigma_{m+1} <= |Gamma - Gamma_m| <= sup_w |G(iw) - G_m(iw)| <= int |rho - rho_m|.

        spectrum = hankel_spectrum(kernels.polynomial(1.5), horizon=1000.0)
        spectrum.floor(8)              # no linear model of 8 states has a smaller L1 error on [0, 1000]

    On a horizon T the operator is that on [0, T/2], which sees rho on [0, T] alone; sigma_{m+1} <= int_0^T |rho - rho_m| again.

    A kernel is discretised in polynomials on panels of time on which it is smooth (its jumps and kinks need not be declared); the
    error is the difference from polynomials of smaller degree, what lies beyond the last panel, and rounding. A model's values
    are those of its Gramians, sqrt(eig(P Q)); their error is the difference from a second computation of these.

    Args:
        system: a kernel; a function of times (n,) -> (n,) or (n, d); a `ConvolutionalFunctional`; an `ExponentialSum`; a model
            with activation 'linear' and any recurrence or number of layers, or a `StateSpace` of matrices.
        horizon: T > 0; inf for [0, inf). Models have [0, inf) alone.

    Raises:
        ValueError: a nonlinear or unstable model, a kernel that cannot be integrated over [0, inf) (give a horizon) or cannot be
            resolved, or another kind of system.

    Source: [AAK] Adamyan, Arov, Krein, Math. USSR Sbornik 15 (1971); [Glover] Int. J. Control 39 (1984); the horizon: a Hankel
    kernel on [0, T/2] is bounded by int_0^T |rho| (Schur test).
    """
    record(hankel_spectrum)
    horizon = arguments.number("horizon", horizon, above=0, finite=False)
    found = as_system(system)
    if isinstance(found, StateSpace):
        if math.isfinite(horizon):
            raise ValueError(f"horizon is {horizon:g}, expected inf for a model: its Gramians are those of [0, inf)")
        values, errors = found.hankel_values()
        return _resolved(values, errors, math.inf, found.states, found.system)
    panels = Resolved.build(found, horizon)
    for parts in _PARTS:
        values, others = (panels.operator(nodes, parts).singular_values() for nodes in (NODES, COARSE_NODES))
        others = np.pad(others, (0, max(0, values.size - others.size)))[: values.size]
        difference, beyond = np.abs(values - others), 2 * panels.tail.bound
        spectrum = _resolved(values, difference + beyond, horizon, None, found.label)
        complete = spectrum.below <= _COMPLETE * values[0] or difference.max() <= beyond
        if complete or 2 * values.size > _LARGE or 2 * panels.panels(parts).size * NODES > _LARGEST:
            break
    return spectrum


def as_system(system: Any) -> Kernel | StateSpace:
    """A kernel or the matrices of what was given.

    Raises:
        ValueError: neither.
    """
    if isinstance(system, Kernel | StateSpace):
        return system
    if isinstance(system, SequenceModel):
        return state_space(system)
    if isinstance(matrices := getattr(system, "state_space", None), StateSpace):  # a truncation
        return matrices
    if isinstance(system, ExponentialSum):
        return StateSpace(np.diag(-system.rates), np.ones((system.rates.size, 1)), system.amplitudes[None], "exponential sum")
    if isinstance(system, ConvolutionalFunctional):
        return system.kernel
    if isinstance(system, Functional):
        raise ValueError(
            f"system is {arguments.kind_of(system)}, expected a ConvolutionalFunctional: only linear ones have a kernel"
        )
    if callable(system) and not isinstance(system, type):
        return kernels.from_callable(system)
    raise ValueError(
        f"system is {arguments.kind_of(system)}, expected a kernel, a function rho(t), a functional or a linear model; give for "
        "example kernels.polynomial(1.5)"
    )


@dataclass(frozen=True)
class Resolved:
    """A kernel on panels.

    Args:
        edges, breaks: of rho on [0, 2 X].
        tail: X, and what is cut off there.
    """

    kernel: Kernel
    edges: Array
    breaks: tuple[float, ...]
    tail: Tail

    @staticmethod
    def build(kernel: Kernel, horizon: float) -> Resolved:
        """The panels of a kernel on [0, horizon].

        Raises:
            UnresolvedKernel: it takes too many, or int |rho| does not converge.
        """
        for tolerance in _TOLERANCES if math.isinf(horizon) else _TOLERANCES[:1]:
            tail = find_tail(kernel, tolerance) if math.isinf(horizon) else Tail(horizon / 2, 0.0)
            try:
                found = Resolved(kernel, *resolve(kernel, 2 * tail.end, tolerance), tail)
                found.panels()
                return found
            except UnresolvedKernel as error:
                reason = error
        raise UnresolvedKernel(f"kernel {kernel.label} is too fine for its length: {reason}; give a shorter horizon")

    def panels(self, parts: int = 1) -> Array:
        """Edges for the operator, each panel cut in so many parts."""
        most = _MOST_KINKED_PANELS if self.breaks else _MOST_PANELS
        return operator_edges(self.edges, self.breaks, self.tail.end, most, parts)

    def operator(self, nodes: int = NODES, parts: int = 1) -> Discretised:
        """The operator on these panels.

        Raises:
            UnresolvedKernel: its size is wrong.
        """
        operator = Discretised.build(self.kernel, self.panels(parts), self.breaks, nodes)
        _check_size(self.kernel, operator, self.edges)
        return operator


def _check_size(kernel: Kernel, operator: Discretised, edges: Array) -> None:
    """sum sigma_i^2 = int_0^2X min(t, 2X - t) |rho|^2 dt of the operator on [0, X], whatever the panels are. The discretised
    one is a projection of it: what it has and what it leaves out must add up to that."""
    x, w = gauss(2 * NODES)
    edges = np.union1d(edges, operator.edges)  # one of them may be the middle, where the weight has a kink
    width = np.diff(edges)
    t = edges[:-1, None] + width[:, None] * x
    rho = kernel.values(t.ravel())
    largest = float(np.abs(rho).max())  # the squares of large numbers would overflow
    rho = ((rho / largest) ** 2).sum(-1).reshape(t.shape)
    expected = float(((np.minimum(t, edges[-1] - t) * rho) @ w) @ width)
    found = float(((operator.matrix / largest) ** 2).sum() + ((operator.lost / largest) ** 2).sum())
    if not abs(found - expected) <= _SIZE * expected:
        raise UnresolvedKernel(f"the squares of its singular values are {found / expected:.6g} of what they must add up to")


def _resolved(values: Array, errors: Array, horizon: float, states: int | None, system: str) -> HankelSpectrum:
    errors = errors + _ROUNDINGS * float(values[0] if values.size else 0.0)
    good = (errors <= _RESOLVED * values) & (values > 0)
    n = int(np.argmin(good)) if not good.all() else values.size
    below = float((values + errors)[n:].max()) if n < values.size else 0.0
    if states is None and n == values.size and n:
        below = float(values[-1])  # a discretisation has more of them
    return HankelSpectrum(values[:n], errors[:n], below, horizon, states, system)
