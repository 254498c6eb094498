"""Time grids: one check of what a user gives, and whether the samples are evenly spaced."""

from __future__ import annotations

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


def times(t: Tensor, name: str = "t", least: int = 1) -> NDArray[np.float64]:
    """A user's times as a checked float64 array.

    Args:
        t: (time,) floating-point tensor, strictly increasing, possibly uneven.
        name: what the user calls it.
        least: how many times there must be.

    Returns:
        (time,) float64 array in main memory.

    Raises:
        ValueError: t is no such tensor.
    """
    arguments.floating_tensor(name, t, remedy="give torch.linspace(0, 10, 101)", finite=False)
    _check_shape(t, name, least)
    values = t.detach().cpu().double().numpy()
    if not np.isfinite(values).all():
        raise ValueError(f"{name}[{np.argmin(np.isfinite(values))}] is not finite, expected finite times; remove it")
    steps = np.diff(values)
    if (steps <= 0).any():
        k = int(np.argmax(steps <= 0))
        raise ValueError(
            f"{name} is not increasing ({name}[{k}] = {values[k]:g}, {name}[{k + 1}] = {values[k + 1]:g}), "
            "expected strictly increasing times; sort them and drop repetitions"
        )
    return values


def tensor(t: Any, name: str = "times", least: int = 1) -> Tensor:
    """Times in whatever form as a checked tensor (time,): a floating-point tensor as it is, with its graph; whole numbers, lists
    and arrays in float64, because rounding to the precision of x would lose their differences. Otherwise as `times`."""
    converted = arguments.real_tensor(name, t, finite=False)
    if arguments.traced():
        _check_shape(converted, name, least)
    else:
        times(converted, name, least)
    return converted


def _check_shape(t: Tensor, name: str, least: int) -> None:
    if t.ndim != 1 or t.shape[0] < least:
        many = "" if least == 1 else f" with at least {least} times"
        raise ValueError(f"{name} has shape {tuple(t.shape)}, expected (time,){many}; give one time per sample")


def check_resolution(t: Tensor, name: str = "t") -> None:
    """Refuses checked times, two at least, whose rounding is a large part of their steps. (Not where they may have no values.)

    Raises:
        ValueError: the precision of t is too coarse for its steps.
    """
    if arguments.traced():
        return
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
