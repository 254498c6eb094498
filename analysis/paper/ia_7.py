"""[IA] Fig 7: ReLU RNNs without (a) and with (b) a softplus parameterisation."""

from __future__ import annotations

from .figure import Claim, Data, Figure
from .trained_figure import POLYNOMIAL, SETTINGS, Case, assemble, plot, stability_claim, table_rows

_RELU = {"activation": "relu", "recurrence": "orthogonal", "bias": True}


def _figure(letter: str, parameterization: str, expected: str, formula: str) -> Figure:
    def claims(data: Data) -> list[Claim]:
        return [stability_claim(data, expected)]

    return Figure(
        name=f"ia-7{letter}",
        title=f"ReLU RNNs, {formula}, polynomial memory: {expected}",
        source=f"[IA] Fig 7{letter}",
        published=f"ReLU RNNs, m = 8, 16, 32, 64, {formula}: {expected}.",
        settings=f"{SETTINGS} Here they have a bias, ReLU being not odd, and start from h = 0, having no unique rest state. W = "
        f"Pᵀ diag(λ) P with P orthogonal, {formula}.",
        jobs=Case(POLYNOMIAL, {**_RELU, "parameterization": parameterization}).jobs,
        assemble=assemble,
        claims=claims,
        plot=plot,
        rows=table_rows,
    )


IA_7A = _figure("a", "direct", "unstable", "λ = w")
IA_7B = _figure("b", "softplus", "stable", "λ = -log(1 + e^w)")
