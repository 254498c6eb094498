"""The radius over all blocks of linear models, by ascent and by the closed form of `analysis.linear.all_blocks`.

`python -m tests.campaigns all_blocks` prints the tables of docs/all_blocks.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis import fit_kernel, kernel_distance, perturbation_error
from analysis.linear.all_blocks import ReadoutBounds, readout_bounds
from analysis.linear.fits import laplace_sum
from analysis.linear.theory import KernelL1
from analysis.perturbation import PerturbationCurve
from odernn.models import ContinuousRNN
from targets import Kernel, kernels

from .campaign import Outcomes

POWERS = (1.1, 1.5, 2.5)
FIRST, LONGER, WIDTH = 250.0, 4, 12
PARAMETERIZATIONS = ("direct", "exp", "inverse")
# Of the second table: sums of positive exponentials, on a horizon that holds them all.
MODES, FAR = (4, 16, 64, 256), 1e5
# Between two betas a radius is interpolated.
ACCURACY = 0.02
_SEARCH: dict[str, Any] = {"error": "kernel_l1", "draws": 4, "restarts": 1}


def radius(model: ContinuousRNN, kernel: Kernel, horizon: float, blocks: str | Sequence[str], near: float) -> float:
    """r by ascent: on betas around `near`, then on close ones where it lies."""

    def curve(betas: np.ndarray) -> PerturbationCurve:
        return perturbation_error(model, kernel, None, None, betas, blocks=blocks, horizon=horizon, **_SEARCH)

    low, high = curve(near * np.geomspace(1e-3, 1e4, 22)).radius_bracket()
    return curve(np.geomspace(low, high, 8)).tolerance_radius()


class AllBlocks:
    """Bounds of U and c in closed form against the ascent; the size is the number of horizons, 250 4^k."""

    name, full, short = "all_blocks", 5, 1

    def run(self, seed: int, size: int) -> Outcomes:
        outcomes = Outcomes()
        _print("p", "T", "f", "E(0)/H", "slowest l", "r of U, c: bounds", "r of U, c", "r of all", "r recurrent")
        for p in POWERS:
            kernel = kernels.polynomial(p)
            for horizon in FIRST * LONGER ** np.arange(float(size)):
                for f in PARAMETERIZATIONS:
                    model = fit_kernel(kernel, WIDTH, horizon, f, seed=seed)
                    self._compare(outcomes, model, kernel, horizon, f"{p:g}", f"{horizon:g}", f)
        for p in POWERS[1:]:
            for m in MODES[: size + 1]:
                model = laplace_sum(p, m).model("exp")
                self._compare(outcomes, model, kernels.polynomial(p), FAR, f"{p:g}", f"m = {m}", "exp")
        return outcomes

    def _compare(self, outcomes: Outcomes, model: ContinuousRNN, kernel: Kernel, horizon: float, *what: str) -> None:
        bounds = readout_bounds(model, kernel, horizon)
        found = {blocks: radius(model, kernel, horizon, names, bounds.most) for blocks, names in _BLOCKS.items()}
        size = kernel_distance(model, kernel, horizon).value / _norm(kernel, horizon)
        numbers = [f"{value:.3g}" for value in (size, bounds.slowest_rate)]
        _print(*what, *numbers, f"{bounds.least:.4g} to {bounds.most:.4g}", *(f"{found[blocks]:.3g}" for blocks in _BLOCKS))
        self._count(outcomes, bounds, found, " ".join(what))

    def _count(self, outcomes: Outcomes, bounds: ReadoutBounds, found: dict[str, float], what: str) -> None:
        inside = bounds.least * (1 - ACCURACY) <= found["U and c"] <= bounds.most * (1 + ACCURACY)
        below = found["all"] <= bounds.most * (1 + ACCURACY)
        row = "all amplitudes positive" if bounds.positive else "amplitudes of both signs"
        outcomes.count(row, "within the bounds" if inside and below else "outside", None if inside and below else what)


_BLOCKS: dict[str, Any] = {"U and c": ["U", "c"], "all": "all", "recurrent": "recurrent"}


def _norm(kernel: Kernel, horizon: float) -> float:
    """|rho|_1 on [0, T]."""
    return KernelL1.build(kernel, horizon).scale


def _print(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


CAMPAIGNS = (AllBlocks(),)
