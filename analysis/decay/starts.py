"""Where the least-squares fits of the laws start: a grid over the nonlinear parameter, the others in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Array = NDArray[np.float64]

# The extent of the laws: a power above, or an order above, is a straight line or a parabola of log M by then.
LARGEST_POWER, LARGEST_ORDER = 40.0, 20.0
SMALLEST_STRETCH, LARGEST_STRETCH = 0.05, 6.0
# Points of the search grid of the one nonlinear parameter of a law, and of the rates of two exponentials.
_GRID, _RATES = 40, 24
# The smallest and the largest of the rates of two exponentials, in units of 1 / last time and 1 / first step.
_SLOWEST, _FASTEST = 1e-3, 3.0


def _power_start(t: Array, y: Array, largest: float, law: str = "power") -> list[Array]:
    positive = t[t > 0]
    # from a scale far below the first step, where it is a pure power, to one at which the window shows only its beginning
    logs = np.linspace(math.log(1e-2 * positive[0]), math.log(1e2 * positive[-1]), _GRID)
    z = np.log1p(t * np.exp(-logs)[:, None])
    if law == "logarithmic":
        z = np.log1p(z)
    _, slopes = lines(z, y)
    slopes = np.clip(slopes, -largest, 0.0)
    intercepts = y.mean() - slopes * z.mean(-1)
    k = int(np.argmin(((y - intercepts[:, None] - slopes[:, None] * z) ** 2).sum(-1)))
    return [np.array([intercepts[k], -slopes[k], logs[k]])] if slopes[k] < 0 else []


def _logarithmic_start(t: Array, y: Array) -> list[Array]:
    return _power_start(t, y, LARGEST_POWER, "logarithmic")


def at_the_bound(t: Array, y: Array, largest: float, log_s: float) -> Array:
    """The power law of this exponent: the scale alone is left to fit."""

    def rss(u: float) -> float:
        rest = y + largest * np.log1p(t * math.exp(-u))
        return float(((rest - rest.mean()) ** 2).sum())

    step = math.log(1e4 * t[-1] / t[t > 0][0]) / _GRID
    u = float(minimize_scalar(rss, bounds=(log_s - step, log_s + step), method="bounded").x)
    return np.array([(y + largest * np.log1p(t * math.exp(-u))).mean(), largest, u])


def _stretched_start(t: Array, y: Array) -> list[Array]:
    betas = np.geomspace(SMALLEST_STRETCH, LARGEST_STRETCH, _GRID)
    z = (t / t[-1]) ** betas[:, None]
    intercepts, slopes = lines(z, y)
    rss = ((y - intercepts[:, None] - slopes[:, None] * z) ** 2).sum(-1)
    k = int(np.argmin(np.where(slopes < 0, rss, math.inf)))
    if not slopes[k] < 0:
        return []
    return [np.array([intercepts[k], betas[k], math.log(-slopes[k]) / betas[k] - math.log(t[-1])])]


def _offset_fits(t: Array, y: Array) -> tuple[Array, Array, Array]:
    """log s on a grid, the coefficients of (1, t, log(1 + t/s)) there, and the residual sums of squares."""
    positive = t[t > 0]
    logs = np.linspace(math.log(3e-2 * positive[0]), math.log(3 * positive[-1]), _GRID // 2)
    z = np.log1p(t * np.exp(-logs)[:, None])
    x = t / t[-1]
    x0, z0, y0 = x - x.mean(), z - z.mean(-1, keepdims=True), y - y.mean()
    xx, xy = float(x0 @ x0), float(x0 @ y0)
    # z freed of x
    free = z0 - (z0 @ x0 / xx)[:, None] * x0
    size = (free**2).sum(-1)
    rest = y0 - xy / xx * x0
    coefficient = np.where(size > 1e-20 * (z0**2).sum(-1), (free @ rest) / np.where(size > 0, size, 1.0), 0.0)
    slope = xy / xx - coefficient * (z0 @ x0) / xx
    rss = ((rest - coefficient[:, None] * free) ** 2).sum(-1)
    intercept = y.mean() - slope * x.mean() - coefficient * z.mean(-1)
    return logs, np.stack([intercept, -slope / t[-1], coefficient], -1), rss


def _without_offset(t: Array, y: Array) -> Array | None:
    """(log a, r, k) of a t^k e^{-r t}; None where it would rise, or has a sample at 0."""
    if t[0] <= 0:
        return None
    x = np.stack([np.ones_like(t), -t / t[-1], np.log(t)], -1)
    p = np.linalg.lstsq(x, y, rcond=None)[0] / (1.0, t[-1], 1.0)
    return p if p[1] > 0 else None


def _gamma_start(t: Array, y: Array) -> list[Array]:
    starts = []
    pure = _without_offset(t, y)
    if pure is not None and 0 < pure[2] <= LARGEST_ORDER:
        starts.append(pure)
    logs, p, rss = _offset_fits(t, y)
    allowed = (p[:, 1] > 0) & (p[:, 2] > 0) & (p[:, 2] <= LARGEST_ORDER)
    if allowed.any():
        k = int(np.argmin(np.where(allowed, rss, math.inf)))
        starts.append(np.array([p[k, 0] - p[k, 2] * logs[k], p[k, 1], p[k, 2], logs[k]]))
    return starts


def _tempered_start(t: Array, y: Array) -> list[Array]:
    logs, p, rss = _offset_fits(t, y)
    allowed = (p[:, 1] > 0) & (p[:, 2] < 0) & (p[:, 2] >= -LARGEST_POWER)
    starts = []
    pure = _without_offset(t, y)
    if pure is not None and 0 < -pure[2] <= LARGEST_POWER:
        starts.append(pure * (1.0, 1.0, -1.0))
    if allowed.any():
        k = int(np.argmin(np.where(allowed, rss, math.inf)))
        starts.append(np.array([p[k, 0], p[k, 1], -p[k, 2], logs[k]]))
    return starts


def _two_start(t: Array, y: Array) -> list[Array]:
    """The best pair of rates of a grid, by the relative residuals of a_1 e^{-r_1 t} + a_2 e^{-r_2 t}, which are linear."""
    step = float(np.diff(t).min())
    rates = np.concatenate([[0.0], np.geomspace(_SLOWEST / t[-1], _FASTEST / step, 2 * _RATES)])
    # of the rates that M itself shows between neighbours, and those around them
    features = np.exp(np.minimum(-rates[:, None] * (t - t[0]) - (y - y[0]), 150.0))
    G, v = features @ features.T, features.sum(-1)
    i, j = np.triu_indices(len(rates), 1)
    gii, gjj, gij = G[i, i], G[j, j], G[i, j]
    determinant = gii * gjj - gij**2
    sound = determinant > 1e-12 * gii * gjj
    determinant = np.where(sound, determinant, 1.0)
    a = (gjj * v[i] - gij * v[j]) / determinant
    b = (gii * v[j] - gij * v[i]) / determinant
    gain = np.where(sound & (a > 0), a * v[i] + b * v[j], -math.inf)
    for k in np.argsort(-gain)[:8]:
        if not math.isfinite(gain[k]):
            break
        slow, fast = rates[i[k]], rates[j[k]]
        ratio = b[k] / a[k] * math.exp(min((fast - slow) * t[0], 600.0))
        start = np.array([y[0] + math.log(a[k]) + slow * t[0], max(slow, 1e-9 / t[-1]), ratio, math.log(fast - slow)])
        if (1 + ratio * np.exp(-(fast - slow) * t) > 1e-9).all():
            return [start]
    return []


STARTS: dict[str, Callable[..., list[Array]]] = {
    "power": _power_start,
    "logarithmic": _logarithmic_start,
    "stretched": _stretched_start,
    "gamma": _gamma_start,
    "tempered": _tempered_start,
    "two exponentials": _two_start,
}


def lines(z: Array, y: Array) -> tuple[Array, Array]:
    """Intercepts and slopes of y over every row of z."""
    z0, y0 = z - z.mean(-1, keepdims=True), y - y.mean()
    spread = (z0**2).sum(-1)
    slopes = np.where(spread > 0, z0 @ y0 / np.where(spread > 0, spread, 1.0), 0.0)
    return y.mean() - slopes * z.mean(-1), slopes
