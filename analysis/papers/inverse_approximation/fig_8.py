"""[IA] Fig 8: softplus RNNs with hardtanh (a) and tanh (b) on memory that decays like a power."""

from __future__ import annotations

from ..engine.figure import Claim, Data, Figure
from ..panels.trained_case import (
    POLYNOMIAL,
    Case,
    assemble,
    improvement_claim,
    mixed,
    own_verdict,
    plot,
    settings,
    stability_claim,
    table_rows,
)


def _claims(data: Data) -> list[Claim]:
    difference = mixed([own_verdict(entry) for entry in data["families"]])
    return [stability_claim(data["families"], "stable", difference=difference), improvement_claim(data)]


def _figure(letter: str, activation: str) -> Figure:
    family = {"activation": activation, "recurrence": "symmetric", "parameterization": "softplus"}
    return Figure(
        name=f"ia-8{letter}",
        title=f"{activation} RNNs with softplus eigenvalues, polynomial memory: stable",
        source=f"[IA] Fig 8{letter}",
        published=f"{activation} RNNs with softplus eigenvalues, m = 8, 16, 32, 64, on ρ = 1/(1+t)^1.1: stable approximation.",
        settings=f"{settings()} W = Pᵀ diag(-log(1 + e^w)) P, P orthogonal.",
        jobs=Case(POLYNOMIAL, family).jobs,
        assemble=assemble,
        claims=_claims,
        plot=plot,
        rows=table_rows,
    )


IA_8A = _figure("a", "hardtanh")
IA_8B = _figure("b", "tanh")
