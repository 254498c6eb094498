"""The picture of perturbation errors: E_m(beta) over widths, as [IA] Fig 1-4 draw it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from targets import arguments

from ..curve_sets import crossing
from ..plotting import GREY, label, picture, shades
from .curve import TOLERANCE, PerturbationCurve

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# beta = 0 stands so far left of the smallest beta, as a factor: a logarithmic axis has no 0.
_ZERO_AT = 0.3
# Errors far above |H| say only that the model is useless: the axis ends here (E / |H|), and arrows show that a curve goes on.
_TOP = 30.0
# A value is shown as one that stands by monotonicity alone if the search fell below it by more than this part.
_LIFTED = 0.01
# Labels of decades keep so far from that of beta = 0, as a part of the axis.
_CLEAR = 0.08
_DECADES_BELOW = 6.0
# Floors are shown down to this part of the smallest error.
_DEPTH_OF_FLOORS = 100.0
# Begins the labels of marks, which the legends of panels leave out.
_MARK = "_mark: "


def draw_perturbation(
    axes: Axes,
    curves: Sequence[PerturbationCurve],
    *,
    spread: Sequence[PerturbationCurve] = (),
    floors: Mapping[int, float] | None = None,
    title: str | None = None,
) -> None:
    """E_m(beta) / |H| on log-log axes, beta = 0 at the left edge, a line for each width from dark to light.

    Marked are the tolerance |H| / 2 with the radius r(m) at which each curve reaches it (dots), crossings of consecutive widths
    (crosses), values that stand by monotonicity alone (rings), where a curve leaves the picture (arrows), and at beta = 0, if it
    was measured, the best linear model of each width (open triangles) and the floor of all linear models (bars);
    `explain_marks` adds their legend to a figure.

    Args:
        curves: of one choice of blocks and one horizon, one for each width.
        spread: the same of several seeds, on the same betas or more: a band from the smallest to the largest.
        floors: by width, a lower bound of E_m(0) / |H| for every linear model (`HankelSpectrum.floor`): a bar at beta = 0. Of
            errors in the L1 distance of kernels.

    Raises:
        ValueError: no curves, or none with a beta > 0.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    if not all(isinstance(curve, PerturbationCurve) for curve in (*_listed("curves", curves), *_listed("spread", spread))):
        raise ValueError("panels hold other things than curves, expected what perturbation_error gave; give lists of these")
    curves = sorted(curves, key=lambda curve: curve.hidden_size)
    positive = [curve.betas[curve.betas > 0] for curve in curves]
    if not positive or not all(part.size for part in positive):
        raise ValueError("nothing to draw: expected curves with at least one beta > 0")
    smallest, largest = min(part[0] for part in positive), max(part[-1] for part in positive)
    zero = _ZERO_AT * smallest
    lowest = [
        value
        for curve in curves
        for value in (curve.relative_initial, curve.relative_linear or 0.0, *curve.relative)
        if 0 < value < np.inf
    ]
    smallest_error, floors = min(lowest, default=TOLERANCE), floors or {}
    under = min((floor for floor in floors.values() if floor > 0), default=np.inf)
    smallest_error = min(smallest_error, max(under, smallest_error / _DEPTH_OF_FLOORS))
    bottom = max(smallest_error, 10**-_DECADES_BELOW) / 2
    axes.axhline(TOLERANCE, color=GREY, lw=0.8, ls="--", zorder=1)
    axes.text(largest * 1.3, TOLERANCE * 1.1, r"$\frac{1}{2}|H|$", ha="right", va="bottom", color=GREY, fontsize=8)
    for curve, colour in zip(curves, shades(len(curves))):
        betas = np.concatenate([[zero], curve.betas[curve.betas > 0]])
        values = np.concatenate([[curve.relative_initial], curve.relative[curve.betas > 0]])
        shown = np.where(np.isfinite(values), values, 1e3 * _TOP).clip(bottom, 1e3 * _TOP)
        if band := [one.relative[: curve.betas.size] for one in spread if one.hidden_size == curve.hidden_size]:
            ends = (np.clip(end[curve.betas > 0], bottom, 1e3 * _TOP) for end in (np.min(band, 0), np.max(band, 0)))
            axes.fill_between(betas[1:], *ends, color=colour, alpha=0.12, lw=0, label=_MARK + "band: all seeds")
        axes.plot(betas[1:], shown[1:], color=colour, label=f"m = {curve.hidden_size}")
        axes.plot(betas[:2], shown[:2], ":", color=colour)
        axes.plot(zero, shown[0], "o", color=colour)
        if curve.relative_linear is not None and curve.relative_linear > 0:
            axes.plot(
                zero,
                max(curve.relative_linear, bottom),
                ">",
                mfc="none",
                color=colour,
                ms=7,
                zorder=5,
                label=_MARK + "best linear model",
            )
        if (floor := floors.get(curve.hidden_size, 0.0)) >= bottom:
            axes.plot(zero, floor, "_", color=colour, ms=14, mew=2, zorder=5, label=_MARK + "floor of linear models")
        lifted = (curve.searched < (1 - _LIFTED) * curve.errors)[curve.betas > 0]
        if lifted.any():
            axes.plot(betas[1:][lifted], shown[1:][lifted], "o", mfc="none", color=colour, ms=5, label=_MARK + "by monotonicity")
        radius = curve.tolerance_radius()
        if radius > 0 and not curve.radius_bound():
            axes.plot(
                max(radius, zero), TOLERANCE, "o", color=colour, mec="black", mew=0.6, ms=5, zorder=4, label=_MARK + "radius $r$"
            )
        beyond = np.flatnonzero(shown > _TOP)
        if beyond.size:
            k = beyond[0]
            # Where the line itself leaves the picture.
            fraction = np.log(_TOP / shown[k - 1]) / np.log(shown[k] / shown[k - 1]) if k else 0.0
            left, right = betas[max(k - 1, 0)], betas[k]
            axes.plot(
                left * (right / left) ** fraction,
                _TOP,
                "^",
                color=colour,
                ms=5,
                zorder=4,
                clip_on=False,
                label=_MARK + "goes on above",
            )
    for narrow, wide in zip(curves, curves[1:]):
        if (narrow.betas.shape == wide.betas.shape) and (beta := crossing(narrow, wide)) is not None:
            level = np.interp(np.log(beta), np.log(positive[0]), np.log(wide.relative[wide.betas > 0].clip(bottom, 1e3 * _TOP)))
            axes.plot(beta, np.exp(level), "x", color="black", ms=6, mew=1.2, zorder=5, label=_MARK + "crossing")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(zero / 1.3, largest * 1.5)
    axes.set_ylim(bottom, _TOP)
    decades = np.arange(np.ceil(np.log10(smallest)), np.floor(np.log10(largest)) + 1)
    # Not more labels than fit.
    decades = decades[:: max(1, len(decades) // 5)]
    decades = decades[decades - np.log10(zero) > _CLEAR * np.log10(largest / zero)]
    axes.xaxis.set_major_locator(FixedLocator([zero, *10.0**decades]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "0" if x < smallest else f"$10^{{{round(np.log10(x))}}}$"))
    label(axes, x=r"perturbation $\beta$ of the weights", y=r"$E_m(\beta)\,/\,|H|$", title=title)
    axes.legend(loc="best")


def marks_of(panels: Sequence[Axes]) -> dict[str, Artist]:
    """What `draw_perturbation` marked in these panels, one of each kind, by its name."""
    drawn = [one for axes in panels for one in axes.get_children() if str(one.get_label()).startswith(_MARK)]
    return {str(one.get_label()).removeprefix(_MARK): one for one in reversed(drawn)}


def explain_marks(figure: Figure) -> None:
    """One legend below all panels for what they mark beside the curves: in each it would hide curves."""
    if marks := marks_of(figure.axes):
        figure.legend(marks.values(), marks.keys(), loc="outside lower center", ncols=len(marks))


def _listed(name: str, curves: Sequence[PerturbationCurve]) -> Sequence[PerturbationCurve]:
    if not isinstance(curves, Sequence) or isinstance(curves, str):
        raise ValueError(f"{name} of the panels is a {type(curves).__name__}, expected a list of curves; give [curve]")
    return curves


def plot_perturbation(panels: Mapping[str, Sequence[PerturbationCurve]], path: str | os.PathLike[str]) -> None:
    """A picture with one `draw_perturbation` panel for each entry, title -> curves.

    Args:
        path: file to write; its ending gives the format.

    Raises:
        ValueError: no panels, or one without curves.

    Example:
        >>> from analysis import fit_kernel, perturbation_error, plot_perturbation
        >>> from targets import kernels
        >>> rho = kernels.exponential()
        >>> E = perturbation_error(fit_kernel(rho, 2, horizon=30), rho, None, None, [0, 0.1, 1], error="kernel_l1", horizon=30)
        >>> plot_perturbation({"two units": [E]}, "curve.png")
    """
    arguments.instance("panels", panels, Mapping, "give {title: [curve, ...]}")
    if not panels:
        raise ValueError("nothing to draw: expected at least one panel of curves")
    with picture(path, columns=len(panels)) as (figure, axes):
        for one, (title, curves) in zip(axes, panels.items()):
            draw_perturbation(one, curves, title=title)
        explain_marks(figure)
