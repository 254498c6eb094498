"""The picture over m: what any linear model must miss, what one is known to reach, and what fits and trainings make of it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from targets import ConvolutionalFunctional, Kernel, arguments

from ..linear.fits import fit_kernel
from ..linear.theory import KernelL1, kernel_distance
from ..perturbation import PerturbationCurve
from ..plotting import GREY, PALETTE, label, picture
from ..results import Result
from .reduction import balanced_truncation
from .spectrum import hankel_spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_MARKERS = "osv^D<>"


@dataclass(frozen=True, eq=False, repr=False)
class WidthErrors(Result):
    """Errors over the width, relative to |rho|_L1 on [0, T].

    Args:
        widths: m, (n,).
        horizon: T.
        scale: |rho|_L1 on [0, T], by which all errors were divided.
        floor: sigma_{m+1} on [0, T], (n,): below every L1 error; 0 where it is not resolved.
        ceiling: 2 sum_{i > m} sigma_i on [0, inf), (n,): of the H-infinity error; nan where it is not known.
        reached: L1 error on [0, T] of the balanced truncation, (n,); nan where there is none.
        fits: of `fit_kernel`, by parameterisation, (n,) each.
        trained: E_m(0) of trained models by name, (n,) each; nan for widths without one.
        system: the kernel.
    """

    widths: tuple[int, ...]
    horizon: float
    scale: float
    floor: Array
    ceiling: Array
    reached: Array
    fits: Mapping[str, Array]
    trained: Mapping[str, Array]
    system: str


def width_errors(
    target: Kernel | ConvolutionalFunctional,
    widths: Sequence[int],
    horizon: float,
    parameterizations: Sequence[str] = ("direct",),
    trained: Mapping[str, Sequence[PerturbationCurve]] | None = None,
    *,
    seed: int = 0,
) -> WidthErrors:
    """How much of the error is the width's, and how much the fit's or the training's:

        errors = width_errors(kernels.polynomial(1.5), (2, 4, 8, 16), horizon=1000.0)
        plot_width_errors(errors, "widths.png")

    Args:
        target: a scalar kernel, or its functional.
        widths: m, increasing.
        horizon: T, positive and finite.
        parameterizations: of the diagonal models that `fit_kernel` fits; may be none.
        trained: curves of trained models by name, with `error="kernel_l1"` on the same horizon: their E_m(0).
        seed: of the fits.

    Raises:
        ValueError: no width, a vector kernel, or curves of another error or horizon.

    Source: see `hankel_spectrum` and `balanced_truncation`.
    """
    kernel = target.kernel if isinstance(target, ConvolutionalFunctional) else target
    arguments.instance("target", kernel, Kernel, "wrap a function in kernels.from_callable")
    widths, horizon = arguments.counts("widths", widths), arguments.number("horizon", horizon, above=0)
    if not widths:
        raise ValueError("widths are (), expected at least one; give for example (2, 4, 8)")
    scale = KernelL1.build(kernel, horizon).scale
    spectrum = hankel_spectrum(kernel, horizon)
    ceiling, reached = _truncations(kernel, widths, horizon)

    def fitted(f: str) -> Array:
        models = (fit_kernel(kernel, m, horizon, f, seed=seed) for m in widths)
        return np.array([kernel_distance(model, kernel, horizon).value for model in models]) / scale

    return WidthErrors(
        widths,
        horizon,
        scale,
        np.array([spectrum.floor(m) for m in widths]) / scale,
        ceiling / scale,
        reached / scale,
        {f: fitted(f) for f in parameterizations},
        {name: _initial(curves, widths, horizon, scale) for name, curves in (trained or {}).items()},
        kernel.label,
    )


def _truncations(kernel: Kernel, widths: Sequence[int], horizon: float) -> tuple[Array, Array]:
    """The ceiling and the L1 error of the balanced truncation at each width; nan where there is none."""
    ceiling, reached = np.full(len(widths), math.nan), np.full(len(widths), math.nan)
    try:
        spectrum = hankel_spectrum(kernel)
    except ValueError:  # it has none on [0, inf)
        return ceiling, reached
    for k, m in enumerate(widths):
        ceiling[k] = spectrum.ceiling(m)
        if m > spectrum.values.size:
            continue
        try:
            reached[k] = kernel_distance(balanced_truncation(kernel, m).model(), kernel, horizon).value
        except ValueError:  # not stable to rounding
            continue
    return ceiling, reached


def _initial(curves: Sequence[PerturbationCurve], widths: Sequence[int], horizon: float, scale: float) -> Array:
    found = {}
    for curve in curves:
        arguments.instance("each of the trained", curve, PerturbationCurve, "give curves of perturbation_error")
        if curve.error != "kernel_l1" or curve.horizon != horizon:
            raise ValueError(
                f"a curve has error {curve.error!r} on T = {curve.horizon:g}, expected 'kernel_l1' on {horizon:g}: the floor is "
                "one of L1 distances of kernels on the same horizon"
            )
        found[curve.hidden_size] = curve.initial / scale
    return np.array([found.get(m, math.nan) for m in widths])


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
