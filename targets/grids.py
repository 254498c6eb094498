"""Time grids: one check of what a user gives, and whether the samples are evenly spaced."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from targets import arguments

# Part of a mean step to which times may be rounded: beyond it, outputs for rough inputs are off by more than some 1e-3.
_TIME_ROUNDING = 1e-2
# A grid counts as even when no sample lies further from t_0 + k dt than this many roundings of the largest
# time: torch.linspace and torch.arange stay within two, so that such a grid is even but for its rounding.
_EVEN_ROUNDINGS = 4


def times(t: Tensor, name: str = "t", least: int = 1, per_sequence: bool = False) -> NDArray[np.float64]:
    """A user's times as a checked float64 array.

    Args:
        t: (time,) floating-point tensor, strictly increasing, possibly uneven.
        name: what the user calls it.
        least: how many times there must be.
        per_sequence: whether times may also be (batch, time), a row for each sequence.

    Returns:
        float64 array in main memory, of the shape of t.

    Raises:
        ValueError: t is no such tensor.
    """
    arguments.floating_tensor(name, t, remedy="give torch.linspace(0, 10, 101)", finite=False)
    _check_shape(t, name, least, per_sequence)
    values = t.detach().cpu().double().numpy()
    if not np.isfinite(values).all():
        bad = _place(name, np.argwhere(~np.isfinite(values))[0])
        raise ValueError(f"{bad} is not finite, expected finite times; remove it")
    steps = np.diff(values)
    if (steps <= 0).any():
        *row, k = np.argwhere(steps <= 0)[0]
        left, right = ((*row, k), (*row, k + 1))
        raise ValueError(
            f"{name} is not increasing ({_place(name, left)} = {values[left]:g}, {_place(name, right)} = {values[right]:g}), "
            "expected strictly increasing times; sort them and drop repetitions"
        )
    return values


def _place(name: str, index: Iterable[int]) -> str:
    return f"{name}[{', '.join(str(int(k)) for k in index)}]"


def tensor(t: Any, name: str = "times", least: int = 1, per_sequence: bool = False) -> Tensor:
    """Times in whatever form as a checked tensor (time,): a floating-point tensor as it is, with its graph; whole numbers, lists
    and arrays in float64, because rounding to the precision of x would lose their differences. Otherwise as `times`."""
    converted = arguments.real_tensor(name, t, finite=False)
    if arguments.traced():
        _check_shape(converted, name, least, per_sequence)
    else:
        times(converted, name, least, per_sequence)
    return converted


def _check_shape(t: Tensor, name: str, least: int, per_sequence: bool) -> None:
    if t.ndim not in ((1, 2) if per_sequence else (1,)) or t.shape[-1] < least or not t.numel():
        many = "" if least == 1 else f" with at least {least} times"
        expected = f"(time,) or (batch, time){many}" if per_sequence else f"(time,){many}"
        raise ValueError(f"{name} has shape {tuple(t.shape)}, expected {expected}; give one time per sample")


def mean_step(t: Tensor) -> float:
    """Mean time between samples, of checked times (time,) or (batch, time), two at least."""
    return span(t, longest=False) / (t.shape[-1] - 1)


def span(t: Tensor, longest: bool = True) -> float:
    """t[-1] - t[0] of checked times; of times (batch, time) that of the longest sequence, or the mean."""
    lengths = t[..., -1] - t[..., 0]
    return float(lengths if t.ndim == 1 else lengths.max() if longest else lengths.mean())


def check_resolution(t: Tensor, name: str = "t") -> None:
    """Refuses checked times, two at least, whose rounding is a large part of their steps. (Not where they may have no values.)

    Raises:
        ValueError: the precision of t is too coarse for its steps.
    """
    if arguments.traced():
        return
    if t.ndim == 2:  # that of the row whose times are known least, relative to its steps
        t = t[(t[:, [0, -1]].abs().amax(-1) / (t[:, -1] - t[:, 0])).argmax()]
    first, last = t[0].item(), t[-1].item()
    rounding, step = torch.finfo(t.dtype).eps * max(abs(first), abs(last)), (last - first) / (t.numel() - 1)
    if rounding > _TIME_ROUNDING * step:
        raise ValueError(
            f"{name} in {t.dtype} is known to {rounding:.1g} around {name} = {last:.9g}, too coarse for steps of {step:.3g}: "
            f"give {name} in float64, or subtract {name}[0] before it is rounded"
        )


def check_inside(t: Tensor, times: Tensor) -> None:
    """Refuses checked times t before or after those of a path. (Not where they may have no values.)

    Raises:
        ValueError: t starts before the path, or ends after it.
    """
    if times.ndim == 2:
        raise ValueError("the path has times of each sequence, (batch, time), at which alone it can be solved: take model(x, t)")
    if t is not times and not arguments.traced() and (t[0] < times[0] or t[-1] > times[-1]):
        domain, asked = (f"[{float(span[0]):.9g}, {float(span[-1]):.9g}]" for span in (times, t))
        raise ValueError(f"the path is defined on {domain}, got t over {asked}: ask for times inside")


def even_step(t: Tensor) -> float | None:
    """The step of an even grid, or None where the grid is uneven beyond the rounding of its own dtype."""
    values = times(t)
    if len(values) == 1:
        return None
    step = (values[-1] - values[0]) / (len(values) - 1)
    deviation = np.abs(values - (values[0] + step * np.arange(len(values)))).max()
    rounding = torch.finfo(t.dtype).eps * np.abs(values).max()
    return float(step) if deviation <= _EVEN_ROUNDINGS * rounding else None
