"""The picture of a memory around a background: influence over the lag, and the exponent it decays by."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..plotting import BLUE, GREY, label, log_limits, picture
from .background import BackgroundMemory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]


def plot_background(M: BackgroundMemory, path: str | os.PathLike[str], *, title: str | None = None) -> None:
    """The influence over the lag on a logarithmic axis: geometric mean, the mean dotted, the band of the 10 % and 90 % quantiles,
    and dashed the slope of the conditional Lyapunov exponent.

    Args:
        M: what `background_memory`, or `memory_function` with a background, gave.
        path: file to write.
        title: above the picture; None for the system's name.

    Raises:
        ValueError: no such memory, or one of an ensemble.
    """
    if not isinstance(M, BackgroundMemory):
        raise ValueError(f"M is a {type(M).__name__}, expected a BackgroundMemory; give memory_function(..., background=x)")
    with picture(path) as (_, (axes,)):
        draw_background(axes, M)
        axes.set_title(title or M.system)


def draw_background(axes: Axes, M: BackgroundMemory, **style: Any) -> None:
    """What `plot_background` draws, on axes of one's own; `style` is of the geometric mean."""
    if M.influence.ndim != 2:
        raise ValueError(f"M belongs to an ensemble of shape {tuple(M.influence.shape[:-2])}; draw its members M[k] one by one")
    lags, mean, geometric = (_array(values) for values in (M.times, M.mean, M.geometric_mean))
    low, high = map(_array, M.spread)
    (line,) = axes.plot(lags, geometric, **{"color": BLUE, "label": "geometric mean"} | style)
    if M.influence.shape[-2] > 1:
        axes.fill_between(lags, low, high, color=line.get_color(), alpha=0.2, lw=0, label="10 % to 90 % of inputs")
    axes.plot(lags, mean, ":", color=line.get_color(), label="mean")
    if M.exponent is not None:
        rate = float(M.exponent)
        draw_slope(axes, lags, geometric, rate, color=GREY, label=rf"slope of $\lambda_c$ = {rate:.3g}")
    log_limits(axes, [mean, geometric, low], float(M.floor))
    label(axes, x=r"lag $t - s$", y=rf"$|dy_t/dx_s|$ per {M.per}")
    axes.legend()


def draw_slope(axes: Axes, lags: Array, geometric: Array, rate: float, **style: Any) -> None:
    """A dashed line of slope `rate` over the middle half of the lags with a geometric mean, at its level there."""
    shown = np.flatnonzero(np.isfinite(geometric) & (geometric > 0))
    if not np.isfinite(rate) or shown.size < 2:
        return
    middle = shown[shown.size // 4 : -(shown.size // 4) or None]
    level = np.mean(np.log(geometric[middle]) - rate * lags[middle])
    axes.plot(lags[middle], np.exp(level + rate * lags[middle]), "--", **style)


def _array(values: Any) -> Array:
    return np.asarray(values.detach().cpu(), dtype=np.float64)
