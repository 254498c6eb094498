"""Initial spectra: the state matrices with which the state-space models of the literature start, scaled to a horizon T.

An initial spectrum is a frozen pair (A, B) of dh/dt = A h + B x, that is a memory made of the modes e^{lt}, l the eigenvalues
of A. `odernn.initialize(model, "s4d_lin", horizon=100)` gives it to a model, `--initialization s4d_lin` to a run, and
`analysis.best_readout` says how well the best readout on it fits a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from targets import arguments

from .citations import record
from .state_matrices import DiagonalMatrix

Array = NDArray[np.float64]

# -Re l of the S4D family and of the normal part of HiPPO-LegS, in their own unit of time.
_RATE = 0.5
# The ring of the LRU, [LRU] App. A: |l| from 0 to 1, any angle.
RING = (0.0, 1.0, 2 * math.pi)
# Uniform numbers keep this distance from 0 and 1, where a mode of the ring would fade at once, or never.
_END = 2.0**-53
LARGEST_SEED = 2**63 - 1
# Eigenvalues may miss their conjugates by rounding.
_PAIRED = 1e-9


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A state matrix with its modes, and the input that belongs to it.

    Args:
        name: how it is called in messages.
        matrix: A, (m, m), real; of conjugate pairs a +- iw the blocks [[a, -w], [w, a]].
        input: B, (m,); None where its source has none of its own (its rows are random there, or any).
        eigenvalues: l, (m,), complex, 1/time.
    """

    name: str
    matrix: Array
    input: Array | None
    eigenvalues: NDArray[np.complex128]

    def __repr__(self) -> str:
        slowest, fastest = -self.eigenvalues.real.max(), np.abs(self.eigenvalues).max()
        return f"Spectrum({self.name}: {self.eigenvalues.size} modes, slowest rate {slowest:.3g}, largest |l| {fastest:.3g})"

    @property
    def is_full(self) -> bool:
        """Whether A is neither diagonal nor of the 2 x 2 blocks of conjugate pairs."""
        own = _blocks(self.eigenvalues[::2]) if self.eigenvalues.size % 2 == 0 else np.zeros_like(self.matrix)
        return bool((self.matrix - np.diag(np.diag(self.matrix))).any() and (self.matrix != own).any())

    def scaled(self, factor: float) -> Spectrum:
        """The same spectrum `factor` times as fast: factor A, factor B."""
        factor = arguments.number("factor", factor, above=0)
        B = None if self.input is None else factor * self.input
        return Spectrum(self.name, factor * self.matrix, B, factor * self.eigenvalues)


def of_eigenvalues(eigenvalues: ArrayLike, input: ArrayLike | None = None, name: str = "of your own") -> Spectrum:
    """The spectrum of these modes: a diagonal A of real l, blocks of conjugate pairs otherwise, one after the other.

    Args:
        eigenvalues: (m,) real, or complex with each conjugate beside it: a + iw, a - iw, ... (a real mode among them stands
            twice).
        input: B, (m,).
        name: how to call it.

    Raises:
        ValueError: no such list, or a complex eigenvalue without its conjugate.

    Example:
        initialize(model, spectra.of_eigenvalues([-0.1, -1.0, -10.0]))
    """
    found = _complex("eigenvalues", eigenvalues)
    B = None if input is None else arguments.real_tensor("input", input).detach().double().cpu().numpy()
    if B is not None and B.shape != found.shape:
        raise ValueError(f"input has shape {B.shape}, expected {found.shape}, that of the eigenvalues")
    if not found.imag.any():
        return Spectrum(name, np.diag(found.real), B, found)
    apart = np.abs(found[::2] - found[1::2].conj()) if found.size % 2 == 0 else np.inf
    if np.any(apart > _PAIRED * np.abs(found).max()):
        raise ValueError(
            f"eigenvalues {found[:4]} ... are no conjugate pairs side by side: give a + iw, a - iw, ..., or real ones alone"
        )
    return Spectrum(name, _blocks(found[::2]), B, found)


def spectrum(
    name: str,
    m: int,
    horizon: float | None = None,
    *,
    step: float = 1.0,
    fastest: float = 1.0,
    pairs: bool = False,
    ring: tuple[float, float, float] = RING,
    seed: int | np.random.Generator = 0,
) -> Spectrum:
    """A named initial spectrum of m states.

    Published in a unit of time of their own, and so scaled that the slowest mode decays at the rate 1/T (published where T is
    None). n = 0, ..., m/2 - 1 counts conjugate pairs, n = 0, ..., m - 1 real modes:

        s4d_lin            l = -1/2 +- i pi n                                  B = 1         [S4D] Eq 9
        s4d_inv            l = -1/2 +- i (m/pi) (m / (2n+1) - 1)               B = 1         [S4D] Eq 8
        s4d_legs           the eigenvalues of hippo_legs_normal, its B in their basis        [S4D] 4.1
        s4d_real           l = -(n+1)                                          B = 1         [S4D] 4.3
        hippo_legs         A_nk = -sqrt((2n+1)(2k+1)) (n > k), -(n+1) (n = k), 0 (n < k),  B_n = sqrt(2n+1)   [HiPPO] Thm 2
        hippo_legs_normal  A + P P^T = -1/2 I + a skew part, P_n = sqrt(n + 1/2), B as above  [S4] App. C

    Spread over [1/T, fastest], -l = r, no B of their own:

        geometric          log r evenly spaced
        linear             r evenly spaced
        log_uniform        log r uniform, drawn

    In steps of time between samples, no B of its own:

        lru                |e^{l step}| = sqrt(u (r_max^2 - r_min^2) + r_min^2), angle v max_phase, u and v uniform on [0, 1],
                           drawn; an angle above pi is that of its conjugate                 [LRU] Lemma 3.2

    e^{At} B of hippo_legs is sqrt(2n+1) P_n(2 e^-t - 1) e^-t, P_n the Legendre polynomials. s4d_inv is near s4d_legs for the
    largest frequencies alone, see docs/initial_spectra.md.

    Args:
        name: one of these, of `SPECTRA`.
        m: states; even where they are conjugate pairs.
        horizon: T, in units of time; those that are spread need it, with T fastest > 1.
        step: time between samples, of 'lru' alone.
        fastest: the fastest rate of those that are spread, 1/time.
        pairs: hold real modes as pairs with frequency 0, m/2 modes twice each, as recurrence 'complex' holds them.
        ring: r_min, r_max and max_phase of 'lru'.
        seed: of those that are drawn: an integer or a numpy generator.

    Raises:
        ValueError: an unknown name (lists the choices), an odd m for pairs, or numbers out of range.

    Example:
        spectrum("s4d_inv", 64, horizon=1000.0).eigenvalues

    Source: [HiPPO] Gu et al., NeurIPS 2020; [S4] Gu et al., ICLR 2022; [S4D] Gu et al., NeurIPS 2022; [LRU] Orvieto et al., ICML
        2023. Geometric, linear and random rates are compared in Cao, arXiv:2604.07658.
    """
    record(spectrum)
    name, m = arguments.choice("spectrum", name, SPECTRA), arguments.count("m", m)
    kind = SPECTRA[name]
    if (pairs or kind.pairs) and m % 2:
        raise ValueError(f"spectrum {name!r} is held in conjugate pairs, m is {m}: give an even number of states")
    generator = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(_checked(seed))
    if kind.published is not None:
        unit = kind.published(m // 2 if pairs and kind.real else m)
        result = Spectrum(name, unit.matrix, unit.input, unit.eigenvalues)
        if horizon is not None:
            slowest = -float(unit.eigenvalues.real.max())
            result = result.scaled(1 / (slowest * arguments.number("horizon", horizon, above=0)))
    elif kind.rates is not None:
        fastest = arguments.number("fastest", fastest, above=0)
        if horizon is None:
            raise ValueError(f"spectrum {name!r} spreads its rates from 1/T to {fastest:g}: give horizon=T")
        horizon = arguments.number("horizon", horizon, least=1 / fastest)
        result = _real(name, kind.rates(m // 2 if pairs else m, 1 / horizon, fastest, generator))
    else:
        result = of_eigenvalues(_ring(m // 2, *ring, generator) / arguments.number("step", step, above=0), name=name)
    return _doubled(result) if pairs and kind.real else result


@dataclass(frozen=True)
class _Kind:
    """How a spectrum is made: published at a size, or rates (count, slowest, fastest, generator), or neither for the ring."""

    published: Callable[[int], Spectrum] | None = None
    rates: Callable[[int, float, float, np.random.Generator], Array] | None = None
    real: bool = False
    pairs: bool = False
    drawn: bool = False


def _lin(m: int) -> Spectrum:
    return _pairs(np.arange(m // 2) * math.pi)


def _inv(m: int) -> Spectrum:
    return _pairs(m / math.pi * (m / (2 * np.arange(m // 2) + 1) - 1))


def _legs(m: int) -> Spectrum:
    normal = _hippo_normal(m)
    # i times a skew matrix is hermitian: exact real frequencies. The phase of an eigenvector is free, so that B is real.
    omega, V = np.linalg.eigh(-1j * (normal.matrix + _RATE * np.eye(m)))
    assert normal.input is not None
    own = np.abs(V.conj().T @ normal.input)
    positive = np.argsort(omega)[m // 2 :]
    return _pairs(omega[positive], own[positive])


def _s4d_real(m: int) -> Spectrum:
    return _real("", np.arange(1.0, m + 1), np.ones(m))


def _hippo(m: int) -> Spectrum:
    n = np.arange(m)
    B = np.sqrt(2 * n + 1.0)
    A = -np.tril(np.outer(B, B), -1) - np.diag(n + 1.0)
    return Spectrum("", A, B, -(n + 1.0).astype(np.complex128))


def _hippo_normal(m: int) -> Spectrum:
    hippo, P = _hippo(m), np.sqrt(np.arange(m) + 0.5)
    A = hippo.matrix + np.outer(P, P)
    omega = np.linalg.eigvalsh(-1j * (A + _RATE * np.eye(m)))
    return Spectrum("", A, hippo.input, (-_RATE + 1j * omega).astype(np.complex128))


def _geometric(count: int, slowest: float, fastest: float, generator: np.random.Generator) -> Array:
    return np.asarray(np.geomspace(slowest, fastest, count))


def _linear(count: int, slowest: float, fastest: float, generator: np.random.Generator) -> Array:
    return np.linspace(slowest, fastest, count)


def _log_uniform(count: int, slowest: float, fastest: float, generator: np.random.Generator) -> Array:
    return slowest * (fastest / slowest) ** generator.random(count)


SPECTRA: dict[str, _Kind] = {
    "geometric": _Kind(rates=_geometric, real=True),
    "linear": _Kind(rates=_linear, real=True),
    "log_uniform": _Kind(rates=_log_uniform, real=True, drawn=True),
    "s4d_lin": _Kind(_lin, pairs=True),
    "s4d_inv": _Kind(_inv, pairs=True),
    "s4d_legs": _Kind(_legs, pairs=True),
    "s4d_real": _Kind(_s4d_real, real=True),
    "hippo_legs": _Kind(_hippo),
    "hippo_legs_normal": _Kind(_hippo_normal),
    "lru": _Kind(pairs=True, drawn=True),
}


def _ring(count: int, r_min: float, r_max: float, max_phase: float, generator: np.random.Generator) -> NDArray[np.complex128]:
    """log l of modes uniform on the ring's area, with their conjugates, (2 count,)."""
    r_min = arguments.number("r_min of spectrum 'lru'", r_min, least=0, below=1)
    r_max = arguments.number("r_max of spectrum 'lru'", r_max, above=r_min)
    max_phase = arguments.number("max_phase of spectrum 'lru'", max_phase, above=0)
    if r_max > 1 or max_phase > 2 * math.pi:
        raise ValueError(f"spectrum 'lru' has r_max <= 1 and max_phase <= 2 pi, got {r_max:g} and {max_phase:g}")
    u, v = generator.random((2, count)).clip(_END, 1 - _END)
    angle = max_phase * v
    # In steps an angle is its conjugate's; between them the slower turn is the smoother memory.
    modes = 0.5 * np.log(u * (r_max**2 - r_min**2) + r_min**2) + 1j * np.minimum(angle, 2 * math.pi - angle)
    return np.stack([modes, modes.conj()], -1).ravel()


def _real(name: str, rates: Array, B: Array | None = None) -> Spectrum:
    return Spectrum(name, np.diag(-rates), B, -rates.astype(np.complex128))


def _pairs(omega: NDArray[Any], B: Array | None = None) -> Spectrum:
    """-1/2 +- i omega, (2 n,), with B real in each complex mode: (B, 0) of the pair's two states."""
    modes = -_RATE + 1j * omega
    own = np.ones(omega.size) if B is None else B
    both = np.stack([modes, modes.conj()], -1).ravel()
    return Spectrum("", _blocks(modes), np.stack([own, np.zeros_like(own)], -1).ravel(), both)


def _doubled(real: Spectrum) -> Spectrum:
    """Real modes as pairs of frequency 0."""
    B = None if real.input is None else np.stack([real.input, np.zeros_like(real.input)], -1).ravel()
    return Spectrum(real.name, np.diag(np.diag(real.matrix).repeat(2)), B, real.eigenvalues.repeat(2))


def _blocks(modes: NDArray[Any]) -> Array:
    """[[a, -w], [w, a]] on the diagonal for a + iw, (2 n, 2 n)."""
    real, imag = (torch.from_numpy(np.array(part, dtype=np.float64)) for part in (modes.real, modes.imag))
    return DiagonalMatrix(real, imag).to_dense().numpy()


def _checked(seed: int) -> int:
    return arguments.count("seed", seed, least=0, most=LARGEST_SEED)


def _complex(name: str, values: Any) -> NDArray[np.complex128]:
    """(m,) finite numbers of a list, an array or a tensor, which may be complex."""
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iufc" or not np.isfinite(array).all():
        raise ValueError(f"{name} are {array!r:.200}, expected (m,) finite numbers: give for example [-0.1, -1.0]")
    return array.astype(np.complex128)
