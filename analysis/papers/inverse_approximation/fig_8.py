"""[IA] Fig 8: softplus RNNs with hardtanh (a) and tanh (b) on memory that decays like a power."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engine.figure import Claim, Data, Figure
from ..panels.trained_case import (
    POLYNOMIAL,
    Case,
    assemble,
    improvement_claims,
    plot_families,
    rotation,
    settings,
    stability_claims,
    table_rows,
)

_WORDS = {"symmetric": "W = PᵀΛP", "diagonal": "W = Λ"}


def _with(data: Data, recurrence: str) -> Sequence[dict[str, Any]]:
    return [entry for entry in data["families"] if entry["family"]["recurrence"] == recurrence]


def _claims(data: Data) -> list[Claim]:
    turned, straight = _with(data, "symmetric"), _with(data, "diagonal")
    return [
        *stability_claims(turned, "stable", _WORDS["symmetric"], {"recurrent": rotation(turned, straight)}),
        *stability_claims(straight, "stable", _WORDS["diagonal"]),
        *improvement_claims(data),
    ]


def _plot(data: Data, path: Path) -> None:
    plot_families({words: _with(data, recurrence) for recurrence, words in _WORDS.items()}, path)


def _figure(letter: str, activation: str) -> Figure:
    family = {"activation": activation, "parameterization": "softplus"}
    cases = [Case(POLYNOMIAL, {**family, "recurrence": recurrence}) for recurrence in _WORDS]
    return Figure(
        name=f"ia-8{letter}",
        title=f"{activation} RNNs with softplus eigenvalues, polynomial memory: stable",
        source=f"[IA] Fig 8{letter}",
        published=f"{activation} RNNs with softplus eigenvalues, m = 8, 16, 32, 64, on ρ = 1/(1+t)^1.1: stable approximation.",
        settings=f"""{settings()} W = PᵀΛP with Λ = diag(-log(1 + e^w)), P orthogonal, as published, and beside it W = Λ, where P
cannot rotate.""",
        jobs=lambda options: [job for case in cases for job in case.jobs(options)],
        assemble=assemble,
        claims=_claims,
        plot=_plot,
        rows=table_rows,
    )


IA_8A = _figure("a", "hardtanh")
IA_8B = _figure("b", "tanh")
