"""The laws a memory function may decay by, and their least-squares fits to log M."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from odernn.json_values import encode

from ..results import Result
from .starts import LARGEST_ORDER, LARGEST_POWER, LARGEST_STRETCH, SMALLEST_STRETCH, STARTS, at_the_bound, lines

Array = NDArray[np.float64]

# Laws that end as e^{-r t}: a rate is named for each.
EXPONENTIAL_END = ("exponential", "gamma", "tempered", "two exponentials")
# The search looks at this many points, the refinement at all.
_SEARCH_POINTS = 160
# A step that lowers the sum of squares by less than this part is the last.
_STEPS, _CONVERGED = 30, 1e-5
# Rounding of log M is some roundings of M itself, and of log M and of r t.
_ROUNDINGS = 4.0 * np.finfo(np.float64).eps


@dataclass(frozen=True, eq=False, repr=False)
class LawFit(Result):
    """One law fitted to log M by least squares.

        none              log M = log a                                  parameters (log a,)
        exponential       log M = log a - r t                            parameters (log a, r)
        power             log M = log a - p log(1 + t/s)                 parameters (log a, p, log s)
        logarithmic       log M = log a - q log(1 + log(1 + t/s))        parameters (log a, q, log s)
        stretched         log M = log a - (r t)^beta                     parameters (log a, beta, log r)
        gamma             log M = log a + k log(t + s) - r t             parameters (log a, r, k) or (log a, r, k, log s)
        tempered          log M = log a - p log(1 + t/s) - r t           parameters (log a, r, p, log s) or (log a, r, p)
        two exponentials  log M = log a - r t + log(1 + b e^{-d t})      parameters (log a, r, b, log d)

    A gamma law of three parameters has s = 0, and is 0 at t = 0; a tempered one is a t^-p e^{-r t}, without a value there.

    Args:
        parameters: as above.
        covariance: of these, corrected for autocorrelated residuals.
        residual: root mean square of the residual of log M.
        worst: largest |residual|.
        rss: residual sum of squares.
        points: fitted.
        independent: residuals that count as independent.
    """

    law: str
    parameters: Array
    covariance: Array
    residual: float
    worst: float
    rss: float
    points: int
    independent: float

    def log_values(self, t: ArrayLike) -> Array:
        """log M by the law, (time,)."""
        return _LAWS[self.law](np.asarray(t, dtype=np.float64), self.parameters)[0]

    def jacobian(self, t: ArrayLike) -> Array:
        """d log M / d parameters, (time, parameters)."""
        return _LAWS[self.law](np.asarray(t, dtype=np.float64), self.parameters)[1]

    @property
    def amplitude(self) -> float:
        """a."""
        return _exp(self.parameters[0])

    @property
    def rate(self) -> float | None:
        """r, 1/time; of the slower of two exponentials."""
        if self.law in EXPONENTIAL_END:
            return float(self.parameters[1])
        return _exp(self.parameters[2]) if self.law == "stretched" else None

    @property
    def exponent(self) -> float | None:
        """p, q or beta."""
        if self.law in ("power", "stretched", "logarithmic"):
            return float(self.parameters[1])
        return float(self.parameters[2]) if self.law == "tempered" else None

    @property
    def scale(self) -> float | None:
        """s, time."""
        if self.law in ("power", "logarithmic"):
            return _exp(self.parameters[2])
        return _exp(self.parameters[3]) if self.law in ("gamma", "tempered") and len(self.parameters) == 4 else None

    @property
    def order(self) -> float | None:
        """k of the gamma law."""
        return float(self.parameters[2]) if self.law == "gamma" else None

    @property
    def second_rate(self) -> float | None:
        """Rate of the faster of two exponentials."""
        return float(self.parameters[1]) + _exp(self.parameters[3]) if self.law == "two exponentials" else None

    @property
    def headline(self) -> float | None:
        """The number that the law is known by: the rate, or the exponent of a power law and a stretched exponential."""
        return float(self.parameters[1]) if self.law != "none" else None

    @property
    def stderr(self) -> float:
        """Standard error of the headline; NaN of a law without one."""
        return math.sqrt(max(self.covariance[1, 1], 0.0)) if self.law != "none" else math.nan

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, and the numbers that the law has: amplitude, rate, exponent, scale, stderr, order, second rate."""
        names = ("amplitude", "rate", "exponent", "scale", "stderr", "order", "second_rate")
        numbers = {name: getattr(self, name) for name in names}
        return super().to_dict() | {name: encode(value) for name, value in numbers.items() if value is not None}

    def describe(self, stderr: float | None = None) -> str:
        """The law with its numbers; `stderr` in place of that of the fit alone."""
        error = self.stderr if stderr is None else stderr
        shown = f" ± {error:.1g}" if math.isfinite(error) else ""
        if self.law == "none":
            return "does not decay"
        if self.law not in EXPONENTIAL_END:
            return f"{_NAMES[self.law]}, exponent {self.exponent:.4g}{shown}"
        text = f"{_NAMES[self.law]}, rate {self.rate:.4g}{shown}"
        if self.law == "gamma":
            text += f", order {self.order:.3g}"
        elif self.law == "tempered":
            text += f", exponent {self.exponent:.3g}"
        elif self.law == "two exponentials":
            text += f", second rate {self.second_rate:.3g}"
        return text


_NAMES = {
    "power": "power law",
    "logarithmic": "power of a logarithm",
    "stretched": "stretched exponential",
    "exponential": "exponential",
    "gamma": "gamma law",
    "tempered": "tempered power law",
    "two exponentials": "two exponentials",
}


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


# --- the laws: log M and its derivatives by the parameters ---------------------------------------------------


def _none(t: Array, p: Array) -> tuple[Array, Array]:
    return np.full(t.shape, p[0]), np.ones((t.size, 1))


def _exponential(t: Array, p: Array) -> tuple[Array, Array]:
    return p[0] - p[1] * t, np.stack([np.ones_like(t), -t], -1)


def _power(t: Array, p: Array) -> tuple[Array, Array]:
    z = t * _exp(-p[2])
    log = np.log1p(z)
    return p[0] - p[1] * log, np.stack([np.ones_like(t), -log, p[1] * z / (1 + z)], -1)


def _logarithmic(t: Array, p: Array) -> tuple[Array, Array]:
    z = t * _exp(-p[2])
    outer = 1 + np.log1p(z)
    log = np.log(outer)
    return p[0] - p[1] * log, np.stack([np.ones_like(t), -log, p[1] * z / (1 + z) / outer], -1)


def _stretched(t: Array, p: Array) -> tuple[Array, Array]:
    z = t * _exp(p[2])
    power = z ** p[1]
    log = np.log(np.where(z > 0, z, 1.0))
    return p[0] - power, np.stack([np.ones_like(t), -power * log, -p[1] * power], -1)


def _gamma(t: Array, p: Array) -> tuple[Array, Array]:
    one = np.ones_like(t)
    if len(p) == 3:
        with np.errstate(divide="ignore"):
            log = np.log(t)
        return p[0] - p[1] * t + p[2] * log, np.stack([one, -t, np.where(t > 0, log, 0.0)], -1)
    s = _exp(p[3])
    log = np.log(t + s)
    return p[0] - p[1] * t + p[2] * log, np.stack([one, -t, log, p[2] * s / (t + s)], -1)


def _tempered(t: Array, p: Array) -> tuple[Array, Array]:
    if len(p) == 3:
        log = np.log(np.where(t > 0, t, 1.0))
        return p[0] - p[1] * t - p[2] * log, np.stack([np.ones_like(t), -t, -log], -1)
    z = t * _exp(-p[3])
    log = np.log1p(z)
    return p[0] - p[1] * t - p[2] * log, np.stack([np.ones_like(t), -t, -log, p[2] * z / (1 + z)], -1)


def _two(t: Array, p: Array) -> tuple[Array, Array]:
    d = _exp(p[3])
    decay = np.exp(-d * t)
    # b may pass the point where M = 0 on the way: nothing is fitted there
    total = np.maximum(1 + p[2] * decay, 1e-12)
    line = p[0] - p[1] * t + np.log(total)
    return line, np.stack([np.ones_like(t), -t, decay / total, -p[2] * d * t * decay / total], -1)


_LAWS: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "none": _none,
    "exponential": _exponential,
    "power": _power,
    "logarithmic": _logarithmic,
    "stretched": _stretched,
    "gamma": _gamma,
    "tempered": _tempered,
    "two exponentials": _two,
}
SIMPLE = ("none", "exponential", "power", "stretched")
COMPOUND = ("gamma", "tempered", "two exponentials")


# --- fitting -----------------------------------------------------------------------------------------------


def fit_law(law: str, t: Array, y: Array, largest_power: float = LARGEST_POWER, miss: float = 0.0) -> LawFit | None:
    """Least squares: a grid over the nonlinear parameter, because there may be two valleys, then damped Gauss-Newton steps.
    None where the law would have to rise, or the data are too few. `miss`: error of y that does not average out."""
    if law == "none":
        return _finish(law, t, y, np.array([y.mean()]), miss)
    if law == "exponential":
        intercept, slope = _line(t, y)
        return _finish(law, t, y, np.array([intercept, -slope]), miss) if slope < 0 else None
    if len(t) < 6 and law in COMPOUND:
        return None
    step = max(1, len(t) // _SEARCH_POINTS)
    # the last time is kept, the end of the window decides on rates
    some = np.unique(np.append(np.arange(0, len(t), step), len(t) - 1))
    starts = STARTS[law](t[some], y[some], largest_power) if law == "power" else STARTS[law](t[some], y[some])
    fits = []
    for start in starts:
        if law == "power" and start[1] >= largest_power:
            parameters = at_the_bound(t, y, largest_power, start[2])
        else:
            if len(t) > 2 * len(some):
                start = _refine(law, t[some], y[some], start, largest_power)
            parameters = _refine(law, t, y, start, largest_power)
        fits.append(_finish(law, t, y, parameters, miss))
    if len(fits) == 2 and fits[0].rss < fits[1].rss * math.exp(2 / len(t)) + len(t) * _rounding(y) ** 2:
        # the offset buys nothing
        return fits[0]
    return min(fits, key=lambda fit: fit.rss, default=None)


def _allowed(law: str, t: Array, p: Array, largest_power: float) -> bool:
    """Whether the law falls in the end, and keeps to its extent."""
    first = float(t[1] if t[0] <= 0 else t[0])
    if not np.isfinite(p).all():
        return False
    if law in ("power", "logarithmic"):
        return 0 < p[1] <= largest_power and math.log(1e-3 * first) < p[2] < math.log(1e3 * t[-1])
    if law == "stretched":
        return SMALLEST_STRETCH <= p[1] <= LARGEST_STRETCH and abs(p[2]) < 200
    if law == "gamma":
        within = len(p) == 3 or math.log(1e-3 * first) < p[3] < math.log(1e2 * t[-1])
        return p[1] > 0 and 0 < p[2] <= LARGEST_ORDER and within
    if law == "tempered":
        if len(p) == 3:
            return p[1] > 0 and 0 < p[2] <= LARGEST_POWER
        return p[1] > 0 and 0 < p[2] <= LARGEST_POWER and math.log(1e-3 * first) < p[3] < math.log(1e2 * t[-1])
    return p[1] >= 0 and abs(p[3]) < 600 and bool(1 + p[2] * math.exp(-_exp(p[3]) * t[0]) > 0)


def _refine(law: str, t: Array, y: Array, p: Array, largest_power: float) -> Array:
    """Levenberg-Marquardt from p, in columns of unit length; steps that leave the law's extent are not taken."""
    function = _LAWS[law]
    f, J = function(t, p)
    e = y - f
    rss, damping = float(e @ e), 1e-3
    least = len(t) * (0.25 * _rounding(y)) ** 2
    for _ in range(_STEPS):
        if rss <= least:
            break
        size = np.sqrt((J * J).sum(0))
        size[size == 0] = 1.0
        u, singular, v = np.linalg.svd(J / size, full_matrices=False)
        slope = e @ u
        while damping < 1e8:
            step = (slope * singular / (singular**2 + damping)) @ v / size
            if _allowed(law, t, p + step, largest_power):
                f, trial_J = function(t, p + step)
                trial = y - f
                trial_rss = float(trial @ trial)
                if trial_rss < rss:
                    break
            damping *= 10
        else:
            break
        done = rss - trial_rss <= _CONVERGED * rss
        p, e, J = p + step, trial, trial_J
        rss, damping = trial_rss, max(damping / 20, 1e-14)
        if done:
            break
    return p


def _line(z: Array, y: Array) -> tuple[float, float]:
    intercepts, slopes = lines(z[None], y)
    return float(intercepts[0]), float(slopes[0])


def _rounding(y: Array) -> float:
    return _ROUNDINGS * max(1.0, float(np.abs(y).max()))


def _finish(law: str, t: Array, y: Array, parameters: Array, miss: float) -> LawFit:
    f, J = _LAWS[law](t, parameters)
    residual = y - f
    n, k = len(t), len(parameters)
    rss = float((residual**2).sum())
    # in scaled columns, so that a flat direction (p and s of a power law) costs no digits
    size = np.sqrt((J * J).sum(0))
    # a parameter that nothing depends on has an infinite error
    size = np.maximum(size, 1e-100)
    R = np.linalg.qr(J / size, mode="r")
    inverse = np.linalg.pinv(R, rcond=1e-13)
    information = inverse @ inverse.T / np.outer(size, size)
    independent = _independent(residual)
    covariance = information * (rss / max(n - k, 1) * n / independent + n / 4 * (_rounding(y) ** 2 + miss**2))
    return LawFit(law, parameters, covariance, math.sqrt(rss / n), float(np.abs(residual).max()), rss, n, independent)


def _independent(residual: Array) -> float:
    """Number of independent residuals: n (1 - r) / (1 + r) for a lag-1 autocorrelation r > 0."""
    n = len(residual)
    total = float((residual**2).sum())
    if n < 4 or total == 0:
        return float(n)
    r = min(max(float((residual[1:] * residual[:-1]).sum()) / total, 0.0), 1.0)
    return max(n * (1 - r) / (1 + r), min(4.0, n))
