"""Control paths x(t): what drives a model between the samples.

Every path here is piecewise linear, with or without jumps: on the k-th interval it runs linearly from start[k] to end[k].
That covers the linear interpolant of samples, the zero-order hold, and the Heaviside, impulse and reversed probes of [IA]
Def 3.1 and App F, and tells solvers where the breakpoints are. A path keeps its samples and its kind, which solvers go by.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from targets import arguments, grids
from targets.functionals import Interpolation

from .short_repr import short_repr

Kind = Literal["constant", "linear", "hold", "jumps"]


@dataclass(frozen=True)
class Path:
    """x(s) on [times[0], times[-1]], in K intervals.

    Args:
        times: breakpoints, (K + 1,), increasing; or (batch, K + 1), those of each sequence.
        kind: 'constant'; 'linear': lines between the samples; 'hold': each sample until the next; 'jumps': a line in each
            interval, and jumps between them.
        samples: 'constant': x, (..., batch, 1, channel); 'linear' and 'hold': x at the breakpoints, (..., batch, K + 1, channel),
            of which 'hold' does not use the last; 'jumps': x at the left ends of the intervals (its limit from the right),
            (..., batch, K, channel).
        ends: 'jumps' only: x at the right ends (its limit from the left), as `samples`.

    Example:
        >>> import torch
        >>> from odernn import Path
        >>> jump = Path(torch.tensor([0.0, 1.0, 2.0]), "jumps", torch.tensor([[[0.0], [5.0]]]), torch.tensor([[[1.0], [5.0]]]))
        >>> jump(torch.tensor(1.0)), jump.continuous
        (tensor([[5.]]), False)
    """

    times: Tensor
    kind: Kind
    samples: Tensor
    ends: Tensor | None = None

    __repr__ = short_repr

    @cached_property
    def start(self) -> Tensor:
        """x at the left end of each interval, (..., batch, K, channel)."""
        if self.kind == "constant":
            return self.samples.expand(*self.samples.shape[:-2], self.times.shape[-1] - 1, -1)
        return self.samples if self.kind == "jumps" else self.samples[..., :-1, :]

    @cached_property
    def end(self) -> Tensor:
        """x at the right end of each interval, (..., batch, K, channel)."""
        if self.kind == "constant":
            return self.start
        if self.ends is not None:
            return self.ends
        return self.samples[..., 1:, :] if self.kind == "linear" else self.samples[..., :-1, :]

    @property
    def continuous(self) -> bool:
        """Whether breakpoints are at most kinks, no jumps."""
        return self.kind in ("constant", "linear")

    @property
    def channels(self) -> int:
        return self.samples.shape[-1]

    @cached_property
    def _times(self) -> list[float]:
        return self.times.tolist()

    def __call__(self, s: Tensor) -> Tensor:
        """x(s) at one time s, (..., batch, channel); at a jump the limit from the right."""
        k = min(max(bisect_right(self._times, s.item()) - 1, 0), len(self._times) - 2)
        fraction = (s - self.times[k]) / (self.times[k + 1] - self.times[k])
        return torch.lerp(self.start[..., k, :], self.end[..., k, :], fraction.to(self.samples.dtype))

    def on(self, times: Tensor) -> Path:
        """The same path with its intervals cut at `times`, (K' + 1,), which must hold every breakpoint between its own ends."""
        if times.shape == self.times.shape and torch.equal(times, self.times):
            return self
        if self.kind == "constant":
            return replace(self, times=times)
        left, right = times[:-1], times[1:]
        k = (torch.searchsorted(self.times, left, right=True) - 1).clamp(0, self.times.numel() - 2)
        if self.kind == "hold":
            return replace(self, times=times, samples=self.samples[..., torch.cat([k, k[-1:]]), :])
        width = self.times[k + 1] - self.times[k]
        start, end = self.start[..., k, :], self.end[..., k, :]

        def at(s: Tensor) -> Tensor:
            return torch.lerp(start, end, ((s - self.times[k]) / width).to(start.dtype).unsqueeze(-1))

        if self.kind == "linear":
            return replace(self, times=times, samples=torch.cat([at(left), at(right)[..., -1:, :]], -2))
        return replace(self, times=times, samples=at(left), ends=at(right))

    def interval(self, k: int) -> Path:
        """The path on its k-th interval alone."""
        ends = torch.cat([self.start[..., k : k + 1, :], self.end[..., k : k + 1, :]], -2)
        return Path(self.times[k : k + 2], "linear", ends)

    def sequences(self, index: Tensor) -> Path:
        """Some of the sequences of a path with times of each, (n,), that agree in theirs."""
        return replace(self.mapped(lambda x: x.index_select(-3, index)), times=self.times[index[0]])

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Path:
        """The path with the tensors of its values changed: cast, or some sequences of a batch."""
        return replace(self, samples=change(self.samples), ends=None if self.ends is None else change(self.ends))


def linear(t: Tensor, x: Tensor) -> Path:
    """The linear interpolant of samples x, (..., batch, time, channel), at times t, (time,) or (batch, time).

    Raises:
        ValueError: t or x are no such tensors.

    Example:
        >>> import torch
        >>> from odernn import linear
        >>> path = linear(torch.tensor([0.0, 1.0]), torch.tensor([[[0.0], [2.0]]]))
        >>> path(torch.tensor(0.25))
        tensor([[0.5000]])
    """
    return Path(_checked(t, x), "linear", x)


def hold(t: Tensor, x: Tensor) -> Path:
    """The zero-order hold: x(s) = x_k on [t_k, t_{k+1}); the last sample has no effect. Arguments t and x as in `linear`.

    Example:
        >>> import torch
        >>> from odernn import hold
        >>> hold(torch.tensor([0.0, 1.0]), torch.tensor([[[3.0], [5.0]]]))(torch.tensor(0.25))
        tensor([[3.]])
    """
    return Path(_checked(t, x), "hold", x)


def interpolate(t: Tensor, x: Tensor, interpolation: Interpolation) -> Path:
    """`linear` or `hold` by name.

    Raises:
        ValueError: an unknown interpolation.
    """
    arguments.choice("interpolation", interpolation, get_args(Interpolation))
    return linear(t, x) if interpolation == "linear" else hold(t, x)


def heaviside(t: Tensor, amplitude: Tensor) -> Path:
    """u^x: x from t[0] on; amplitude x of shape (..., batch, channel).

    Raises:
        ValueError: t or the amplitude are no such tensors.

    Example:
        >>> import torch
        >>> from odernn import heaviside
        >>> heaviside(torch.tensor([0.0, 1.0]), torch.tensor([[2.0]]))(torch.tensor(0.25))
        tensor([[2.]])
    """
    return Path(_checked_probe(t, amplitude), "constant", amplitude.unsqueeze(-2))


def pulse(t: Tensor, amplitude: Tensor, stop: float) -> Path:
    """x from t[0] to `stop`, 0 from there on; amplitude x of shape (..., batch, channel).

    The impulse probe is a short pulse; the reversed probe r^x is a long one, with t = 0 at its end.

    Raises:
        ValueError: t, amplitude or stop are not what they should be.

    Example:
        >>> import torch
        >>> from odernn import pulse
        >>> x = pulse(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([[2.0]]), stop=1.0)
        >>> x(torch.tensor(0.5)), x(torch.tensor(1.5))
        (tensor([[2.]]), tensor([[0.]]))
    """
    t, stop = _checked_probe(t, amplitude), arguments.number("stop", stop)
    edge = torch.as_tensor(stop, dtype=t.dtype, device=t.device)
    times = torch.cat([t, edge.reshape(1)]).unique() if t[0] < edge < t[-1] else t
    on = (times[:-1] < edge).to(amplitude.dtype).unsqueeze(-1)
    return Path(times, "hold", torch.nn.functional.pad(amplitude.unsqueeze(-2) * on, (0, 0, 0, 1)))


def _checked(t: Tensor, x: Tensor) -> Tensor:
    """The times of samples, whole numbers as float64. Whether x is finite is for the model to say: it looks once."""
    t = grids.tensor(t, "t", least=2, per_sequence=True)
    arguments.instance("x", x, Tensor, "convert it (torch.as_tensor)")
    arguments.real_tensor("x", x, finite=False)
    if x.ndim < 3 or x.shape[-2] != t.shape[-1] or not x.shape[-1]:
        raise ValueError(f"x must be a tensor (..., batch, time, channel) with {t.shape[-1]} times, got {tuple(x.shape)}")
    if t.ndim == 2 and t.shape[0] != x.shape[-3]:
        raise ValueError(
            f"t has shape {tuple(t.shape)}, times of {t.shape[0]} sequences, x {tuple(x.shape)} holds {x.shape[-3]}: match them"
        )
    if t.ndim == 2 and arguments.traced():
        raise ValueError(
            "times of each sequence, t (batch, time), are not for torch.compile, torch.export and torch.func: give (time,)"
        )
    return t


def _checked_probe(t: Tensor, amplitude: Tensor) -> Tensor:
    t = grids.tensor(t, "t", least=2)
    arguments.instance("amplitude", amplitude, Tensor, "convert it (torch.as_tensor)")
    arguments.real_tensor("amplitude", amplitude)
    if amplitude.ndim < 2 or not amplitude.shape[-1]:
        raise ValueError(f"amplitude must be a tensor (..., batch, channel), got shape {tuple(amplitude.shape)}")
    return t
