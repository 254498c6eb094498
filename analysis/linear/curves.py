"""Perturbation curves of linear models fitted to a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from odernn.models import ContinuousRNN
from targets import Kernel, arguments

from ..beta_grids import enclose_radius
from ..perturbation import PerturbationCurve, perturbation_error
from ..target_memory import target_memory
from ..verdict import LONGER
from .fits import fit_kernel

# Where the linear table of the tests is measured; the next horizons are LONGER times the one before.
_WIDTHS, _HORIZON = (2, 4, 8, 12), 1000.0
# From a tenth of 1/T of the longer horizon to beyond the fastest rate of the table's targets.
_BETAS = np.concatenate([[0.0], np.geomspace(1e-4, 4.0, 16)])
# Enough for linear models: a long search finds a few per cent more at most.
_DRAWS, _RESTARTS = 10, 1


def linear_curves(
    kernel: Kernel,
    parameterization: str,
    *,
    widths: Sequence[int] = _WIDTHS,
    horizon: float = _HORIZON,
    horizons: int = 2,
    seed: int = 0,
) -> list[PerturbationCurve]:
    """Perturbation curves of fitted linear models, for the verdict by two horizons or more:

        judge_stable_approximation(linear_curves(kernels.polynomial(1.5), "softplus"))

    Args:
        kernel: scalar.
        parameterization: of the diagonal models.
        widths: m, increasing.
        horizon: T.
        horizons: how many, T, 4 T, 16 T, ...
        seed: of fits and search.

    Returns:
        Curves of 'all' and of 'recurrent' blocks, at every width on [0, T] and at the largest one on the longer horizons.

    Raises:
        ValueError: no width, or as `fit_kernel`.

    Example:
        >>> from analysis import linear_curves
        >>> from targets import kernels
        >>> curves = linear_curves(kernels.exponential(rate=0.1), "softplus", widths=(1, 2), horizons=1)
        >>> [(curve.hidden_size, curve.block_choice) for curve in curves]
        [(1, 'all'), (1, 'recurrent'), (2, 'all'), (2, 'recurrent')]
    """
    arguments.instance("kernel", kernel, Kernel, "wrap a function in kernels.from_callable")
    widths, horizon = arguments.counts("widths", widths), arguments.number("horizon", horizon, above=0)
    horizons = arguments.count("horizons", horizons)
    if not widths:
        raise ValueError("widths are (), expected at least one; give for example (2, 4, 8)")
    search = {"draws": _DRAWS, "restarts": _RESTARTS}
    spans = [(widths if k == 0 else widths[-1:], horizon * float(LONGER) ** k) for k in range(horizons)]
    return [
        curve
        for some, T in spans
        for curve in fitted_curves(kernel, parameterization, some, T, _BETAS, ("all", "recurrent"), seed, **search)
    ]


def fitted_curves(
    kernel: Kernel,
    parameterization: str,
    widths: Sequence[int],
    horizon: float,
    betas: Sequence[float] | NDArray[np.float64],
    blocks: Sequence[str],
    seed: int,
    *,
    draws: int,
    restarts: int,
) -> list[PerturbationCurve]:
    """Curves of linear models fitted by variable projection, by ascent in the L1 distance of kernels on [0, horizon]: for each
    width one for each of `blocks`. They carry the memory of the kernel."""
    memory = target_memory(kernel, horizon)

    def curve(model: ContinuousRNN, block: str, betas: NDArray[np.float64]) -> PerturbationCurve:
        found = perturbation_error(
            model,
            kernel,
            None,
            None,
            betas,
            error="kernel_l1",
            horizon=horizon,
            blocks=block,
            draws=draws,
            restarts=restarts,
            seed=seed,
        )
        return replace(found, target_memory=memory)

    return [
        enclose_radius(partial(curve, model, block), betas)
        for model in (fit_kernel(kernel, m, horizon, parameterization, seed=seed) for m in widths)
        for block in blocks
    ]
