"""The samples a law of decay is fitted to: values above the floor, or the maxima of an oscillation, and their noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.signal import find_peaks

from targets import arguments, grids

from ..influence import BackgroundMemory
from ..memory import MemoryFunction
from .laws import LawFit

Array = NDArray[np.float64]

# Without a floor given: a tail that has stopped falling this close to rounding of the largest value is taken for one.
PLATEAU_ROUNDINGS = 1e3
# A dip this deep (factor e) between maxima is an oscillation and not noise: the noise of a curve stays below some 25 %.
_DIP = 1.0
# A ripple is one if its crests stand out by this many standard deviations of the noise.
_RIPPLE_NOISE = 6.0
# The vertex of a parabola through three samples of e^{-r t} cos(w t), a step of phase h = w dt apart, the middle one a phase
# |d| <= h/2 off the crest, is off in height by d^2 (h^2 - d^2) / 8 + q d (h^2 - d^2) / 3 with q = r/w, and in time by so much
# that the line through the crests is q^2 (h^2 - 3 d^2) / 3 off: the scatter of these in units of h^4, q h^3 and q^2 h^2.
_MISS_COSINE, _MISS_DAMPING, _MISS_TIME = 0.0115, 0.082, 0.0745
# Envelopes of fewer maxima say less than the whole curve.
FEWEST_MAXIMA = 5


def checked(M: MemoryFunction | tuple[ArrayLike, ArrayLike], floor: float | None) -> tuple[Array, Array, float, float]:
    """Times >= 0 and values there in double precision, the floor, and the rounding of the values as they came."""
    times: Any
    raw: Any
    if isinstance(M, MemoryFunction):
        times, raw = M.times, M.values
    elif isinstance(M, (tuple, list)) and len(M) == 2:
        times, raw = M
    else:
        average = "; of memory around a background give (M.times, M.geometric_mean)" * isinstance(M, BackgroundMemory)
        raise ValueError(f"M is a {type(M).__name__}, expected a memory function or (times, values){average}")
    t, values = (
        arguments.real_tensor(name, part, finite=False).detach().double().cpu().numpy()
        for name, part in (("times", times), ("values", raw))
    )
    if values.ndim == 2 and isinstance(M, MemoryFunction):
        raise ValueError(f"M is that of an ensemble of {values.shape[0]}: fit one member at a time, M[0]")
    if t.ndim != 1 or t.shape != values.shape or t.size == 0:
        raise ValueError(f"times and values must be (time,) alike, got shapes {t.shape} and {values.shape}")
    grids.times(torch.from_numpy(t), "times")
    if (values < 0).any() or np.isnan(values).any():
        raise ValueError("values hold NaN or negative numbers, expected a memory function M >= 0: take the modulus")
    # an integrable singularity at 0 is no part of the decay
    used = (t >= 0) & ~(np.isinf(values) & (t == t[t >= 0].min(initial=math.inf)))
    if not used.any():
        raise ValueError(f"no finite value at a time t >= 0, where the memory begins: times end at {t[-1]:g}")
    t, values = t[used], values[used]
    if np.isinf(values).any():
        raise ValueError(f"values are infinite from t = {t[np.isinf(values)][0]:g} on: give those before")
    eps = _eps(raw)
    if floor is None:
        floor = float(M.floor) if isinstance(M, MemoryFunction) else _plateau(values, eps)
    return t, values, arguments.number("floor", floor, least=0), eps


def _eps(values: Any) -> float:
    """Rounding of the values as they came: float16 and bfloat16 are coarse."""
    if isinstance(values, torch.Tensor):
        return float(torch.finfo(values.dtype).eps) if values.is_floating_point() else float(np.finfo(np.float64).eps)
    dtype = np.asarray(values).dtype
    return float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps)


def _plateau(values: Array, eps: float) -> float:
    """The level of a tail that has stopped falling within reach of rounding, or 0."""
    tail = values[-max(len(values) // 4, 4) :]
    if len(tail) < 4 or not tail.max() < PLATEAU_ROUNDINGS * eps * values.max():
        return 0.0
    first, second = (np.median(half) for half in np.array_split(tail, 2))
    # an exponential that passes rounding undisturbed still falls; a plateau does not, by more than its scatter
    return float(tail.max()) if second > first / 3 or first == 0 else 0.0


def end_above(values: Array, level: float) -> int:
    """Number of leading values before M has sunk to `level` for good."""
    above = np.flatnonzero(values > level)
    return int(above[-1]) + 1 if above.size else 0


def envelope_of(t: Array, values: Array, level: float) -> tuple[Array, Array, bool, float]:
    """Times and log M to fit: all values above the level, or the maxima between deep dips; and the error of these maxima."""
    positive = values > max(level, 0.0)
    tiny = max(level, float(values[positive].min()) if positive.any() else 1.0) * math.exp(-2 * _DIP)
    log_all = np.log(np.maximum(values, tiny))
    # a maximum at either end of the record has only one flank: it may still rise outside
    maxima, _ = find_peaks(log_all, prominence=_DIP)
    if len(maxima) < FEWEST_MAXIMA:
        return t[positive], np.log(values[positive]), False, 0.0
    times, heights, miss = _vertices(t, log_all, maxima)
    return times, heights, True, miss


def _vertices(t: Array, y: Array, at: NDArray[np.intp]) -> tuple[Array, Array, float]:
    """Vertices of the parabolas through the samples at each maximum and beside it, in the values and not their logarithm: a
    sampled oscillation misses its crests, and how much varies from crest to crest. Third: how far a parabola misses the crest of
    a damped cosine, root mean square."""
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
    times, heights = mid + offset, y[at] + np.log1p(lift)
    # phase between samples, by the curvature; a sampling that steps over a zero shows none
    step = np.arccos(np.clip(1 + curvature * (mid - left) * (right - mid), 0.0, 1.0))
    damping = abs(np.polyfit(np.arange(len(at)), heights, 1)[0]) / math.pi if len(at) > 1 else 0.0
    parts = (_MISS_COSINE * step**4, _MISS_DAMPING * damping * step**3, _MISS_TIME * damping**2 * step**2)
    return times, heights, math.sqrt(sum(float((part**2).mean()) for part in parts))


def fall_of_crests(log_m: Array) -> float:
    """By how much log M falls from the first to the last maximum between deep dips, however few there are; 0 of one or none."""
    maxima, _ = find_peaks(log_m, prominence=_DIP)
    return float(log_m[maxima[0]] - log_m[maxima[-1]]) if len(maxima) else 0.0


def crests_of(t: Array, log_m: Array, closest: LawFit, noise: float) -> NDArray[np.intp]:
    """Maxima of a ripple on the law that comes closest: of an oscillation too shallow for dips."""
    residual = log_m - closest.log_values(t)
    crests, _ = find_peaks(residual, prominence=max(_RIPPLE_NOISE * noise, closest.residual))
    return np.asarray(crests)


def noise_of(t: Array, log_m: Array) -> float:
    """Standard deviation of the noise of log M: from each point's distance to the line between its neighbours."""
    if len(t) < 5:
        return 0.0
    weight = (t[1:-1] - t[:-2]) / (t[2:] - t[:-2])
    deviation = log_m[1:-1] - (1 - weight) * log_m[:-2] - weight * log_m[2:]
    deviation = deviation / np.sqrt(1 + (1 - weight) ** 2 + weight**2)
    # 1.4826: the median absolute deviation of a normal distribution in standard deviations
    return float(1.4826 * np.median(np.abs(deviation)))
