"""[IA] Fig 7: ReLU RNNs without (a) and with (b) a softplus parameterisation."""

from __future__ import annotations

from collections.abc import Sequence

from ...perturbation import PerturbationCurve
from ...verdict import LEAST_PART_OF_RATE
from ..engine.figure import Claim, Data, Figure, Job, Result
from ..panels.trained_case import (
    EXPONENTIAL,
    POLYNOMIAL,
    WIDTHS,
    Case,
    assemble,
    own_verdict,
    plot,
    settings,
    stability_claim,
    table_rows,
)

# On longer horizons nothing is approximated.
_HORIZON, _POINTS = 100.0, 101
_RELU = {
    "activation": "relu",
    "recurrence": "symmetric",
    "bias": True,
    "horizon": _HORIZON,
    "points": _POINTS,
    "scales": [2.0, 10.0, 50.0],
    # Many end with units that are silent for all inputs, most of the narrow ones.
    "starts": 5,
}
_SHARED = settings(stages=WIDTHS, horizon=_HORIZON, longest=50.0, bias=True)
_GROWING = """dh/dt = relu(·) is never negative: what decays in y is a difference of states that only grow, which no
parameterisation of the eigenvalues protects"""


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    """As `assemble`, with the same models on an exponential memory as "control"."""
    entries = assemble(results)["families"]
    return {
        "families": [entry for entry in entries if entry["target"] == POLYNOMIAL],
        "control": [entry for entry in entries if entry["target"] == EXPONENTIAL],
    }


def _far_below(data: Data) -> bool:
    """Whether on e^-t the radius is far below the memory's own rate, though the horizon holds a hundred of its time constants."""
    ratios = [own_verdict(entry).memory_ratio for entry in data["control"]]
    return all(ratio is not None and ratio < LEAST_PART_OF_RATE for ratio in ratios)


def _findings(data: Data) -> str:
    kappas = ", ".join(own_verdict(entry).kappa_text() for entry in data["control"])
    text = f"""**What fails here is ReLU in the rate, whatever the memory.** On the memory e^-t, which linear, hardtanh and tanh
models approximate stably (readme-table), these have κ = {kappas}: radii that are a small part of the memory's own rate, on a
horizon that holds a hundred of its time constants. One horizon does not call that unstable, but their verdict on the power law
says nothing of the power law. The reason holds for all of them: dh/dt = relu(·) ≥ 0, so that no entry of h ever falls. What
decays in y is a difference of states that only grow, and a perturbation of any weight upsets it by more the longer it lasts."""
    if not data["families"][0]["sampled"]:
        return text
    widest = [PerturbationCurve.from_dict(entry["sampled"][-1]) for entry in data["families"]]
    radii = ", ".join(f"{curve.tolerance_radius() * curve.horizon:.2g}" for curve in widest)
    return f"""{text}

The published protocol says the same, with another search, norm and error: κ of the widest models on the power law is there at
most {radii}, by seed."""


def _figure(letter: str, parameterization: str, expected: str, formula: str) -> Figure:
    def claims(data: Data) -> list[Claim]:
        stable = any(own_verdict(entry).judgement == "stable" for entry in data["families"] + data["control"])
        growing = _GROWING if not stable and _far_below(data) else ""
        control = stability_claim(data["control"], "stable", "On the memory e^-t the approximation is stable (control)", growing)
        return [stability_claim(data["families"], expected, difference=growing), control]

    family = {**_RELU, "parameterization": parameterization}
    cases = [Case(target, family, stages=WIDTHS, quick_sequences=16) for target in (POLYNOMIAL, EXPONENTIAL)]
    return Figure(
        name=f"ia-7{letter}",
        title=f"ReLU RNNs, {formula}, polynomial memory: {expected}",
        source=f"[IA] Fig 7{letter}",
        published=f"ReLU RNNs, m = 8, 16, 32, 64, {formula}: {expected}.",
        settings=f"{_SHARED} Here they have a bias, ReLU being not odd, and start from h = 0, having no unique rest state. W = "
        f"Pᵀ diag(λ) P with P orthogonal, {formula}.",
        jobs=lambda options: [job for case in cases for job in case.jobs(options)],
        assemble=_assemble,
        claims=claims,
        plot=plot,
        rows=table_rows,
        findings=_findings,
    )


IA_7A = _figure("a", "direct", "unstable", "λ = w")
IA_7B = _figure("b", "softplus", "stable", "λ = -log(1 + e^w)")
