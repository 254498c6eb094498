"""The H-infinity distance of a target and a linear model: the largest gain of their difference over all frequencies."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from odernn.models import SequenceModel
from targets import Kernel

from .panels import gauss
from .reduction import BalancedTruncation
from .spectrum import Resolved, System, as_system
from .state_space import StateSpace

Complex = NDArray[np.complex128]
Array = NDArray[np.float64]

# Frequencies per decade, decades beyond the slowest and the fastest rate, and rounds in which the largest maxima are refined.
_PER_DECADE, _BEYOND, _PEAKS, _ROUNDS, _REFINED = 40, 3.0, 8, 6, 21
# A peak that is narrower than the grid reaches this part of its height there: kernels that oscillate longer are not resolved.
_LOWEST = 0.1
_NODES = 28


def h_infinity_distance(model: SequenceModel | StateSpace | BalancedTruncation, target: System) -> float:
    """sup_w |G(iw) - G_m(iw)| for G(s) = int_0^inf rho(t) e^{-st} dt and G_m(s) = c (s - W)^-1 U, in units of rho times time:

        floor(m) <= h_infinity_distance(model, kernel) <= kernel_distance(model, kernel).value

    It is the largest ratio of L2 norms of the error and the input. Found on a grid of frequencies, which holds those of the
    models' modes, and refined around its largest maxima, so that it is a value from below.

        reduced = balanced_truncation(kernels.polynomial(2.0), 2)
        h_infinity_distance(reduced, kernels.polynomial(2.0)), reduced.floor, reduced.bound    # 0.0570, 0.0185, 0.0570

    Args:
        model: linear, in continuous time, stable, of one input and output; or a `BalancedTruncation` or `StateSpace`.
        target: a scalar kernel, or another such model.

    Raises:
        ValueError: as `hankel_spectrum`; several inputs or outputs, or a map.

    Source: Zhou, Doyle, Glover, Robust and Optimal Control (1996), ch. 4.
    """
    own, found = as_system(model), as_system(target)
    if not isinstance(own, StateSpace):
        raise ValueError(f"model is the kernel {own.label}, expected a linear model: the model comes first, then its target")
    for one in (own, found):
        if isinstance(one, StateSpace) and (one.discrete or one.U.shape[1] != 1 or len(one.c) != 1):
            raise ValueError(f"{one.system} is a map, or has several inputs or outputs: expected one of each, in continuous time")
    if isinstance(found, Kernel) and found.size != 1:
        raise ValueError(f"the kernel has {found.size} channels, expected one: take them one by one")
    other = Resolved.build(found, math.inf) if isinstance(found, Kernel) else found

    def gain(omega: Array) -> Array:
        return np.abs(_response(other, omega) - _response(own, omega))

    rates = np.concatenate([_rates(own), _rates(other)])
    low, high = np.log10(rates.min()) - _BEYOND, np.log10(rates.max()) + _BEYOND
    modes = [np.abs(np.linalg.eigvals(one.W).imag) for one in (own, other) if isinstance(one, StateSpace)]
    omega = np.unique(np.concatenate([[0.0], 10 ** np.linspace(low, high, math.ceil(_PER_DECADE * (high - low))), *modes]))
    values = gain(omega)
    padded = np.concatenate([[-1.0], values, [-1.0]])
    peaks = np.flatnonzero((values >= padded[:-2]) & (values >= padded[2:]) & (values >= _LOWEST * values.max()))
    largest = peaks[np.argsort(-values[peaks], kind="stable")[:_PEAKS]]
    return max(_maximum(gain, omega[max(k - 1, 0)], omega[min(k + 1, omega.size - 1)]) for k in largest)


def _maximum(gain: Callable[[Array], Array], low: float, high: float) -> float:
    """Between two frequencies, of which there is one maximum."""
    for _ in range(_ROUNDS):
        omega = np.linspace(low, high, _REFINED)
        values = gain(omega)
        k = int(values.argmax())
        low, high = omega[max(k - 1, 0)], omega[min(k + 1, omega.size - 1)]
    return float(values.max())


def _rates(system: StateSpace | Resolved) -> Array:
    """Rates of its modes; or those that belong to its longest and its shortest panel."""
    if isinstance(system, StateSpace):
        return np.abs(np.linalg.eigvals(system.W))
    return np.array([1 / system.tail.end, 1 / np.diff(system.edges).min()])


def _response(system: StateSpace | Resolved, omega: Array) -> Complex:
    """G(iw)."""
    if isinstance(system, Resolved):
        return _of_panels(system, omega)
    shifted = 1j * omega[:, None, None] * np.eye(system.states) - system.W
    return np.asarray((system.c @ np.linalg.solve(shifted, system.U.astype(complex)))[:, 0, 0])


def _of_panels(panels: Resolved, omega: Array) -> Complex:
    """int rho(t) e^{-iwt} dt: Legendre's polynomials of each panel have spherical Bessel functions, whatever w is."""
    from scipy.special import spherical_jn

    x, w = gauss(_NODES)
    low, width = panels.edges[:-1], np.diff(panels.edges)
    degree = np.arange(_NODES)
    rho = panels.kernel.values((low[:, None] + width[:, None] * x).ravel())[:, 0].reshape(-1, _NODES)
    coefficients = (rho * w) @ np.polynomial.legendre.legvander(2 * x - 1, _NODES - 1) * (2 * degree + 1) * (-1j) ** degree
    total = np.zeros(omega.size, complex)
    for start, length, own in zip(low, width, coefficients):
        phase = np.exp(-1j * omega * (start + length / 2))
        total += length * phase * (spherical_jn(degree, omega[:, None] * length / 2) @ own)
    return total
