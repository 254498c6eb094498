"""How well the best readout on given modes fits a kernel: what an initial spectrum allows before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from odernn import spectra
from odernn.models import SequenceModel
from odernn.spectra import Spectrum
from targets import Kernel, arguments

from ..results import Result

Array = NDArray[np.float64]

# Octaves of time below the horizon that the nodes resolve one by one, down to this part of the fastest mode's time where there
# are more, but no more than the last; the panels of each, and the Gauss nodes of a panel: these interpolate e^-t to 1e-14 of its
# norm.
_OCTAVES, _FASTEST, _MOST_OCTAVES, _PANELS_PER_OCTAVE, _NODES_PER_PANEL = 20, 8.0, 100, 2, 12
# Radians that the fastest mode turns in a panel, and states for each further panel: a sum of m modes changes its sign m - 1
# times, and all of that may happen in one stretch of time.
_TURN, _STATES_PER_PANEL = math.pi, 8
# The nodes of one fit: 16 bytes a mode and node.
_MOST_NODES = 200_000
_EPS = 2.0**-53
# States of the orthonormal basis are exact to so many times the rounding of one operation (measured against 60 digits).
_STATE_ERROR = 64 * _EPS
# Modes that agree to so many of their digits are one.
_SAME = 4 * _EPS
# Decays over the horizon in whose weight the basis is orthonormal, so that it is nearly so on [0, T]: the first that is good, or
# the best. Beyond the last of these conditions (times the error of the states) a residual may be that of other modes.
_DECAYS, _GOOD, _TRUSTED = (8.0, 16.0, 24.0), 1e-8, 2e-3
# Part of the kernel that its nodes may miss.
_UNSEEN = 0.5


@dataclass(frozen=True, eq=False, repr=False)
class ReadoutFit(Result):
    """The least squares fit of a kernel rho on [0, T] by a readout of given modes, rho_hat = sum_j c_j phi_j.

    Args:
        error: |rho - rho_hat|_2 / |rho|_2 of the best readout, in exact arithmetic: the distance of rho from the span; both norms
            weighted as asked for.
        uncertainty: how far `error` may be off, by rounding and by what the nodes miss of rho; inf where the modes depend on each
            other so closely on [0, T] that double precision cannot tell, and `error` and `error_l1` are nan then.
        error_l1: |rho - rho_hat|_1 / |rho|_1 of the same readout, good to some 1e-3 of itself (|.| has kinks).
        attained: the same of the best readout in double precision, with its own rounding eps sum_j |c_j| |phi_j| added: what a
            model can hold.
        size: sum_j |c_j| |phi_j|_2 / |rho|_2 of that readout; large where modes cancel each other.
        modes: different modes.
        horizon: T.
    """

    error: float
    uncertainty: float
    error_l1: float
    attained: float
    size: float
    modes: int
    horizon: float


def best_readout(
    kernel: Kernel, modes: Spectrum | SequenceModel | ArrayLike, horizon: float, *, weight: float = 0.0
) -> ReadoutFit:
    """The best readout of a linear model's states, for a kernel:

        min_c  int_0^T (rho(t) - c^T e^{At} B)^2 (1 + t)^q dt.

    Exponentials are nearly dependent, so that neither their normal equations nor their least squares are solved. Of diagonal A
    the span is that of an all-pass cascade, whose states are orthonormal on [0, inf) whatever the modes are (Takenaka, 1925):

        x_i' = A_i x_i + B_i u_i,  u_{i+1} = u_i - B_i^T x_i,   A_i + A_i^T = -B_i B_i^T,

    one state for a real mode -r (B = sqrt(2r)), two for a pair. They are integrated exactly from node to node and made
    orthonormal on [0, T]. The span of a full A is that of its states e^{At} B themselves. B does not matter to the span of
    diagonal A, as long as it reaches every mode.

    Args:
        kernel: scalar.
        modes: a `Spectrum`, a linear model of one layer and one input in continuous time (its own readout plays no part), or
            eigenvalues (m,) as `odernn.spectra.of_eigenvalues` takes them, 1/time. Equal modes count once.
        horizon: T > 0, finite.
        weight: q >= 0. With 1, as in `fit_kernel`, the norm bounds the L1 norm up to sqrt(log(1 + T)), so that the tail counts.

    Raises:
        ValueError: a vector kernel, one that is 0 on [0, T] or that the nodes do not see; modes that turn too often on [0, T], or
            that grow beyond what numbers hold.

    Example:
        best_readout(kernels.polynomial(exponent=1.5), spectrum("geometric", 16, horizon=100.0), horizon=100.0).error

    Source: least squares on given exponentials: [IA] Fig 1; the basis: Heuberger, Van den Hof and Wahlberg (eds.), Modelling and
        Identification with Rational Orthogonal Basis Functions, Springer 2005.
    """
    return best_readouts([kernel], modes, horizon, weight=weight)[0]


def best_readouts(
    kernels: Sequence[Kernel], modes: Spectrum | SequenceModel | ArrayLike, horizon: float, *, weight: float = 0.0
) -> list[ReadoutFit]:
    """`best_readout` for several kernels, which share the work on the modes."""
    for kernel in kernels:
        arguments.instance("kernel", kernel, Kernel, "wrap a function in kernels.from_callable")
        if kernel.size != 1:
            raise ValueError(f"readouts are fitted to scalar kernels, got one of {kernel.size} channels: fit them one by one")
    horizon, weight = arguments.number("horizon", horizon, above=0), arguments.number("weight", weight, least=0)
    system = _System.of(modes)
    breakpoints = [time for kernel in kernels for time in kernel.breakpoints]
    nodes = _Nodes.build(horizon, system.order, *system.fastest, breakpoints)
    values = np.stack([kernel.values(nodes.times)[:, 0] for kernel in kernels], -1)
    missed = np.array([nodes.missed(kernel) for kernel in kernels])
    for kernel, rho, part in zip(kernels, values.T, missed):
        if not np.isfinite(rho).all() or not rho.any() or part > _UNSEEN:
            raise ValueError(
                f"kernel {kernel.label} is 0, infinite or between the nodes on [0, {horizon:g}] (they miss {part:.2g} of it): "
                "declare where it jumps or kinks as its breakpoints, or change the horizon"
            )
    quadrature = nodes.weights[:, None]
    root = np.sqrt(quadrature * (1 + nodes.times[:, None]) ** weight)
    y = root * values
    norm = np.linalg.norm(y, axis=0)
    states = root * system.states(nodes)
    if not np.isfinite(states).all():
        raise ValueError(f"the modes grow beyond what numbers hold on [0, {horizon:g}]: shorten it, or leave unstable ones out")
    residual, coefficients, condition = _project(states, y)
    for decay in _DECAYS if system.full is None else ():
        if condition * _STATE_ERROR < _GOOD:
            break
        other = _project(root * system.orthonormal(nodes, decay / horizon), y)
        residual, coefficients, condition = min((residual, coefficients, condition), other, key=lambda found: found[-1])
    distance = np.linalg.norm(residual, axis=0) / norm
    uncertainty = missed + _STATE_ERROR * (np.linalg.norm(coefficients, axis=0) / norm + condition * distance)
    attained, size = _in_double_precision(states, y / norm)
    l1 = (quadrature / root * np.abs(residual)).sum(0) / (quadrature * np.abs(values)).sum(0)
    distance = np.minimum(distance, attained)
    if not condition * _STATE_ERROR < _TRUSTED:
        uncertainty = np.full(len(kernels), math.inf)
        distance, l1 = np.full((2, len(kernels)), math.nan)
    columns = zip(distance.tolist(), uncertainty.tolist(), l1.tolist(), attained.tolist(), size.tolist())
    return [ReadoutFit(*column, modes=system.order, horizon=horizon) for column in columns]


@dataclass(frozen=True)
class _System:
    """Modes as different eigenvalues, (k,), one of each pair; or a full A with its B."""

    real: Array
    pairs: NDArray[np.complex128]
    full: tuple[Array, Array] | None

    @staticmethod
    def of(modes: Any) -> _System:
        if isinstance(modes, SequenceModel):
            modes = _of_model(modes)
        found = modes if isinstance(modes, Spectrum) else spectra.of_eigenvalues(modes)
        eigenvalues = found.eigenvalues
        if found.is_full:
            if found.input is None:
                raise ValueError(f"the span of the full matrix of spectrum {found.name!r} depends on its input: give it one")
            return _System(np.empty(0), np.empty(0, np.complex128), (found.matrix, found.input))
        scale = np.abs(eigenvalues).max()
        still = np.abs(eigenvalues.imag) <= _SAME * scale
        real = _different(eigenvalues[still].real.astype(np.complex128), scale).real
        return _System(real, _different(eigenvalues[~still & (eigenvalues.imag > 0)], scale), None)

    @property
    def order(self) -> int:
        return self.real.size + 2 * self.pairs.size if self.full is None else len(self.full[1])

    @property
    def fastest(self) -> tuple[float, float]:
        """The largest |l| and the largest frequency."""
        modes = np.concatenate([self.real, self.pairs]) if self.full is None else np.linalg.eigvals(self.full[0])
        return float(np.abs(modes).max()), float(np.abs(modes.imag).max())

    def states(self, nodes: _Nodes) -> Array:
        """The states of the model at the nodes, (n, m)."""
        if self.full is not None:
            return _flow(*self.full, nodes)
        with np.errstate(over="ignore", invalid="ignore"):
            turning = np.exp(np.outer(nodes.times, self.pairs))
            return np.concatenate([np.exp(np.outer(nodes.times, self.real)), turning.real, turning.imag], 1)

    def orthonormal(self, nodes: _Nodes, decay: float) -> Array:
        """A basis of the span of different modes that is orthonormal on [0, inf) in the weight e^{-2 shift t}, in which the
        slowest mode decays at least so fast, (n, m)."""
        slowest = -max(self.real.max(initial=-math.inf), self.pairs.real.max(initial=-math.inf))
        shift = max(0.0, decay - slowest)
        return np.exp(shift * nodes.times)[:, None] * _flow(*_cascade(self.real - shift, self.pairs - shift), nodes)


def _of_model(model: SequenceModel) -> Spectrum:
    """W and U of a linear model, as the state sees them."""
    field = model.field()
    if model.is_map or model.ensemble or model.input_size != 1 or len(field.layers) != 1 or not field.activation.linear:
        raise ValueError(
            f"modes are those of one linear layer with one input in continuous time and no ensemble, got {model.name!r} with "
            f"{len(field.layers)} layer(s), {model.input_size} input(s) and activation {field.activation.name!r}: give such a one"
        )
    (layer,) = field.layers
    W, U = (tensor.detach().double().cpu().numpy() for tensor in (layer.W.to_dense(), layer.U))
    return Spectrum(model.name, W, U[:, 0], layer.W.eigenvalues().detach().cpu().to(torch.complex128).numpy())


def _different(modes: NDArray[np.complex128], scale: float) -> NDArray[np.complex128]:
    """One of each group of equal modes, slowest first."""
    kept: list[complex] = []
    for mode in modes[np.lexsort((modes.imag, -modes.real))]:
        if all(abs(mode - other) > _SAME * scale for other in kept):
            kept.append(complex(mode))
    return np.array(kept, dtype=np.complex128)


def _cascade(real: Array, pairs: NDArray[np.complex128]) -> tuple[Array, Array]:
    """A and B of the all-pass cascade of stable modes: A + A^T = -B B^T, so that int e^{At} B (e^{At} B)^T dt = I.

    A pair -r +- iw is the section [[-2r, -v], [v, 0]] with B = (2 sqrt(r), 0), v^2 = r^2 + w^2.
    """
    r, v = -pairs.real, np.abs(pairs)
    B = np.concatenate([np.sqrt(-2 * real), np.stack([2 * np.sqrt(r), np.zeros_like(r)], -1).ravel()])
    A = np.diag(np.concatenate([real, np.stack([-2 * r, np.zeros_like(r)], -1).ravel()])) - np.tril(np.outer(B, B), -1)
    first = real.size + 2 * np.arange(r.size)
    A[first, first + 1], A[first + 1, first] = -v, v
    return A, B


@dataclass(frozen=True)
class _Nodes:
    """Composite Gauss-Legendre rule on [0, T]: stretches of panels of one width each.

    Args:
        starts, widths, counts: of the stretches, (S,).
        nodes, rule: Gauss nodes on [0, 1] and their weights.
    """

    starts: Array
    widths: Array
    counts: NDArray[np.int64]
    nodes: Array
    rule: Array

    @staticmethod
    def build(horizon: float, order: int, fastest: float, frequency: float, breakpoints: Sequence[float]) -> _Nodes:
        """Panels geometric in time, cut at the breakpoints and where so many modes turn more often than the nodes follow.

        Args:
            order, fastest, frequency: of the modes: how many, the largest |l| and the largest frequency.

        Raises:
            ValueError: that would be too many.
        """
        below = math.ceil(math.log2(max(horizon * fastest * _FASTEST, 1.0)))
        below = min(max(_OCTAVES, below), _MOST_OCTAVES)
        octaves = horizon * 2.0 ** -(np.arange(below * _PANELS_PER_OCTAVE + 1) / _PANELS_PER_OCTAVE)
        inside = [time for time in breakpoints if 0 < time < horizon]
        edges = np.unique(np.concatenate([[0.0], octaves, inside]))
        widths = np.diff(edges)
        counts = np.ceil(widths * frequency / _TURN)
        if _NODES_PER_PANEL * counts.sum() > _MOST_NODES:
            raise ValueError(
                f"modes of frequency {frequency:.3g} turn {frequency * horizon / (2 * math.pi):.3g} times on [0, {horizon:g}], "
                "more often than is computed here: shorten the horizon, or leave the fastest out"
            )
        counts = np.maximum(counts, math.ceil(order / _STATES_PER_PANEL)).astype(np.int64)
        x, w = np.polynomial.legendre.leggauss(_NODES_PER_PANEL)
        return _Nodes(edges[:-1], widths / counts, counts, (x + 1) / 2, w / 2)

    def stretches(self) -> Iterator[tuple[float, int]]:
        """Width and number of the panels of each stretch."""
        yield from zip(self.widths.tolist(), self.counts.tolist())

    def _panels(self) -> tuple[Array, Array]:
        """Starts and widths of all panels."""
        index = np.concatenate([np.arange(count) for count in self.counts])
        widths = self.widths.repeat(self.counts)
        return self.starts.repeat(self.counts) + index * widths, widths

    @property
    def times(self) -> Array:
        """All nodes, (n,), increasing."""
        starts, widths = self._panels()
        return (starts[:, None] + widths[:, None] * self.nodes).ravel()

    @property
    def weights(self) -> Array:
        """Quadrature weights, (n,)."""
        return (self._panels()[1][:, None] * self.rule).ravel()

    def missed(self, kernel: Kernel) -> float:
        """|rho - I rho| / |rho| for I the interpolation from the nodes, at twice as many."""
        x, w = np.polynomial.legendre.leggauss(2 * _NODES_PER_PANEL)
        x, starts, widths = (x + 1) / 2, *self._panels()
        fine = kernel.values((starts[:, None] + widths[:, None] * x).ravel())[:, 0].reshape(-1, x.size)
        coarse = kernel.values(self.times)[:, 0].reshape(-1, self.nodes.size)
        with np.errstate(all="ignore"):
            both = np.stack([fine - coarse @ _interpolation(self.nodes, x).T, fine])
            square = (widths[:, None] * w * both**2).sum((1, 2))
        return float(np.sqrt(square[0] / square[1])) if square[1] > 0 else 0.0


def _interpolation(nodes: Array, x: Array) -> Array:
    """Values of the Lagrange polynomials of the nodes at x, (x, nodes)."""
    factors = (x[:, None, None] - nodes) / np.where(np.eye(nodes.size, dtype=bool), 1.0, nodes[:, None] - nodes)
    return np.where(np.eye(nodes.size, dtype=bool), 1.0, factors).prod(-1)


def _flow(A: Array, B: Array, nodes: _Nodes) -> Array:
    """e^{At} B at the nodes, (n, m): exact from node to node, without eigenvectors."""
    state, parts = B, []
    steps = torch.from_numpy(np.append(nodes.nodes, 1.0)).reshape(-1, 1, 1)
    for width, count in nodes.stretches():
        powers = torch.linalg.matrix_exp(steps * width * torch.from_numpy(A)).numpy()
        starts = [state]
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(count):
                starts.append(powers[-1] @ starts[-1])
            state = starts.pop()
            parts.append(np.einsum("kij,pj->pki", powers[:-1], np.stack(starts), optimize=True).reshape(-1, B.size))
    return np.concatenate(parts)


def _project(basis: Array, y: Array) -> tuple[Array, Array, float]:
    """What is left of y beside the span of the basis, the coefficients of the rest, and the basis's condition."""
    Q, R = np.linalg.qr(basis)
    residual = y
    for _ in range(2):  # once more: what rounding left of the span in the first residual
        residual = residual - Q @ (Q.T @ residual)
    U, S, V = np.linalg.svd(R)
    condition = float(S[0] / S[-1]) if S[-1] > 0 else math.inf
    with np.errstate(all="ignore"):
        coefficients = V.T @ ((U.T @ (Q.T @ y)) / S[:, None])
    return residual, coefficients, condition


def _in_double_precision(states: Array, y: Array) -> tuple[Array, Array]:
    """min |y - states c| + eps sum |c_j| |state_j| over truncations of the singular values, and that sum, for |y| = 1."""
    norms = np.linalg.norm(states, axis=0)
    U, S, V = np.linalg.svd(states / np.where(norms > 0, norms, 1.0), full_matrices=False)
    parts = U.T @ y
    left = y - U @ parts
    used = S > 0
    c = np.cumsum(V[used].T[..., None] * (parts[used] / S[used, None]), 1)  # (m, truncation, kernel)
    sizes = np.abs(c).sum(0)
    tails = np.cumsum(parts[::-1] ** 2, 0)[::-1]
    beside = np.concatenate([tails[1:], np.zeros_like(tails[:1])])[used]
    found = np.sqrt((left**2).sum(0) + beside) + _EPS * sizes
    best = found.argmin(0)
    index = np.arange(y.shape[1])
    return found[best, index], sizes[best, index]
