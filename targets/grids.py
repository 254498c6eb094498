"""Time grids: one check of what a user gives, and whether the samples are evenly spaced."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from targets import arguments

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
    if not isinstance(t, Tensor) or not t.is_floating_point():
        kind = f"a {t.dtype} tensor" if isinstance(t, Tensor) else f"a {type(t).__name__}"
        raise ValueError(f"{name} is {kind}, expected a floating-point tensor; give torch.linspace(0, 10, 101)")
    arguments.real_tensor(name, t, finite=False)  # neither sparse nor without values
    if t.ndim != 1 or len(t) < least:
        many = "" if least == 1 else f" with at least {least} times"
        raise ValueError(f"{name} has shape {tuple(t.shape)}, expected (time,){many}; give one time per sample")
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
    """Times in whatever form, a list, an array or whole numbers too, as a checked tensor (time,); as `times` otherwise."""
    converted = arguments.real_tensor(name, t, finite=False).detach()
    times(converted, name, least)
    return converted


def even_step(t: Tensor) -> float | None:
    """The step of an even grid, or None where the grid is uneven beyond the rounding of its own dtype."""
    values = times(t)
    if len(values) == 1:
        return None
    step = (values[-1] - values[0]) / (len(values) - 1)
    deviation = np.abs(values - (values[0] + step * np.arange(len(values)))).max()
    rounding = torch.finfo(t.dtype).eps * np.abs(values).max()
    return float(step) if deviation <= _EVEN_ROUNDINGS * rounding else None
