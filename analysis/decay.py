"""The law a memory function decays by: exponential, power, stretched exponential, or none; with errors, evidence and window."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.signal import find_peaks

from .memory import MemoryFunction

Array = NDArray[np.float64]
Law = Literal["exponential", "power", "stretched", "none", "undecided"]

# --- what the model choice rests on ---
# Another law must beat the exponential, and an exponential a constant, by this much in AIC (likelihood ratio e^5) ...
_DECISIVE = 10.0
# ... and any other two laws each other by this much (e^2), an exponential its rivals included.
_TELLING = 4.0
# A stretched exponent in here, and a power above this, are not told from an exponential by data of finite length: so a true
# exponential is misread under noise (down to 0.85), or when a polynomial stands before it (random LSTMs of 3 layers: up to 1.24).
_NEARLY_EXPONENTIAL = (0.85, 1.3)
_LARGEST_POWER = 5.0
_SMALLEST_STRETCH, _LARGEST_STRETCH = 0.1, 4.0
# A memory that falls by less than 10 % over the window does not decay as far as the window can tell.
_NO_DECLINE = 0.1
# One that may fall (by the error of its slope), but by less than a factor e^0.5, does not decay as far as the window can tell.
_SHORT_DECLINE = 0.5
# --- what is fitted ---
# Values are used down to this many floors: rounding then moves them by a third at most, and only at the end of the window.
_FLOORS = 3.0
# Without a floor given: a tail that has stopped falling this close to rounding of the largest value is taken for one.
_PLATEAU_ROUNDINGS = 1e3
# A dip this deep (factor e) between maxima is an oscillation and not noise: the noise of a curve stays below some 25 %.
_DIP = 1.0
# A ripple is one if its crests stand out by this many standard deviations of the noise.
_RIPPLE_NOISE = 6.0
# Envelopes of fewer maxima say less than the whole curve.
_FEWEST_MAXIMA = 5
_FEWEST_POINTS = 8
# Fractions of the range of log M after which a window may start: early times hold transients of faster modes.
_STARTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6)
# A law holds on a window if the root mean square of its residual is noise (within this factor), or this part of the decline
# there, and no residual is more than four times that: a transient at the start may not hide in a long window.
_NOISE_FACTOR = 1.5
_RESIDUAL_SHARE = 0.01
_WORST_RESIDUAL = 4.0
# Residuals of data without noise are rounding: a variance below this, relative to the squared decline, is none.
_ROUNDING_VARIANCE = 1e-20
# Points of the search grid of the one nonlinear parameter of a law.
_GRID = 40


@dataclass(frozen=True)
class LawFit:
    """One law fitted to log M by least squares.

        exponential  log M = log a - r t              parameters (log a, r)
        power        log M = log a - p log(1 + t/s)   parameters (log a, p, log s)
        stretched    log M = log a - (r t)^beta       parameters (log a, beta, log r)
        none         log M = log a                    parameters (log a,)

    Args:
        parameters: as above.
        covariance: of these; residuals that hang together count as fewer (lag-1 autocorrelation).
        residual: root mean square of the residual of log M.
        worst: largest |residual|.
        rss: residual sum of squares.
        points: fitted.
    """

    law: str
    parameters: Array
    covariance: Array
    residual: float
    worst: float
    rss: float
    points: int

    def misfit(self, allowed: float) -> float:
        """How far the residual is from being `allowed`: up to 1 the law holds."""
        return max(self.residual, self.worst / _WORST_RESIDUAL) / allowed

    def log_values(self, t: ArrayLike) -> Array:
        return _LAWS[self.law](np.asarray(t, dtype=np.float64), self.parameters)


@dataclass(frozen=True)
class DecayFit:
    """The law of decay of a memory function, on the window it was read from.

    Args:
        law: "exponential", "power", "stretched" (e^{-(r t)^beta}; beta > 1 is compressed), "none" (does not decay), or
            "undecided".
        amplitude: a.
        rate: r, 1/time: of the exponential and the stretched exponential; None otherwise.
        exponent: p of the power law, beta of the stretched exponential; None otherwise.
        scale: s, time, of the power law (1 + t/s)^-p; None otherwise.
        stderr: standard error of the rate (exponential) or exponent (power, stretched); NaN otherwise.
        evidence: for each law its AIC less that of the best one: 0 is best, 10 is decisive.
        window: times between which the law was fitted and holds.
        points: fitted, maxima of the oscillation if `envelope`.
        envelope: whether M oscillates and its envelope was fitted.
        residual: root mean square deviation of log M from the law.
        reason: why nothing was decided, or empty.
        fits: every law, fitted on the window.
    """

    law: Law
    amplitude: float
    rate: float | None
    exponent: float | None
    scale: float | None
    stderr: float
    evidence: Mapping[str, float]
    window: tuple[float, float]
    points: int
    envelope: bool
    residual: float
    reason: str = ""
    fits: Mapping[str, LawFit] = field(default_factory=dict, repr=False)

    def predict(self, t: ArrayLike) -> Array:
        """The law at times t; NaN where none was decided on."""
        if self.law == "undecided":
            return np.full(np.shape(t), math.nan)
        return np.asarray(np.exp(self.fits[self.law].log_values(t)))

    def band(self, t: ArrayLike, errors: float = 1.96) -> tuple[Array, Array]:
        """Lower and upper end of the confidence band of the law, `errors` standard errors either side; 1.96 for 95 %."""
        if self.law == "undecided":
            nothing = np.full(np.shape(t), math.nan)
            return nothing, nothing
        fit = self.fits[self.law]
        t = np.asarray(t, dtype=np.float64)
        J = _jacobian(fit.law, t, fit.parameters)
        width = errors * np.sqrt(np.einsum("ni,ij,nj->n", J, fit.covariance, J).clip(min=0))
        line = fit.log_values(t)
        return np.exp(line - width), np.exp(line + width)

    def describe(self) -> str:
        """One line: the law with its numbers and their standard errors."""
        error = f" ± {self.stderr:.1g}" if math.isfinite(self.stderr) else ""
        if self.law == "exponential":
            return f"exponential, rate {self.rate:.4g}{error}"
        if self.law == "power":
            return f"power law, exponent {self.exponent:.4g}{error}"
        if self.law == "stretched":
            return f"stretched exponential, exponent {self.exponent:.4g}{error}"
        return "does not decay" if self.law == "none" else f"undecided: {self.reason}"

    def as_dict(self) -> dict[str, Any]:
        """JSON values only."""
        names = ("law", "amplitude", "rate", "exponent", "scale", "stderr", "points", "envelope", "residual", "reason")
        values = {name: getattr(self, name) for name in names}
        values |= {"evidence": dict(self.evidence), "window": list(self.window)}
        return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()}


def fit_decay(M: MemoryFunction | tuple[ArrayLike, ArrayLike], *, floor: float | None = None) -> DecayFit:
    """The law by which M decays.

    log M above the floor is fitted by least squares with each law, on the envelope (the maxima) where M oscillates. The window
    ends where M reaches its floor, and starts as early as some law describes all that follows, to within the noise or 1 % of
    the decline. The choice is by AIC on that window, with the number of points discounted for residuals that hang together. It
    keeps the exponential unless another law gains 10; a stretched exponent in [0.85, 1.3] and a power above 5 are read as
    exponential. The answer is "undecided" where two laws that differ in kind are within 10, and where there is too little above
    the floor.

    Args:
        M: a memory function (of one system), or (times, values).
        floor: level below which values are rounding. None: that of M; for (times, values) a tail that has stopped falling within
            1000 roundings of the largest value is taken for one.

    Raises:
        ValueError: an ensemble, or times and values that do not fit together.
    """
    t, values, floor, eps = _checked(M, floor)
    largest = float(values.max(initial=0.0))
    if not largest > floor:
        return _undecided("no value lies above the numerical floor", (float(t[0]), float(t[-1])), 0, False)
    end = _end(values, _FLOORS * floor)
    reaches_end = end == len(values)
    # an abrupt end is not an approach to the floor
    reached = max(_FLOORS * floor, float(values[end:].max(initial=0.0)), eps * largest)
    abrupt = not reaches_end and values[end - 1] > _PLATEAU_ROUNDINGS * reached
    t, values = t[:end], values[:end]
    t, log_m, envelope = _envelope(t, values, _FLOORS * floor)
    window = (float(t[0]), float(t[-1])) if t.size else (0.0, 0.0)
    if len(t) < _FEWEST_POINTS and not (envelope and len(t) >= _FEWEST_MAXIMA):
        return _undecided(f"only {len(t)} points lie above the numerical floor", window, len(t), envelope)
    if abrupt:
        return _undecided(f"it ends abruptly at t = {window[1]:g}", window, len(t), envelope)
    noise = _noise(t, log_m)
    chosen = _window(t, log_m, noise)
    if chosen.verdict == "poor" and not envelope:
        crests = _crests(t, log_m, chosen.fits, noise)
        if len(crests) >= _FEWEST_MAXIMA and (again := _window(t[crests], log_m[crests], 0.0)).verdict != "poor":
            chosen, envelope = again, True
    return _choose(chosen, envelope, reaches_end)


# --- preparing the data ------------------------------------------------------------------------------------


def _checked(M: MemoryFunction | tuple[ArrayLike, ArrayLike], floor: float | None) -> tuple[Array, Array, float, float]:
    times, raw = (M.times, M.values) if isinstance(M, MemoryFunction) else M
    t, values = (_array(a) for a in (times, raw))
    if values.ndim == 2 and isinstance(M, MemoryFunction):
        raise ValueError(f"M is that of an ensemble of {values.shape[0]}: fit one member at a time, M[0]")
    if t.ndim != 1 or t.shape != values.shape or t.size == 0:
        raise ValueError(f"times and values must be (time,) alike, got shapes {t.shape} and {values.shape}")
    if not (np.isfinite(t).all() and (np.diff(t) > 0).all()):
        raise ValueError("times must be finite and increase: sort them and drop doubles")
    if (values < 0).any() or np.isnan(values).any():
        raise ValueError("values hold NaN or negative numbers, expected a memory function M >= 0: take the modulus")
    if floor is None:
        floor = float(M.floor) if isinstance(M, MemoryFunction) else _plateau(values, _eps(raw))
    if not floor >= 0:
        raise ValueError(f"floor must be a level >= 0, got {floor!r}")
    # an integrable singularity at 0 is no part of the decay
    used = (t >= 0) & np.isfinite(values)
    return t[used], values[used], floor, _eps(raw)


def _array(values: Any) -> Array:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values, dtype=np.float64)


def _eps(values: Any) -> float:
    single = "32" in str(getattr(values, "dtype", ""))
    return float(np.finfo(np.float32 if single else np.float64).eps)


def _plateau(values: Array, eps: float) -> float:
    """The level of a tail that has stopped falling within reach of rounding, or 0."""
    tail = values[-max(len(values) // 4, 4) :]
    if len(tail) < 4 or not tail.max() < _PLATEAU_ROUNDINGS * eps * values.max():
        return 0.0
    first, second = (np.median(half) for half in np.array_split(tail, 2))
    # an exponential that passes rounding undisturbed still falls; a plateau does not, by more than its scatter
    return float(tail.max()) if second > first / 3 or first == 0 else 0.0


def _end(values: Array, level: float) -> int:
    """Number of leading values before M has sunk to `level` for good."""
    above = np.flatnonzero(values > level)
    return int(above[-1]) + 1 if above.size else 0


def _envelope(t: Array, values: Array, level: float) -> tuple[Array, Array, bool]:
    """Times and log M to fit: all values above the level, or the maxima between deep dips."""
    positive = values > max(level, 0.0)
    tiny = max(level, float(values[positive].min()) if positive.any() else 1.0) * math.exp(-2 * _DIP)
    log_all = np.log(np.maximum(values, tiny))
    # a maximum at either end of the record has only one flank: it may still rise outside
    maxima, _ = find_peaks(log_all, prominence=_DIP)
    if len(maxima) < _FEWEST_MAXIMA:
        return t[positive], np.log(values[positive]), False
    times, heights = _vertices(t, log_all, maxima)
    return times, heights, True


def _vertices(t: Array, y: Array, at: NDArray[np.intp]) -> tuple[Array, Array]:
    """Vertices of the parabolas through the samples at each maximum and beside it, in the values and not their logarithm: a
    sampled oscillation misses its crests, and how much varies from crest to crest."""
    left, mid, right = (t[at + k] for k in (-1, 0, 1))
    v = [np.exp(y[at + k] - y[at]) for k in (-1, 0, 1)]
    slope_left, slope_right = (v[1] - v[0]) / (mid - left), (v[2] - v[1]) / (right - mid)
    curvature = (slope_right - slope_left) / (right - left)
    tilt = (slope_left * (right - mid) + slope_right * (mid - left)) / (right - left)
    with np.errstate(divide="ignore", invalid="ignore"):
        offset = np.where(curvature < 0, -tilt / (2 * curvature), 0.0)
        lift = np.where(curvature < 0, -(tilt**2) / (4 * curvature), 0.0)
    # a parabola that overshoots is no picture of the crest
    sound = np.isfinite(offset) & (offset > left - mid) & (offset < right - mid) & (lift < 1)
    offset, lift = np.where(sound, offset, 0.0), np.where(sound, lift, 0.0)
    return mid + offset, y[at] + np.log1p(lift)


def _crests(t: Array, log_m: Array, fits: Mapping[str, LawFit], noise: float) -> NDArray[np.intp]:
    """Maxima of a ripple on the law that comes closest: of an oscillation too shallow for dips."""
    closest = min(fits.values(), key=lambda fit: fit.rss)
    residual = log_m - closest.log_values(t)
    crests, _ = find_peaks(residual, prominence=max(_RIPPLE_NOISE * noise, closest.residual))
    return np.asarray(crests)


def _noise(t: Array, log_m: Array) -> float:
    """Standard deviation of what is not smooth in log M: from each point's distance to the line between its neighbours."""
    if len(t) < 5:
        return 0.0
    weight = (t[1:-1] - t[:-2]) / (t[2:] - t[:-2])
    deviation = log_m[1:-1] - (1 - weight) * log_m[:-2] - weight * log_m[2:]
    deviation = deviation / np.sqrt(1 + (1 - weight) ** 2 + weight**2)
    # 1.4826: the median absolute deviation of a normal distribution in standard deviations
    return float(1.4826 * np.median(np.abs(deviation)))


# --- fitting -----------------------------------------------------------------------------------------------


def _exponential(t: Array, p: Array) -> Array:
    return np.asarray(p[0] - p[1] * t)


def _power(t: Array, p: Array) -> Array:
    return np.asarray(p[0] - p[1] * np.log1p(t * math.exp(-p[2])))


def _stretched(t: Array, p: Array) -> Array:
    return np.asarray(p[0] - (t * math.exp(p[2])) ** p[1])


def _none(t: Array, p: Array) -> Array:
    return np.full(np.shape(t), p[0])


_LAWS: dict[str, Callable[[Array, Array], Array]] = {
    "exponential": _exponential,
    "power": _power,
    "stretched": _stretched,
    "none": _none,
}


def _jacobian(law: str, t: Array, p: Array) -> Array:
    """d log M / d parameters, (time, parameters)."""
    one = np.ones_like(t)
    if law == "exponential":
        return np.stack([one, -t], -1)
    if law == "power":
        z = t * math.exp(-p[2])
        return np.stack([one, -np.log1p(z), p[1] * z / (1 + z)], -1)
    if law == "stretched":
        z = t * math.exp(p[2])
        with np.errstate(divide="ignore"):
            logarithm = np.where(z > 0, np.log(np.where(z > 0, z, 1.0)), 0.0)
        return np.stack([one, -(z ** p[1]) * logarithm, -p[1] * z ** p[1]], -1)
    return one[:, None]


def _fit_law(law: str, t: Array, y: Array, largest_power: float = _LARGEST_POWER) -> LawFit | None:
    """Least squares; the one nonlinear parameter by search, the others in closed form. None where the law would have to rise."""
    if law == "none":
        return _finish(law, t, y, np.array([y.mean()]))
    if law == "exponential":
        intercept, slope = _line(t, y)
        return _finish(law, t, y, np.array([intercept, -slope])) if slope < 0 else None
    # the law is linear in z = log(1 + t/s), or in z = t^beta
    low, high = _search_range(law, t)

    def transformed(u: float) -> Array:
        return np.log1p(t * math.exp(-u)) if law == "power" else (t / t[-1]) ** u

    def solve(u: float) -> tuple[float, float, float]:
        z = transformed(u)
        intercept, slope = _line(z, y)
        if law == "power" and -slope > largest_power:
            slope = -largest_power
            intercept = float((y - slope * z).mean())
        slope = min(slope, 0.0)
        if slope == 0:
            intercept = float(y.mean())
        return intercept, slope, float(((y - intercept - slope * z) ** 2).sum())

    u, (intercept, slope, _) = _search(solve, low, high)
    if not slope < 0:
        return None
    if law == "power":
        return _finish(law, t, y, np.array([intercept, -slope, u]))
    return _finish(law, t, y, np.array([intercept, u, math.log(-slope) / u - math.log(t[-1])]))


def _search_range(law: str, t: Array) -> tuple[float, float]:
    if law == "power":
        # from a scale far below the first step, where it is a pure power, to one at which the window shows only its beginning
        positive = t[t > 0]
        return math.log(1e-2 * positive[0]), math.log(1e2 * positive[-1])
    return _SMALLEST_STRETCH, _LARGEST_STRETCH


_Solve = Callable[[float], tuple[float, float, float]]


def _search(solve: _Solve, low: float, high: float) -> tuple[float, tuple[float, float, float]]:
    """The u of the smallest residual: a grid first, because there may be two valleys."""
    grid = np.linspace(low, high, _GRID)
    k = int(np.argmin([solve(u)[2] for u in grid]))
    bounds = grid[max(k - 1, 0)], grid[min(k + 1, _GRID - 1)]
    u = float(minimize_scalar(lambda u: solve(u)[2], bounds=bounds, method="bounded", options={"xatol": 1e-10}).x)
    return u, solve(u)


def _line(z: Array, y: Array) -> tuple[float, float]:
    """Intercept and slope of y over z."""
    z0, y0 = z.mean(), y.mean()
    spread = float(((z - z0) ** 2).sum())
    slope = float(((z - z0) * (y - y0)).sum()) / spread if spread > 0 else 0.0
    return float(y0 - slope * z0), slope


def _finish(law: str, t: Array, y: Array, parameters: Array) -> LawFit:
    residual = y - _LAWS[law](t, parameters)
    n, k = len(t), len(parameters)
    rss = float((residual**2).sum())
    J = _jacobian(law, t, parameters)
    # in scaled columns, so that a flat direction (p and s of a power law) costs no digits
    size = np.linalg.norm(J, axis=0).clip(min=1e-300)
    information = np.linalg.pinv((J / size).T @ (J / size)) / np.outer(size, size)
    covariance = information * rss / max(n - k, 1) * n / _independent(residual)
    return LawFit(law, parameters, covariance, math.sqrt(rss / n), float(np.abs(residual).max()), rss, n)


def _independent(residual: Array) -> float:
    """Number of independent residuals: n (1 - r) / (1 + r) for a lag-1 autocorrelation r > 0."""
    n = len(residual)
    total = float((residual**2).sum())
    if n < 4 or total == 0:
        return float(n)
    r = min(max(float((residual[1:] * residual[:-1]).sum()) / total, 0.0), 1.0)
    return max(n * (1 - r) / (1 + r), min(4.0, n))


# --- choosing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Window:
    """A window with every law fitted there; `verdict`: "open" (the laws compete), "exponential", or "poor" (none describes
    it)."""

    t: Array
    y: Array
    fits: dict[str, LawFit]
    verdict: Literal["open", "exponential", "poor"]


def _window(t: Array, y: Array, noise: float) -> _Window:
    """The longest window, reaching to the end, that some law describes; else the one described best.

    A law that is an exponential under another name (a polynomial times an exponential, a few modes that have not died out)
    sends the search on to a later window, where the exponential itself describes it and has the rate of the slowest mode.
    """
    highest = int(np.argmax(y))
    decline = float(y[highest] - y[-1])
    chosen: _Window | None = None
    least, exponential = math.inf, False
    for start in _STARTS:
        # where the smallest value so far has fallen by this part of the range
        fallen = np.flatnonzero(y[highest:] <= y[highest] - start * decline)
        first = (highest + int(fallen[0]) if fallen.size else highest) if start else 0
        tt, yy = t[first:], y[first:]
        if len(tt) < _FEWEST_POINTS and chosen is not None:
            break
        fits = {law: fit for law in _LAWS if (fit := _fit_law(law, tt, yy)) is not None}
        allowed = max(_NOISE_FACTOR * noise, _RESIDUAL_SHARE * max(float(yy[0] - yy[-1]), _NO_DECLINE))
        closest = min(fits.values(), key=lambda fit: fit.rss)
        misfit = closest.misfit(allowed)
        if misfit <= 1 and not exponential:
            if not _is_exponential(closest) and not _is_polynomial_exponential(closest, tt, yy):
                return _Window(tt, yy, fits, "open")
            # fits of the exponential itself compete from here on
            exponential, least = closest.law != "none" and "exponential" in fits, math.inf
        if exponential:
            misfit = fits["exponential"].misfit(allowed) if "exponential" in fits else math.inf
        if chosen is None or misfit < least:
            least = misfit
            chosen = _Window(tt, yy, fits, "exponential" if exponential else "open" if misfit <= 1 else "poor")
        if least <= 1:
            break
    assert chosen is not None  # the first window is always examined
    return chosen


def _choose(chosen: _Window, envelope: bool, reaches_end: bool) -> DecayFit:
    t, y, fits = chosen.t, chosen.y, chosen.fits
    window, n = (float(t[0]), float(t[-1])), len(t)
    decline = max(float(fit.log_values(t[0]) - fit.log_values(t[-1])) for fit in fits.values())
    closest = min(fits.values(), key=lambda fit: fit.rss)
    independent = _independent(y - closest.log_values(t))
    least = _ROUNDING_VARIANCE * max(decline, 1.0) ** 2

    def aic(fit: LawFit) -> float:
        return independent * math.log(fit.rss / n + least) + 2 * len(fit.parameters)

    scores = {law: aic(fit) for law, fit in fits.items()}
    lowest = min(scores.values())
    evidence = {law: score - lowest for law, score in scores.items()}

    def result(law: Law, reason: str = "") -> DecayFit:
        return _result(law, fits, evidence, window, n, envelope, reason)

    slope = fits.get("exponential")
    error = math.sqrt(slope.covariance[1, 1]) * (t[-1] - t[0]) if slope is not None else 0.0
    falls = slope is not None and decline >= _NO_DECLINE
    if not falls or (scores["none"] - scores["exponential"] < _DECISIVE and decline + 2 * error < _SHORT_DECLINE):
        if not reaches_end:
            return result("undecided", f"it ends at t = {window[1]:.3g} without decaying before")
        return result("none")
    span = f"[{window[0]:.3g}, {window[1]:.3g}]"
    if chosen.verdict == "exponential":
        # a power law that is one, of at most half the exponent at which it passes for an exponential
        power = _fit_law("power", t, y, _LARGEST_POWER / 2)
        if power is not None and aic(power) - scores["exponential"] < _TELLING:
            return result("undecided", f"exponential and power fit alike on {span}, where it falls by e^-{decline:.2g}")
        return result("exponential")
    if chosen.verdict == "poor":
        return result("undecided", f"no law describes it on {span}")
    best = min(scores, key=lambda law: scores[law])
    if _is_exponential(fits[best]) or scores["exponential"] - scores[best] < _DECISIVE:
        best = "exponential"
    # laws that are an exponential under another name are no rivals to it
    rivals = [law for law in scores if law != best and (law == "exponential" or not _is_exponential(fits[law]))]
    close = [law for law in rivals if scores[law] - scores[best] < _TELLING]
    if close:
        return result("undecided", f"{best} and {' and '.join(close)} fit alike on {span}, where it falls by e^-{decline:.2g}")
    return result(best)  # type: ignore[arg-type]


def _is_polynomial_exponential(fit: LawFit, t: Array, y: Array) -> bool:
    """Whether a compressed exponential (stretched, exponent > 1.3) does not decisively beat log M = log a + k log(1 + t) - r t,
    the shape that layers on top of each other make."""
    if fit.law != "stretched" or fit.parameters[1] < _NEARLY_EXPONENTIAL[1]:
        return False
    columns = np.stack([np.ones_like(t), np.log1p(t), t], -1)
    coefficients, *_ = np.linalg.lstsq(columns, y, rcond=None)
    least = len(t) * _ROUNDING_VARIANCE * max(float(y[0] - y[-1]), 1.0) ** 2
    gain = math.log((float(((y - columns @ coefficients) ** 2).sum()) + least) / (fit.rss + least))
    return gain * _independent(y - fit.log_values(t)) < _DECISIVE


def _is_exponential(fit: LawFit) -> bool:
    """Whether a fit is an exponential as far as data of finite length can tell."""
    if fit.law == "stretched":
        return bool(_NEARLY_EXPONENTIAL[0] <= fit.parameters[1] <= _NEARLY_EXPONENTIAL[1])
    if fit.law == "power":
        return bool(fit.parameters[1] >= _LARGEST_POWER)
    return fit.law == "exponential"


def _result(
    law: Law,
    fits: dict[str, LawFit],
    evidence: dict[str, float],
    window: tuple[float, float],
    points: int,
    envelope: bool,
    reason: str,
) -> DecayFit:
    fit = fits.get(law)
    rate = exponent = scale = None
    stderr = math.nan
    if fit is not None and law != "none":
        stderr = math.sqrt(max(fit.covariance[1, 1], 0.0))
        if law == "exponential":
            rate = float(fit.parameters[1])
        else:
            exponent = float(fit.parameters[1])
            if law == "power":
                scale = math.exp(fit.parameters[2])
            else:
                rate = math.exp(fit.parameters[2])
    amplitude = math.exp(fit.parameters[0]) if fit is not None else math.nan
    residual = fit.residual if fit is not None else min((f.residual for f in fits.values()), default=math.nan)
    return DecayFit(law, amplitude, rate, exponent, scale, stderr, evidence, window, points, envelope, residual, reason, fits)


def _undecided(reason: str, window: tuple[float, float], points: int, envelope: bool) -> DecayFit:
    return _result("undecided", {}, {}, window, points, envelope, reason)
