"""The memory of a target beyond the horizon: its law, its slowest rate, and the time it takes to see them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from targets import ConvolutionalFunctional, Functional, Kernel, TeacherFunctional, arguments
from targets.functionals import StepResponseFunctional

from .memory import memory_function
from .results import Result

Array = NDArray[np.float64]
Law = Literal["exponential", "between", "slower"]

# Horizons up to which a memory is followed: a formula costs nothing, a step response a quadrature, a black box a run.
_FAR_FORMULA, _FAR_RESPONSE, _FAR_RUN = 1e4, 100.0, 4.0
# Parts of the largest value below which a memory counts as gone: a formula is good to rounding at every size, unless it cancels.
_FLOOR_FORMULA, _FLOOR_ROUNDING = 1e-290, 1e-12
# Samples: evenly on [0, T], so that no feature is missed there, and by octaves down to T / 2^20 and beyond T.
_EVEN, _PER_OCTAVE, _OCTAVES_BELOW = 4000, 32, 20
# With log(M(t/2) / M(t)) ~ t^g: g = 1 for exponential memory, beta for e^{-t^beta}, 0 for powers. A formula is followed over
# hundreds of decades, where (1+t)^-3 e^-lt has g = 0.99, and e^{-t^0.9} is told from it; over twelve decades less is.
_EXPONENTIAL_FORMULA, _EXPONENTIAL_FLOOR, _POWER = 0.95, 0.93, 0.25
# Time constants that a horizon must hold: with fewer, the horizon and not the memory limits the modes. And multiples of the time
# that holds all but a thousandth of the memory, which counts for memories that end later than they fall (a pulse).
TIME_CONSTANTS, _SPANS, _SPAN_ERROR = 30.0, 4.0, 1e-3
# A memory whose logarithm falls by less over the last octave has no law yet; one that loses more of its decades between two
# samples ends there. Where it does not end, its law is read up to this part of the times.
_LEAST_FALL, _AT_ONCE, _INSIDE = 0.01, 0.1, 0.8


@dataclass(frozen=True, eq=False, repr=False)
class TargetMemory(Result):
    """M(t) of a target, followed beyond the horizon.

    Args:
        times: (n,), increasing from 0.
        values: M, (n,).
        envelope: max of M from each time on, (n,), not below `floor`.
        floor: the value below which nothing is known.
        law: 'exponential' (or faster), 'slower' (a power of t, or no decay), or 'between': neither is clear from what could be
            followed, or it is a stretched exponential.
        sure: whether 'between' means a law of its own (a formula, followed until it is gone), and not a lack of data.

    Example:
        >>> from analysis import target_memory
        >>> from targets import kernels
        >>> memory = target_memory(kernels.exponential(rate=0.5), horizon=100.0)
        >>> memory.law, round(float(memory.values[0]), 3)
        ('exponential', 1.0)
    """

    times: Array
    values: Array
    envelope: Array
    floor: float
    law: Law
    sure: bool

    def seen(self, horizon: float, error: float) -> float:
        """The time up to which a model with that relative error shows the memory: the part of it between there and the horizon is
        as large as the error; at most the horizon."""
        inside = self.times <= horizon
        t, values = self.times[inside], self.values[inside]
        pieces = np.diff(t) * (values[1:] + values[:-1]) / 2
        left = np.concatenate([pieces[::-1].cumsum()[::-1], [0.0]])
        if not left[0] > 0:
            return horizon
        # The tail is never smaller than its rounding.
        late = np.flatnonzero(left <= error * left[0])
        return float(t[late[0]]) if late.size and t[late[0]] > 0 else float(t[1])

    def rate(self, t: float) -> float:
        """Mean decay rate on [t/2, t]: log(M(t/2) / M(t)) / (t/2)."""
        before, after = np.interp([t / 2, t], self.times, np.log(self.envelope))
        return float(before - after) / (t / 2)

    def slowest_seen(self, horizon: float, error: float) -> float:
        """The slowest rate that a model with that relative error shows: that at the end of what is `seen`, or one over that time
        where nothing decays there."""
        t = self.seen(horizon, error)
        return max(self.rate(t), 1 / t)

    @property
    def slowest_rate(self) -> float | None:
        """l where M ends like e^{-lt}; None where no rate can be told."""
        return self.rate(self.end) if self.law == "exponential" else None

    def needed_horizon(self) -> float | None:
        """The horizon that holds enough time constants 1/l; None where there is no l."""
        if self.slowest_rate is None:
            return None
        return max(TIME_CONSTANTS / self.slowest_rate, _SPANS * self.seen(self.end, _SPAN_ERROR))

    @property
    def end(self) -> float:
        """The time up to which the memory could be followed."""
        return _end(self.times, self.envelope, self.floor)


def target_memory(target: Any, horizon: float, step: float | None = None) -> TargetMemory:
    """The memory of a target, beyond a horizon T: |rho|_1 of a kernel or a convolution, up to 1e4 T; the memory function of the
    Heaviside response of everything else, up to 100 T where it is known in closed form and 4 T where the target must be run.

    Args:
        target: a kernel, a functional, or a function (x, t) -> y.
        horizon: T, positive and finite.
        step: between samples of a target that must be run; T / 800 by default.

    Raises:
        ValueError: a horizon or step that is not positive and finite, or a target that has no memory function.

    Example:
        >>> from analysis import target_memory
        >>> from targets import kernels
        >>> target_memory(kernels.polynomial(exponent=1.1), horizon=100.0).law
        'slower'
    """
    horizon = arguments.number("horizon", horizon, above=0)
    step = None if step is None else arguments.number("step", step, above=0)
    if isinstance(target, ConvolutionalFunctional):
        target = target.kernel
    if isinstance(target, Kernel):
        return _of_formula(target, horizon)
    if not callable(target):
        raise ValueError(f"the target is a {type(target).__name__}, expected a kernel, a functional or a function (x, t) -> y")
    if isinstance(target, StepResponseFunctional):
        times = torch.from_numpy(_grid(horizon, _FAR_RESPONSE))
    else:
        points = round(_FAR_RUN * horizon / step) if step else round(_FAR_RUN * 800)
        times = torch.linspace(0, _FAR_RUN * horizon, points + 1, dtype=torch.float64)
        if not isinstance(target, Functional):
            target = TeacherFunctional(target, pass_times=True)
    M = memory_function(target, times)
    values = M.values.double().numpy()
    return of_samples(times.numpy(), values, float(M.floor.max()))


def of_samples(times: Array, values: Array, floor: float = 0.0) -> TargetMemory:
    """The memory from samples M(t) at increasing times >= 0, below `floor` unknown."""
    times, values = np.asarray(times, np.float64), np.asarray(values, np.float64)
    floor = max(floor, _FLOOR_ROUNDING * float(values.max(initial=0.0)))
    return _described(times, values, floor, _EXPONENTIAL_FLOOR, formula=False)


def _of_formula(kernel: Kernel, horizon: float) -> TargetMemory:
    times = _grid(horizon, _FAR_FORMULA, kernel.breakpoints)
    values = np.abs(kernel.values(times)).sum(-1)
    # A kernel may be infinite at 0, of finite integral.
    values[0] = values[0] if math.isfinite(values[0]) else values[1]
    # Special functions may give up far out.
    unknown = np.flatnonzero(~np.isfinite(values))
    times, values = (part[: unknown[0]] if unknown.size else part for part in (times, values))
    largest = float(values.max(initial=0.0))
    result = _described(times, values, _FLOOR_FORMULA * largest, _EXPONENTIAL_FORMULA, formula=True)
    # It fell, and then stays or drops to 0: a formula whose terms cancel down to their rounding.
    quarter, half, end = np.interp([result.end / 4, result.end / 2, result.end], times, result.envelope)
    stays = half < _FLOOR_ROUNDING * largest and quarter < 2 * half
    drops = end <= result.floor and _last(result.envelope, result.floor) < _FLOOR_ROUNDING * largest
    if stays or drops:
        return _described(times, values, _FLOOR_ROUNDING * largest, _EXPONENTIAL_FLOOR, formula=False)
    return result


def _grid(horizon: float, far: float, breakpoints: tuple[float, ...] = ()) -> Array:
    """Times from 0 to far T."""
    octaves = _OCTAVES_BELOW + math.log2(far)
    logarithmic = horizon * 2.0 ** (np.arange(round(octaves * _PER_OCTAVE) + 1) / _PER_OCTAVE - _OCTAVES_BELOW)
    around = [side for at in breakpoints for side in (at * (1 - 1e-9), at * (1 + 1e-9))]
    return np.unique(np.concatenate([np.linspace(0, horizon, _EVEN + 1), logarithmic, around]))


def _described(times: Array, values: Array, floor: float, exponential: float, formula: bool) -> TargetMemory:
    if not (values.size > 2 and np.isfinite(values).all() and values.max() > 0):
        raise ValueError("the target's memory is 0 or not finite: it has no time scale")
    envelope = np.maximum(np.maximum.accumulate(values[::-1])[::-1], floor)
    end = _end(times, envelope, floor)
    first, middle, last = np.interp([end / 4, end / 2, end], times, np.log(envelope))
    early, late = float(first - middle), float(middle - last)
    law: Law
    if late < _LEAST_FALL:
        law = "slower" if formula else "between"
    else:
        growth = math.log2(late / early) if early > 0 else math.inf
        law = "exponential" if growth >= exponential else "slower" if growth <= _POWER else "between"
    return TargetMemory(times, values, envelope, floor, law, sure=formula and bool(envelope[-1] <= floor))


def _end(times: Array, envelope: Array, floor: float) -> float:
    """The last time at which the memory is known; the first at which it is gone, where it ends at once."""
    gone = np.flatnonzero(envelope <= floor)
    if not (gone.size and gone[0] > 0):
        # The largest value from there on must not rest on the last samples alone: they may be zeros of an oscillation.
        return float(times[-1]) * _INSIDE
    ends_at_once = math.log(_last(envelope, floor) / floor) > _AT_ONCE * math.log(envelope[0] / floor)
    return float(times[gone[0] if ends_at_once else gone[0] - 1])


def _last(envelope: Array, floor: float) -> float:
    """The smallest value that is known."""
    return float(envelope[envelope > floor][-1])
