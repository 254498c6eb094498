"""Fixed points of the dynamics under a constant input (none by default), with their spectra."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from targets import arguments

from .dynamics import Dynamics
from .probes import dynamics
from .results import Result

# Newton's method: quadratic near a regular point; a degenerate one (a zero eigenvalue) halves its error each time.
_NEWTON_STEPS = 80
# A step that does not lower |F| is halved this often before it is taken for stuck.
_HALVINGS = 12
# |F| at a fixed point, relative to the scale of the starts: leaves a degenerate one accurate to the square root.
_RESIDUAL = 1e-12
# Two roots closer than this (relative to 1 + their size) are one.
_SAME = 1e-4
# An eigenvalue this close to the border of stability counts as on it: neither stable nor unstable.
_MARGIN = 1e-4


@dataclass(frozen=True, eq=False, repr=False)
class FixedPoints(Result):
    """Fixed points in the order of their distance from the rest state.

    Args:
        points: (n, size).
        spectra: eigenvalues of the Jacobian there, complex, (n, size), the leading one first: by real part for a flow, by
            modulus for a map.
        stability: "stable", "unstable" or "marginal" (the leading eigenvalue is on the border), of each.
        residuals: |F| (flow) or |F - h| (map), (n,).
        basins: starts whose search ended at each, (n,); not basins of attraction of the dynamics.
        lost: starts that led nowhere.

    Example:
        >>> from analysis import fixed_points
        >>> found = fixed_points(lambda h: -h, size=2)
        >>> found.points.shape, found.spectra.shape
        (torch.Size([1, 2]), torch.Size([1, 2]))
    """

    points: Tensor
    spectra: Tensor
    stability: tuple[str, ...]
    residuals: Tensor
    basins: Tensor
    lost: int


@torch.no_grad()
def fixed_points(
    system: Any,
    *,
    x: Tensor | None = None,
    starts: Tensor | int = 64,
    scale: float = 2.0,
    size: int | None = None,
    dt: float = 1.0,
    seed: int = 0,
) -> FixedPoints:
    """Solutions of F(h, x) = 0 (a flow) or F(h, x) = h (a map), by Newton's method from many starts.

    Finding all of them is not promised: more starts find more.

    Args:
        system: a model of `odernn`, torch.nn.RNN / GRU / LSTM, or a vector field F(h) on (n, size) (a flow).
        x: the constant input, (d,); None for none.
        starts: states to start from (n, size), or how many random ones; the rest state is always among them.
        scale: random starts are uniform in the cube of this half-width round the rest state.
        size: of the state of a vector field.
        dt: time of one step of a `DiscreteRNN`.
        seed: of the random starts.

    Raises:
        ValueError: a system without a state equation, or shapes that do not fit.

    Example:
        >>> from analysis import fixed_points
        >>> found = fixed_points(lambda h: h - h**3, size=1)  # -1, 0 and 1
        >>> found.stability
        ('unstable', 'stable', 'stable')
    """
    system_dynamics = dynamics(system, size=size, dt=dt)
    if not system_dynamics.autonomous:
        raise ValueError("system: its field depends on t, so that it has no fixed points: give one that does not")
    F, h = _rooted(system_dynamics), _starting(system_dynamics, starts, scale, seed)
    d = system_dynamics.input_size
    drive = torch.zeros(d, dtype=h.dtype, device=h.device) if x is None else arguments.real_tensor("x", x).to(h)
    if drive.shape != (d,):
        raise ValueError(f"x must be (d,) = ({d},), got {tuple(drive.shape)}")
    drive = drive.expand(h.shape[0], d)
    h, residual = _newton(system_dynamics, F, h, drive)
    tolerance = _RESIDUAL if h.dtype == torch.float64 else 1e-5
    good = residual <= tolerance * (1 + torch.linalg.vector_norm(h, dim=-1))
    lost = int((~good).sum())
    points, residuals, basins = _distinct(h[good], residual[good])
    rest = system_dynamics.rest()
    order = torch.linalg.vector_norm(points - rest, dim=-1).argsort()
    points, residuals, basins = points[order], residuals[order], basins[order]
    spectra, stability = _spectra(system_dynamics, points, drive[: points.shape[0]])
    return FixedPoints(points, spectra, stability, residuals, basins, lost)


def _rooted(system: Dynamics) -> Callable[[Tensor, Tensor], Tensor]:
    """The function whose roots are fixed points."""
    return (lambda h, x: system(h, x) - h) if system.kind == "map" else system


def _starting(system: Dynamics, starts: Tensor | int, scale: float, seed: int) -> Tensor:
    rest, scale, generator = system.rest(), arguments.number("scale", scale, above=0), arguments.generator(seed)
    if not isinstance(starts, Tensor | list | np.ndarray) or (not isinstance(starts, list) and starts.ndim == 0):
        starts = arguments.count("starts", starts, least=0)
        cube = 2 * torch.rand(starts, system.size, generator=generator, dtype=torch.float64) - 1
        return torch.cat([rest.unsqueeze(0), rest + scale * cube.to(rest)])
    starts = arguments.real_tensor("starts", starts)
    if starts.ndim != 2 or starts.shape[1] != system.size:
        raise ValueError(f"starts must be (n, {system.size}) for this system, got {tuple(starts.shape)}")
    return torch.cat([rest.unsqueeze(0), starts.to(rest)])


def _newton(system: Dynamics, F: Callable[[Tensor, Tensor], Tensor], h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Damped Newton steps; least squares where the Jacobian is singular (a saturated hardtanh, a relu that is off)."""
    value = F(h, x)
    eye = torch.eye(system.size, dtype=h.dtype, device=h.device)
    for _ in range(_NEWTON_STEPS):
        J = system.jacobian(h, x) - (eye if system.kind == "map" else 0)
        step = (torch.linalg.pinv(J.nan_to_num()) @ value.unsqueeze(-1)).squeeze(-1)
        size = torch.linalg.vector_norm(value, dim=-1)
        fraction = torch.ones_like(size)
        best, best_value = h, value
        for _ in range(_HALVINGS):
            trial = h - fraction.unsqueeze(-1) * step
            trial_value = F(trial, x)
            lower = torch.linalg.vector_norm(trial_value, dim=-1) < torch.linalg.vector_norm(best_value, dim=-1)
            best = torch.where(lower.unsqueeze(-1), trial, best)
            best_value = torch.where(lower.unsqueeze(-1), trial_value, best_value)
            waiting = torch.linalg.vector_norm(best_value, dim=-1) >= size
            if not waiting.any():
                break
            fraction = torch.where(waiting, fraction / 2, fraction)
        if torch.equal(best, h):
            break
        h, value = best, best_value
    return h, torch.linalg.vector_norm(value, dim=-1)


def _distinct(h: Tensor, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One of each group of roots that coincide (that of the smallest residual), and the size of the group."""
    kept: list[int] = []
    counts: list[int] = []
    for i in residual.argsort().tolist():
        for k, j in enumerate(kept):
            if torch.linalg.vector_norm(h[i] - h[j]) <= _SAME * (1 + torch.linalg.vector_norm(h[j])):
                counts[k] += 1
                break
        else:
            kept.append(i)
            counts.append(1)
    return h[kept], residual[kept], torch.tensor(counts)


def _spectra(system: Dynamics, points: Tensor, x: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    if points.shape[0] == 0:
        return points.new_zeros(0, system.size).to(torch.complex128), ()
    spectra = torch.linalg.eigvals(system.jacobian(points, x))
    leading = spectra.real if system.kind == "flow" else spectra.abs()
    order = leading.argsort(-1, descending=True)
    spectra, leading = spectra.gather(-1, order), leading.gather(-1, order)
    border = 0.0 if system.kind == "flow" else 1.0
    distance = (leading[:, 0] - border).tolist()
    names = tuple("marginal" if abs(e) <= _MARGIN else "unstable" if e > 0 else "stable" for e in distance)
    return spectra, names
