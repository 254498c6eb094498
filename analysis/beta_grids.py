"""Which betas a perturbation curve needs for its tolerance radius."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .perturbation import PerturbationCurve

Array = NDArray[np.float64]

# r T of the smallest beta > 0 and of the largest that a verdict needs: unstable families have an r of about 1/T, and to be called
# stable by one horizon r T must be 20.
_LOWEST, _HIGHEST = 0.1, 40.0
# Betas that are added below the first one where the radius lies there, by this factor each, and rounds of it.
_FACTOR, _ADDED, _ROUNDS = 2.0, 8, 2
_ROUNDING = 1e-9


def spanning(betas: Sequence[float] | Array, horizon: float) -> Array:
    """Geometric betas, continued by their own factor down to 0.1/T and up to 40/T where they end before."""
    grid = np.asarray(betas, dtype=np.float64)
    positive = grid[grid > 0]
    if positive.size < 2:
        return grid
    low, high = positive[1] / positive[0], positive[-1] / positive[-2]
    below = max(0, math.ceil(math.log(positive[0] * horizon / _LOWEST) / math.log(low) - _ROUNDING))
    above = max(0, math.ceil(math.log(_HIGHEST / (positive[-1] * horizon)) / math.log(high) - _ROUNDING))
    more = [positive[0] * low ** -np.arange(below, 0, -1.0), positive, positive[-1] * high ** np.arange(1.0, above + 1)]
    return np.concatenate([grid[grid == 0], *more])


def enclose_radius(curve_on: Callable[[Array], PerturbationCurve], betas: Sequence[float] | Array) -> PerturbationCurve:
    """The curve on these betas, and on smaller ones where its radius lies below the first beta > 0, because E is not known
    between 0 and there.

    Args:
        curve_on: betas -> curve.
        betas: increasing.
    """
    grid = np.asarray(betas, dtype=np.float64)
    curve = curve_on(grid)
    for _ in range(_ROUNDS):
        if curve.radius_bound() != "<":
            break
        positive = grid[grid > 0]
        below = positive[0] * _FACTOR ** -np.arange(_ADDED, 0, -1.0)
        grid = np.concatenate([grid[grid == 0], below, positive])
        curve = curve_on(grid)
    return curve
