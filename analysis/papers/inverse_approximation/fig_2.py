"""[IA] Fig 2: tanh RNNs on a nonlinear functional whose memory decays like a power."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...curve_sets import crossing
from ...perturbation import PerturbationCurve
from ...verdict import Verdict
from ..engine.figure import Claim, Data, Figure, Job, Options
from ..panels.trained_case import (
    HORIZON,
    Case,
    assemble,
    improvement_claims,
    plot_families,
    settings,
    stability_claims,
    table_rows,
    verdict,
)

_TARGET = {"kernel": "polynomial:exponent=1.5", "nonlinearity": "tanh"}
# tanh is bent by such inputs, but not saturated by slow ones, whose convolution is twice as large.
# With half the steps errors are larger by half.
_LONG = {"amplitude": 0.25, "steps": 300}
# The published models are evaluated on [0, 10].
_PUBLISHED_HORIZON = 10.0
# The published 64 takes hours; radii are smaller than those of other families.
_WIDTHS = (4, 8, 16)
_BETAS = (0.0, *np.geomspace(1e-6, 0.1, 11).tolist())
# r T of radii that the horizon sets.
_OF_ONE = 0.1, 1.0
# Draws, error and radii of the published figure.
_SAMPLED = {"betas": [0.0, *(1e-11 * 2**k for k in range(36))], "draws": 3, "error": "mse"}
_SHORT = {"horizon": _PUBLISHED_HORIZON, "points": 101, "scales": [0.2, 2.0, 20.0], "amplitude": 0.25}


_SHARED = settings(
    _WIDTHS,
    protocol="the largest of 3 draws, the mean square error",
    start="the best linear model of the functional inside the nonlinearity, placed in the linear range of the activation",
)


def _jobs(options: Options) -> list[Job]:
    cases = [
        Case(_TARGET, _LONG, _WIDTHS, (2, *_WIDTHS), _SAMPLED, quick_sequences=16, betas=_BETAS),
        Case(_TARGET, _SHORT, _WIDTHS, (2, *_WIDTHS), _SAMPLED, betas=_BETAS, longer=False),
    ]
    return [job for case in cases for job in case.jobs(options)]


def _at(data: Data, horizon: float) -> list[dict[str, Any]]:
    return [entry for entry in data["families"] if entry["family"]["horizon"] == horizon]


def _claims(data: Data) -> list[Claim]:
    long = _at(data, HORIZON)
    short = [(entry["seed"], verdict(entry)) for entry in _at(data, _PUBLISHED_HORIZON)]
    return [
        *stability_claims(long, "unstable"),
        *improvement_claims({"families": long}),
        Claim(
            "On the published [0, 10] the radius of the widest model is smaller than that of the narrowest (fails if one "
            "seed's is not)",
            all(one.radii["recurrent"][-1] < one.radii["recurrent"][0] for _, one in short),
            "; ".join(f"seed {seed}: r = " + ", ".join(f"{r:.2g}" for r in one.radii["recurrent"]) for seed, one in short),
            _too_short([one for _, one in short]),
        ),
    ]


def _too_short(judged: Sequence[Verdict]) -> str:
    """Why radii on the short horizon do not fall with m: '' unless all of them, at all widths, are of the order of 1/T."""
    kappas = [radius * one.horizon for one in judged for radius in one.radii["recurrent"]]
    if not _OF_ONE[0] <= min(kappas) <= max(kappas) <= _OF_ONE[1]:
        return ""
    return f"at every width r T lies between {min(kappas):.2g} and {max(kappas):.2g}: the horizon sets the radius, not the width"


def _plot(data: Data, path: Path) -> None:
    plot_families({f"trained on $[0, {horizon:g}]$": _at(data, horizon) for horizon in (_PUBLISHED_HORIZON, HORIZON)}, path)


def _findings(data: Data) -> str:
    if not data["families"][0]["sampled"]:
        return ""
    parts = []
    for horizon in (_PUBLISHED_HORIZON, HORIZON):
        for entry in _at(data, horizon):
            curves = [PerturbationCurve.from_dict(curve) for curve in entry["sampled"]]
            found = [crossing(narrow, wide) for narrow, wide in zip(curves, curves[1:])]
            listed = ", ".join("none" if beta is None else f"{beta:.2g}" for beta in found)
            parts.append(f"T = {horizon:g}, seed {entry['seed']}: {listed}")
    return f"""Consecutive widths cross, under the published protocol, at these β. {"; ".join(parts)}. Three draws scatter, and
where the wider model is no more accurate there is no crossing; the radius of the worst case is the steadier sign of the same."""


IA_2 = Figure(
    name="ia-2",
    title="tanh RNNs on a nonlinear functional of polynomial memory: unstable",
    source="[IA] Fig 2",
    published="tanh RNNs, m = 4, 8, 16, 64, on a nonlinear functional with memory 1/(1+t)^1.5, trained on t = 0.1..3.2 by Adam "
    "at 0.005 (batches of 128, 12,800 sequences, up to 1000 epochs) and evaluated to 10, MSE, the largest of 3 draws at β = 0 "
    "and 1e-11·2^k, k = 0..35: the curves of consecutive widths cross ever further left.",
    settings=f"{_SHARED} The functional is tanh(∫ρ(t-s) x(s) ds), a static nonlinearity, which keeps the memory's law; the "
    "paper does not say which it took. Inputs have a quarter of the amplitude, or slow ones would saturate it. Dense W. Above, "
    "the published horizon, [0, 10] with Δt = 0.1 and inputs of time scales 0.2 to 20, on which models are trained, too (the "
    "published ones to 3.2, by Adam); below, the horizon on which the memory shows.",
    jobs=_jobs,
    assemble=assemble,
    claims=_claims,
    plot=_plot,
    rows=table_rows,
    findings=_findings,
)
