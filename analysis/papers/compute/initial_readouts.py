"""What initial spectra allow: the best readout on each for several kernels, before any training."""

from __future__ import annotations

from typing import Any

from odernn.spectra import spectrum
from targets import kernels as known

from ...linear.best_readout import best_readouts
from ..engine.figure import job


@job("initial-readouts")
def initial_readouts(
    name: str, m: int, horizon: float, kernels: list[str], weight: float, factors: list[float], seeds: list[int]
) -> dict[str, Any]:
    """Best readouts on a named spectrum, as it is initialised and at other speeds.

    Args:
        name: of `odernn.spectra.SPECTRA`.
        m: states.
        horizon: T, of the spectrum and of the fit.
        kernels: as `targets.kernels.load` takes them.
        weight: exponent of 1 + t in the norm.
        factors: by which all eigenvalues are multiplied, too.
        seeds: of a spectrum that is drawn.

    Returns:
        own: [seed][kernel], each {error, uncertainty, error_l1, attained, size}, of the spectrum as it is initialised; tuned:
        [seed][kernel] -> (error, factor) of the best factor, 1 among them.
    """
    targets = [known.load(text) for text in kernels]
    own, tuned = [], []
    kept = ("error", "uncertainty", "error_l1", "attained", "size")
    for seed in seeds:
        initial = spectrum(name, m, horizon, seed=seed)
        found = best_readouts(targets, initial, horizon, weight=weight)
        own.append([{key: getattr(fit, key) for key in kept} for fit in found])
        best = [(fit.error, 1.0) for fit in found]
        for factor in factors:
            others = best_readouts(targets, initial.scaled(factor), horizon, weight=weight)
            best = [min(one, (other.error, factor)) for one, other in zip(best, others)]
        tuned.append([list(one) for one in best])
    return {"own": own, "tuned": tuned}
