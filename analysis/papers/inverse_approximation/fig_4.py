"""[IA] Fig 4: linear RNNs with stable parameterisations on memory that decays like a power."""

from __future__ import annotations

from functools import partial

from ..engine.figure import Claim, Data, Figure
from ..panels.linear_case import PUBLISHED, SETTINGS, Case, improvement_claim, plot, stability_claim, table_rows


def _claims(case: Case, data: Data) -> list[Claim]:
    return [stability_claim(case, data, "stable"), improvement_claim(case, data)]


def _figure(letter: str, parameterization: str, formula: str) -> Figure:
    case = Case("polynomial:exponent=1.1", parameterization)
    return Figure(
        name=f"ia-4{letter}",
        title=f"Linear RNNs with W = {formula}, polynomial memory: stable",
        source=f"[IA] Fig 4{letter}",
        published=f"{PUBLISHED} For ρ = 1/(1+t)^1.1 and the eigenvalues W = {formula}, M being what is perturbed: stable.",
        settings=f"{SETTINGS} Both fits find rates; M is their image under the inverse of {formula}.",
        jobs=case.jobs,
        assemble=case.assemble,
        claims=partial(_claims, case),
        plot=partial(plot, case=case),
        rows=table_rows,
    )


IA_4A = _figure("a", "exp", "-e^M")
IA_4B = _figure("b", "softplus", "-log(1+e^M)")
