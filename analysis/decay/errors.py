"""Errors of the number of a law: of the fit, of a rate that still turns, of parts of the window that differ, of later times."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import stats

from .laws import COMPOUND, LawFit
from .window import Window

# Three standard errors hold as often as those of a normal number: with few residuals their scatter is itself uncertain.
_THREE_ERRORS = float(stats.norm.sf(3.0))
# Under noise a tempered law that fits no better than this factor than two exponentials may be a sum of some more, whose rate lies
# nearer to the slope at the end of the window: this part of the way is an error.
_MUCH_CLOSER, _WAY_TO_THE_END = 4.0, 0.5
# Parts of the window whose rates are compared, and how much larger their variance is than noise makes it once in a thousand.
_PARTS, _CHANCE = 6, 4.1
# The slower of two exponentials is alone where the other is below this part of it.
_ALONE = 0.1


def sum_error(window: Window, fit: LawFit) -> float:
    """Error of a tempered law's rate if it stands for a sum of exponentials."""
    two = window.fits.get("two exponentials")
    if fit.law != "tempered" or window.is_rounding(fit) or (two is not None and two.residual > _MUCH_CLOSER * fit.residual):
        return 0.0
    return _WAY_TO_THE_END * float(fit.parameters[2]) / float(window.t[-1] + (fit.scale or 0.0))


def fit_error(fit: LawFit) -> float:
    """Standard error of the law's number by the fit alone, of which three hold however few the points."""
    return fit.stderr * _widening(max(fit.points - len(fit.parameters), 1))


@lru_cache(maxsize=1024)
def _widening(freedom: int) -> float:
    return float(stats.t.isf(_THREE_ERRORS, freedom)) / 3


def turning(window: Window) -> float:
    """How far the local rate still is from where it tends to, if it turns as r - k/t: t dr/dt; 0 if it turns to and fro."""
    later = window.later()
    bends = [_bend(part) for part in (window, later, later.later())]
    return min(map(abs, bends)) if min(bends) > 0 or max(bends) < 0 else 0.0


def unsteadiness(window: Window) -> float:
    """Standard deviation of the rates of parts of the window, beyond that of noise."""
    count = min(_PARTS, len(window.t) // 4)
    if count < 2:
        return 0.0
    rates, noise = [], []
    for t, y in zip(np.array_split(window.t, count), np.array_split(window.y, count), strict=True):
        x = t - t.mean()
        size = float(x @ x)
        rates.append(-float(x @ y) / size)
        noise.append(window.noise**2 / size)
    found, expected = float(np.var(rates, ddof=1)), sum(noise) / count
    return math.sqrt(found - expected) if found > _CHANCE * expected else 0.0


def share_of_the_way(window: Window, later: Window) -> float:
    """The part of the way to its end value that a number which changes as 1/t went from the window to its later part."""
    first, second = float(window.t.mean()), float(later.t.mean())
    return (second - first) / second


def _bend(window: Window) -> float:
    """t dr/dt at the middle of the window, for the local rate r = -d log M/dt: by the parabola through log M."""
    t, y = window.t, window.y
    middle, half = (t[-1] + t[0]) / 2, (t[-1] - t[0]) / 2
    x = (t - middle) / half
    return float(2 * np.polyfit(x, y, 2)[0] / half**2 * middle)


def own_decline(window: Window, fit: LawFit) -> float:
    """By how many e-foldings the slowest part of a compound law falls where it is alone."""
    t, p = window.t, fit.parameters
    if fit.law == "two exponentials":
        alone = t[np.abs(p[2]) * np.exp(-math.exp(p[3]) * t) < _ALONE]
        return float(p[1] * (alone[-1] - alone[0])) if alone.size else 0.0
    return float(p[1] * (t[-1] - t[0])) if fit.law in COMPOUND else math.inf


def drift(window: Window, fit: LawFit) -> tuple[float, float]:
    """Shift of the law's number by the residual of the later part, and its standard error."""
    later = window.later()
    residual, column = later.y - fit.log_values(later.t), fit.jacobian(later.t)[:, 1]
    column = column - column.mean()
    size = float(column @ column)
    if size <= 0 or len(later.t) < 4:
        return math.inf, math.inf
    drift = float(column @ (residual - residual.mean())) / size
    return drift, fit.residual * math.sqrt(fit.points / fit.independent / size)
