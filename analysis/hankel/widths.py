"""Errors over the width: what any linear model must miss, what one is known to reach, and what fits and trainings make of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from targets import ConvolutionalFunctional, Kernel, arguments

from ..linear.fits import fit_kernel
from ..linear.theory import KernelL1, kernel_distance
from ..perturbation import PerturbationCurve
from ..results import Result
from .reduction import Truncations
from .spectrum import as_system, hankel_spectrum

Array = NDArray[np.float64]


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
    target: Kernel | ConvolutionalFunctional | Callable[[Array], Array],
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
        target: a scalar kernel, a function rho(t), or a functional.
        widths: m; the result has them sorted, each once.
        horizon: T, positive and finite.
        parameterizations: of the diagonal models that `fit_kernel` fits; may be none.
        trained: curves of trained models by name, with `error="kernel_l1"` on the same horizon: their E_m(0).
        seed: of the fits.

    Raises:
        ValueError: no width, a vector kernel, or curves of another error or horizon.

    Source: see `hankel_spectrum` and `balanced_truncation`.
    """
    kernel = as_system(target)
    if not isinstance(kernel, Kernel):
        raise ValueError(f"target is the model {kernel.system}, expected a kernel: give hankel_spectrum a model")
    widths, horizon = arguments.counts("widths", widths), arguments.number("horizon", horizon, above=0)
    widths = tuple(sorted(set(widths)))
    if isinstance(parameterizations, str):
        raise ValueError(f"parameterizations is {parameterizations!r}, expected a list of names; give ({parameterizations!r},)")
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
        every = Truncations.build(kernel)
    except ValueError:  # it has no singular values on [0, inf)
        return ceiling, reached
    for k, m in enumerate(widths):
        ceiling[k] = every.spectrum.ceiling(m)
        try:
            reached[k] = kernel_distance(every.to(m).model(), kernel, horizon).value
        except ValueError:  # no more values, or not stable to rounding
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
