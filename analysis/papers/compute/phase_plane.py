"""The plane of v = dh/dt for dh/dt = tanh(W h), W = [[1, 1], [-4, -3]] ([IA] Fig 11b), by several independent routes.

With u = W h the same dynamics read

    v = tanh(u),   du/dt = W tanh(u),   dv/dt = (1 - v^2) * (W v)

The square |v_i| <= 1 is invariant, and so are its edges, which no trajectory from inside reaches. In the coordinates u the
distance to an edge, 1 - |v_i| = 2 e^{-2 |u_i|} / (1 + e^{-2 |u_i|}), is never rounded; in v in float64 everything closer than
1e-16 *is* on the edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from ...fixed_points import fixed_points
from ..engine.figure import job

Array = NDArray[np.float64]
_TIGHT = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-13}
# Backwards in time from here: long enough for the orbit, which attracts then, to be all that is left.
_BACKWARDS, _START = 600.0, (0.5, 0.0)
# Relative displacement whose growth over one turn is the multiplier of the orbit, up to this order.
_DISPLACEMENT = 1e-5
# Half way across counts as having left an edge; one step in so many is kept for the picture.
_LEFT, _KEPT = 0.5, 16


@job("plane-equilibria")
def equilibria(W: list[list[float]]) -> dict[str, Any]:
    """Where dv/dt = 0 in the square, with the eigenvalues of the linearisation by automatic differentiation:
    {"points": [{"v", "eigenvalues" (real parts, the largest first), "stability"}]}."""
    matrix = torch.tensor(W, dtype=torch.float64)

    def velocity(v: Tensor) -> Tensor:
        return (1 - v**2) * (v @ matrix.T)

    grid = torch.linspace(-1.2, 1.2, 9, dtype=torch.float64)
    found = fixed_points(velocity, size=2, starts=torch.cartesian_prod(grid, grid))
    points = [
        # 0.0 added: no -0.0
        {"v": [round(x, 6) + 0.0 for x in v.tolist()], "eigenvalues": spectrum.real.tolist(), "stability": stability}
        for v, spectrum, stability in zip(found.points, found.spectra, found.stability)
        if float(v.abs().max()) < 1 + 1e-6
    ]
    return {"points": points}


@job("plane-periodic-orbit")
def periodic_orbit(W: list[list[float]], points: int) -> dict[str, Any]:
    """The orbit round 0, by integration backwards in time, where it attracts, and its multiplier by two routes.

    Returns:
        {"period", "crossing": u_2 where u_1 rises through 0, "v": the orbit (points, 2), "multiplier_divergence":
        exp of the integral of div over a turn, "multiplier_return": how much a small displacement has grown after a turn}.
    """
    A = np.array(W)

    backwards = solve_ivp(lambda _, u: -A @ np.tanh(u), (0, _BACKWARDS), _START, events=_crossing(-1.0), **_TIGHT)
    period = float(np.diff(backwards.t_events[0])[-1])
    crossing = float(backwards.y_events[0][-1][1])

    def with_divergence(_: float, state: Array) -> Array:
        u = state[:2]
        return np.append(A @ np.tanh(u), np.diag(A) @ np.cosh(u) ** -2.0)

    turn = solve_ivp(with_divergence, (0, period), [0.0, crossing, 0.0], t_eval=np.linspace(0, period, points), **_TIGHT)

    def returns(start: float) -> float:
        """u_2 after one turn."""
        later = solve_ivp(lambda _, u: A @ np.tanh(u), (1.0, 1.5 * period), _advance(A, start), events=_crossing(1.0), **_TIGHT)
        return float(later.y_events[0][0][1])

    step = _DISPLACEMENT * crossing
    multiplier = (returns(crossing + step) - returns(crossing - step)) / (2 * step)
    return {
        "period": period,
        "crossing": crossing,
        "v": np.tanh(turn.y[:2].T),
        "multiplier_divergence": math.exp(turn.y[2, -1]),
        "multiplier_return": multiplier,
    }


def _crossing(direction: float) -> Callable[[float, Array], float]:
    """The event u_1 = 0, rising or falling."""

    def crosses(_: float, u: Array) -> float:
        return float(u[0])

    crosses.direction = direction  # type: ignore[attr-defined]
    return crosses


def _advance(A: Array, start: float) -> Array:
    """One unit of time after u = (0, start), so that the crossing at the start is no event."""
    return np.asarray(solve_ivp(lambda _, u: A @ np.tanh(u), (0, 1.0), [0.0, start], **_TIGHT).y[:, -1])


@job("plane-trajectories")
def trajectories(W: list[list[float]], starts: list[list[float]], horizon: float, points: int) -> dict[str, Any]:
    """v along time from starts in v, integrated in u: {"paths": [{"v" (points, 2), "u" at the end}]}."""
    A = np.array(W)
    # Quick at first, slow at the corners.
    t = np.concatenate([[0.0], np.geomspace(1e-2, horizon, points - 1)])
    paths = []
    for start in starts:
        run = solve_ivp(lambda _, u: A @ np.tanh(u), (0, horizon), np.arctanh(start), t_eval=t, **_TIGHT)
        paths.append({"v": np.tanh(run.y.T), "u": run.y[:, -1]})
    return {"paths": paths}


@job("plane-leaving-the-edge")
def leaving_the_edge(W: list[list[float]], v1: float, distance: float, horizon: float, steps: int) -> dict[str, Any]:
    """1 - v_2 along time from v = (v1, 1 - distance), with `distance` far below the rounding of 1, by three routes: in v with 60
    decimal digits (classical Runge-Kutta), in u in float64 (DOP853), and in v in float64, the same Runge-Kutta.

    Returns:
        {"times", and "distance" and "left" for each of "digits", "u", "v": 1 - v_2, and when it first was above 1/2 or None}.
    """
    times = np.linspace(0, horizon, steps + 1)
    with localcontext() as context:
        context.prec = 60
        digits = _runge_kutta(W, [Decimal(v1), 1 - Decimal(distance)], Decimal(horizon) / steps, steps)
    rounded = _runge_kutta(W, [v1, 1 - distance], horizon / steps, steps)
    A = np.array(W)
    # artanh(1 - d) = log((2 - d) / d) / 2 without rounding d away
    start = [math.atanh(v1), 0.5 * math.log((2 - distance) / distance)]
    run = solve_ivp(lambda _, u: A @ np.tanh(u), (0, horizon), start, t_eval=times, **_TIGHT)
    smooth = 2 / (1 + np.exp(2 * run.y[1]))
    routes = {"digits": np.array(digits), "u": smooth, "v": np.array(rounded)}
    return {"times": times[::_KEPT]} | {
        name: {"distance": d[::_KEPT], "left": _first_above(times, d)} for name, d in routes.items()
    }


def _runge_kutta(W: list[list[float]], v: list[Any], h: Any, steps: int) -> list[float]:
    """1 - v_2 by the classical Runge-Kutta method, in whatever numbers v and h are."""
    number = type(h)
    (a, b), (c, d) = ([number(entry) for entry in row] for row in W)

    def rate(x: Any, y: Any) -> tuple[Any, Any]:
        return (1 - x * x) * (a * x + b * y), (1 - y * y) * (c * x + d * y)

    x, y = v
    result = [float(1 - y)]
    for _ in range(steps):
        k1 = rate(x, y)
        k2 = rate(x + h / 2 * k1[0], y + h / 2 * k1[1])
        k3 = rate(x + h / 2 * k2[0], y + h / 2 * k2[1])
        k4 = rate(x + h * k3[0], y + h * k3[1])
        x, y = (z + h / 6 * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i]) for i, z in enumerate((x, y)))
        result.append(float(1 - y))
    return result


def _first_above(times: Array, distance: Array) -> float | None:
    above = np.flatnonzero(distance > _LEFT)
    return float(times[above[0]]) if above.size else None
