"""Perturbation curves of linear models fitted to a kernel, and the verdicts on a table of targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from odernn.models import ContinuousRNN
from targets import Kernel, kernels

from .beta_grids import enclose_radius
from .linear_fits import fit_kernel
from .perturbation import PerturbationCurve, perturbation_error
from .target_memory import target_memory
from .verdict import LONGER, Verdict, judge_stable_approximation

# Widths and horizon at which the linear verdicts were measured; four times the horizon is the second one.
LINEAR_WIDTHS, LINEAR_HORIZON = (2, 4, 8, 12), 1000.0
LINEAR_PARAMETERIZATIONS = ("direct", "exp", "softplus", "inverse")
# From a tenth of 1/T' of the longer horizon to beyond the fastest rate of the targets.
_LINEAR_BETAS = np.concatenate([[0.0], np.geomspace(1e-4, 4.0, 16)])
# The landscape of linear models is simple: the corners alone come within a few per cent of every longer search.
_LINEAR_SEARCH = {"draws": 10, "restarts": 1}


def linear_curves(
    kernel: Kernel,
    parameterization: str,
    *,
    widths: Sequence[int] = LINEAR_WIDTHS,
    horizon: float = LINEAR_HORIZON,
    betas: NDArray[np.float64] = _LINEAR_BETAS,
    seed: int = 0,
) -> list[PerturbationCurve]:
    """Curves of fitted linear models: both choices of blocks at every width, and the widest refitted at LONGER horizon."""
    every = fitted_curves(kernel, parameterization, widths, horizon, betas, ("all", "recurrent"), seed, **_LINEAR_SEARCH)
    widest = fitted_curves(kernel, parameterization, widths[-1:], LONGER * horizon, betas, ("recurrent",), seed, **_LINEAR_SEARCH)
    return every + widest


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
        search = {"error": "kernel_l1", "horizon": horizon, "blocks": block, "draws": draws, "restarts": restarts, "seed": seed}
        return replace(perturbation_error(model, kernel, None, None, betas, **search), target_memory=memory)  # type: ignore[arg-type]

    return [
        enclose_radius(partial(curve, model, block), betas)
        for model in (fit_kernel(kernel, m, horizon, parameterization, seed=seed) for m in widths)
        for block in blocks
    ]


def linear_targets() -> dict[str, Kernel]:
    """The seven targets on which the cuts of the rule were chosen."""
    return {
        "e^-t": kernels.exponential(),
        "0.9^t": kernels.exponential(base=0.9),
        "t e^-t": kernels.from_callable(_gamma, name="t e^-t", decay="exponential"),
        "(1+t)^-1.1": kernels.polynomial(1.1),
        "(1+t)^-1.5": kernels.polynomial(1.5),
        "(1+0.1t)^-1.1": kernels.polynomial(1.1, 10.0),
        "e^-sqrt t": kernels.from_callable(_stretched, name="e^-sqrt t"),
    }


def _gamma(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return t * np.exp(-t)


def _stretched(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.sqrt(t))


def linear_table(
    targets: Mapping[str, Kernel] | None = None,
    parameterizations: Sequence[str] = LINEAR_PARAMETERIZATIONS,
    seed: int = 0,
) -> dict[tuple[str, str], Verdict]:
    """The verdict on every target by every parameterisation, (target, parameterisation) -> Verdict: linear diagonal
    models, L1 error of the kernels on [0, 1000].

    [CoM] and [IA] Thm 3.9 say what must come out: exponentially decaying memory is stably approximated by all; slower
    memory only by stable parameterisations.
    """
    targets = linear_targets() if targets is None else targets
    return {
        (name, parameterization): judge_stable_approximation(linear_curves(kernel, parameterization, seed=seed))
        for name, kernel in targets.items()
        for parameterization in parameterizations
    }
