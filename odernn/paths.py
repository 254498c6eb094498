"""Control paths x(t): what drives a model between the samples.

Every path here is piecewise linear, with or without jumps: on the k-th interval it runs linearly from
start[k] to end[k]. That one form covers the linear interpolant of samples, the zero-order hold, and the
Heaviside, impulse and reversed probes of [IA] Def 3.1 and App F, and tells solvers where the breakpoints are.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from targets import arguments, grids

Interpolation = Literal["linear", "hold"]


@dataclass(frozen=True)
class Path:
    """x(s) on [times[0], times[-1]].

    Args:
        times: breakpoints, (K + 1,), increasing.
        start: value at the left end of each interval (its limit from the right), (..., batch, K, channel).
        end: value at the right end of each interval (its limit from the left), same shape.
        continuous: whether end[k] = start[k + 1] throughout, so that breakpoints are kinks and not jumps.
    """

    times: Tensor
    start: Tensor
    end: Tensor
    continuous: bool

    @cached_property
    def _times(self) -> list[float]:
        return self.times.tolist()

    def __call__(self, s: Tensor) -> Tensor:
        """x(s) at one time s, (..., batch, channel); at a jump the limit from the right."""
        k = min(max(bisect_right(self._times, s.item()) - 1, 0), len(self._times) - 2)
        fraction = (s - self.times[k]) / (self.times[k + 1] - self.times[k])
        return torch.lerp(self.start[..., k, :], self.end[..., k, :], fraction.to(self.start.dtype))

    def on(self, times: Tensor) -> Path:
        """The same path with its intervals cut at `times`, (K' + 1,), which must hold every breakpoint between
        its own ends."""
        if times.shape == self.times.shape and torch.equal(times, self.times):
            return self
        left, right = times[:-1], times[1:]
        k = (torch.searchsorted(self.times, left, right=True) - 1).clamp(0, self.times.numel() - 2)
        width = self.times[k + 1] - self.times[k]
        start, end = self.start[..., k, :], self.end[..., k, :]

        def at(s: Tensor) -> Tensor:
            return torch.lerp(start, end, ((s - self.times[k]) / width).to(start.dtype).unsqueeze(-1))

        return Path(times, at(left), at(right), self.continuous)

    @property
    def channels(self) -> int:
        return self.start.shape[-1]


def linear(t: Tensor, x: Tensor) -> Path:
    """The linear interpolant of samples x, (..., batch, time, channel), at times t, (time,).

    Raises:
        ValueError: t or x are no such tensors.
    """
    t = _checked(t, x)
    return Path(t, x[..., :-1, :], x[..., 1:, :], continuous=True)


def hold(t: Tensor, x: Tensor) -> Path:
    """The zero-order hold: x(s) = x_k on [t_k, t_{k+1}); the last sample has no effect. Arguments as in `linear`."""
    t = _checked(t, x)
    return Path(t, x[..., :-1, :], x[..., :-1, :], continuous=False)


def interpolate(t: Tensor, x: Tensor, interpolation: Interpolation) -> Path:
    """`linear` or `hold` by name.

    Raises:
        ValueError: an unknown interpolation.
    """
    arguments.choice("interpolation", interpolation, ("linear", "hold"))
    return linear(t, x) if interpolation == "linear" else hold(t, x)


def heaviside(t: Tensor, amplitude: Tensor) -> Path:
    """u^x: x from t[0] on; amplitude x of shape (..., batch, channel).

    Raises:
        ValueError: t or the amplitude are no such tensors.
    """
    t = _checked_probe(t, amplitude)
    constant = amplitude.unsqueeze(-2).expand(*amplitude.shape[:-1], t.numel() - 1, amplitude.shape[-1])
    return Path(t, constant, constant, continuous=True)


def pulse(t: Tensor, amplitude: Tensor, stop: float) -> Path:
    """x from t[0] to `stop`, 0 from there on; amplitude x of shape (..., batch, channel).

    The impulse probe is a short pulse; the reversed probe r^x is a long one, with t = 0 at its end.

    Raises:
        ValueError: t, amplitude or stop are not what they should be.
    """
    t, stop = _checked_probe(t, amplitude), arguments.number("stop", stop)
    edge = torch.as_tensor(stop, dtype=t.dtype, device=t.device)
    times = torch.cat([t, edge.reshape(1)]).unique() if t[0] < edge < t[-1] else t
    on = (times[:-1] < edge).to(amplitude.dtype).unsqueeze(-1)
    value = amplitude.unsqueeze(-2) * on
    return Path(times, value, value, continuous=False)


def _checked(t: Tensor, x: Tensor) -> Tensor:
    """The times of samples, whole numbers as float64. Whether x is finite is for the model to say: it looks once."""
    t = _checked_times(t)
    arguments.instance("x", x, Tensor, "convert it (torch.as_tensor)")
    arguments.real_tensor("x", x, finite=False)
    if x.ndim < 3 or x.shape[-2] != t.numel() or not x.shape[-1]:
        raise ValueError(f"x must be a tensor (..., batch, time, channel) with {t.numel()} times, got {tuple(x.shape)}")
    return t


def _checked_times(t: Tensor) -> Tensor:
    converted = grids.tensor(t, "t", least=2)
    return t if isinstance(t, Tensor) and t.is_floating_point() else converted  # a tensor as it came, with its graph


def _checked_probe(t: Tensor, amplitude: Tensor) -> Tensor:
    t = _checked_times(t)
    arguments.instance("amplitude", amplitude, Tensor, "convert it (torch.as_tensor)")
    arguments.real_tensor("amplitude", amplitude)
    if amplitude.ndim < 2 or not amplitude.shape[-1]:
        raise ValueError(f"amplitude must be a tensor (..., batch, channel), got shape {tuple(amplitude.shape)}")
    return t
