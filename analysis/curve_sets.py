"""Sets of perturbation curves: groups of widths at one horizon, and where two curves cross."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from targets import arguments

from .perturbation import PerturbationCurve

Groups = dict[tuple[float, str], dict[int, PerturbationCurve]]


def group(curves: Sequence[PerturbationCurve]) -> Groups:
    """Curves by (horizon, blocks) and width, widths increasing."""
    if not isinstance(curves, Sequence) or not curves:
        came = "no curves" if isinstance(curves, Sequence) else f"a {type(curves).__name__} for curves"
        raise ValueError(f"{came} came, expected a list of perturbation curves of at least two widths")
    for curve in curves:
        arguments.instance("each of curves", curve, PerturbationCurve, "give curves of perturbation_error")
    for name in ("error", "norm"):
        values = sorted({getattr(curve, name) for curve in curves})
        if len(values) > 1:
            raise ValueError(f"curves that are judged together must share their {name}, got {', '.join(values)}")
    groups: Groups = {}
    for curve in sorted(curves, key=lambda curve: curve.hidden_size):
        block = curve.block_choice if curve.block_choice != "named" else "+".join(curve.blocks)
        group = groups.setdefault((curve.horizon, block), {})
        if curve.hidden_size in group:
            raise ValueError(
                f"two curves of width {curve.hidden_size} at T = {curve.horizon:g} ({block}) came: judge one seed at a time"
            )
        group[curve.hidden_size] = curve
    return groups


def only_choice(groups: Groups, horizon: float) -> str:
    """The only choice of blocks at a horizon, where it is neither 'recurrent' nor 'all'; several are refused."""
    names = sorted(block for T, block in groups if horizon == T)
    if len(names) > 1:
        raise ValueError(f"curves of blocks {', '.join(names)} came: judge one choice at a time, or 'recurrent' and 'all'")
    return names[0]


def crossing(narrow: PerturbationCurve, wide: PerturbationCurve) -> float | None:
    """The beta at which the wider model's E_m rises above the narrower one's, log-linear between common betas.

    None where the curves do not cross, or where the wider model is no better at beta = 0.

    Args:
        narrow, wide: curves of two widths, on the same betas.

    Raises:
        ValueError: curves on different betas.

    Example:
        >>> from analysis import crossing, fit_kernel, perturbation_error
        >>> from targets import kernels
        >>> rho = kernels.polynomial(exponent=1.1)
        >>> models = [fit_kernel(rho, m, horizon=30) for m in (2, 4)]
        >>> E = [perturbation_error(model, rho, None, None, [0, 0.1, 1], error="kernel_l1", horizon=30) for model in models]
        >>> beta = crossing(*E)

    Source: the reading of [IA] Fig 1; it tends to 0 with m for stable families too, because E_m(0) does: draw it, do not judge
    by it.
    """
    for name, curve in (("narrow", narrow), ("wide", wide)):
        arguments.instance(name, curve, PerturbationCurve, "give curves of perturbation_error")
    if narrow.betas.shape != wide.betas.shape or not np.allclose(narrow.betas, wide.betas):
        raise ValueError("curves that are compared must share their betas: compute them on the same ones")
    betas = np.concatenate([[0.0], narrow.betas])
    first = np.concatenate([[narrow.initial], narrow.errors])
    second = np.concatenate([[wide.initial], wide.errors])
    if not second[0] < first[0]:
        return None
    above = np.flatnonzero(second > first)
    if above.size == 0:
        return None
    k = int(above[0])
    values = (first[k - 1], first[k], second[k - 1], second[k])
    if betas[k - 1] == 0 or not all(0 < value < math.inf for value in values):
        return float(betas[k])
    before, after = math.log(values[2] / values[0]), math.log(values[3] / values[1])
    fraction = before / (before - after) if before < after else 1.0
    return float(betas[k - 1] * (betas[k] / betas[k - 1]) ** fraction)


def crossings(curves: Sequence[PerturbationCurve]) -> tuple[float | None, ...]:
    """`crossing` of every curve with the next wider one."""
    return tuple(crossing(*on_common_betas(narrow, wide)) for narrow, wide in zip(curves, curves[1:]))


def on_common_betas(*curves: PerturbationCurve) -> list[PerturbationCurve]:
    """The curves on the betas that all of them have: some were given more to enclose their radius."""
    common = reduce(np.intersect1d, [curve.betas for curve in curves])
    kept = [np.isin(curve.betas, common) for curve in curves]
    return [
        replace(curve, betas=curve.betas[keep], errors=curve.errors[keep], searched=curve.searched[keep])
        for curve, keep in zip(curves, kept)
    ]
