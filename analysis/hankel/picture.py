"""The picture over m: floor, ceiling, balanced truncation, fits and trained models."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from targets import arguments

from ..plotting import GREY, PALETTE, label, picture
from .widths import WidthErrors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "osv^D<>"


def draw_width_errors(axes: Axes, errors: WidthErrors, *, title: str | None = None) -> None:
    """Errors over m on logarithmic axes: below the shaded floor no linear model can come.

    Args:
        errors: what `width_errors` gave.
        title: the kernel by default.
    """
    arguments.instance("errors", errors, WidthErrors, "give what width_errors gave")
    m = np.array(errors.widths)
    known = errors.floor > 0
    every = np.concatenate([errors.floor, errors.reached, *errors.fits.values(), *errors.trained.values()])
    every = every[np.isfinite(every) & (every > 0)]
    bottom = every.min(initial=1.0) / 3
    if known.any():
        axes.fill_between(m[known], bottom, errors.floor[known], color=GREY, alpha=0.25, lw=0)
        axes.plot(m[known], errors.floor[known], "-", color=GREY, label=r"floor $\sigma_{m+1}$")
    if np.isfinite(errors.ceiling).any():
        axes.plot(m, errors.ceiling, ":", color=GREY, label=r"ceiling $2\sum_{i>m}\sigma_i$ ($H_\infty$)")
    if np.isfinite(errors.reached).any():
        axes.plot(m, errors.reached, "--", color="black", label="balanced truncation")
    lines = [(f"fit, {name}", values) for name, values in errors.fits.items()]
    lines += list(errors.trained.items())
    for k, (name, values) in enumerate(lines):
        axes.plot(m, values, _MARKERS[k % len(_MARKERS)] + "-", color=PALETTE[k % len(PALETTE)], lw=0.8, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(bottom=bottom)
    axes.set_xticks(m, [str(width) for width in m])
    axes.minorticks_off()
    label(axes, x="width $m$", y=r"$|\rho-\hat\rho|_{L_1}\,/\,|\rho|_{L_1}$", title=title or errors.system)


def plot_width_errors(errors: WidthErrors, path: str | os.PathLike[str], *, title: str | None = None) -> None:
    """A picture of `draw_width_errors`.

    Args:
        errors: what `width_errors` gave.
        path: file to write; its ending gives the format.
        title: the kernel by default.
    """
    arguments.instance("errors", errors, WidthErrors, "give what width_errors gave")
    with picture(path, width=4.5, height=3.4) as (_, (axes,)):
        draw_width_errors(axes, errors, title=title)
        axes.legend(fontsize=7)
