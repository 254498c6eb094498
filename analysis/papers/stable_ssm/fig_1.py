"""[StableSSM] Fig 1: state-space models with direct, softplus, S4 and 'best' eigenvalues on memory that decays like a power."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engine.figure import Claim, Data, Figure, Job, Options
from ..panels.trained_case import (
    POLYNOMIAL,
    Case,
    assemble,
    brief,
    not_decided,
    plot_families,
    settings,
    stability_claims,
    table_rows,
    verdict,
    verdict_of_rates,
)

# Name in the paper -> family, expected verdict. S4's eigenvalues are -e^w + i omega.
FAMILIES: dict[str, tuple[dict[str, Any], str]] = {
    "direct": ({"model": "ssm", "recurrence": "diagonal"}, "unstable"),
    "softplus": ({"model": "ssm", "recurrence": "diagonal", "parameterization": "softplus"}, "stable"),
    "S4": ({"model": "ssm", "recurrence": "complex", "parameterization": "exp"}, "stable"),
    "best": ({"model": "ssm", "recurrence": "diagonal", "parameterization": "inverse"}, "stable"),
}
_FREQUENCIES = """its frequencies have no parameterisation (as in S4D), and a slow mode is lost once its frequency moves by as
much as its rate; perturbed in the real parts alone it is stable (next claim)"""


def _jobs(options: Options) -> list[Job]:
    cases = [Case(POLYNOMIAL, {**family, "activation": "tanh"}) for family, _ in FAMILIES.values()]
    return [job for case in cases for job in case.jobs(options)]


def _of(data: Data, name: str) -> Sequence[dict[str, Any]]:
    family, _ = FAMILIES[name]
    keys = ("recurrence", "parameterization")
    return [entry for entry in data["families"] if all(entry["family"].get(key) == family.get(key) for key in keys)]


def _claims(data: Data) -> list[Claim]:
    in_rates = [verdict_of_rates(entry) for entry in _of(data, "S4")]
    stable_in_rates = all(one.judgement == "stable" for one in in_rates)
    claims = []
    for name, (_, expected) in FAMILIES.items():
        reason = {"recurrent": _FREQUENCIES} if name == "S4" and stable_in_rates else {}
        claims += stability_claims(_of(data, name), expected, name, reason)
    statement = "S4, perturbed in the real parts of its eigenvalues alone: stable (fails if one seed's verdict is another)"
    return [*claims, Claim(statement, stable_in_rates, "; ".join(map(str, in_rates)), not_decided(in_rates, "stable"))]


def _findings(data: Data) -> str:
    listed = "; ".join(
        f"{name} " + ", ".join(brief(verdict(entry).blocks["all"]) for entry in _of(data, name)) for name in FAMILIES
    )
    return f"""**What is stable here is the recurrent block alone.** [IA] Def 3.4 perturbs every block together, and then it comes
to this, by seed: {listed}. No parameterisation of the eigenvalues protects U and c, and the readout cᵀ tanh(h) is linear in a
slow mode only if U is as small as its rate."""


def _plot(data: Data, path: Path) -> None:
    plot_families({name: _of(data, name) for name in FAMILIES}, path)


STABLE_SSM_1 = Figure(
    name="stable-ssm-1",
    title="State-space models on polynomial memory: which parameterisation is stable",
    source="[StableSSM] Fig 1",
    published="E_m(β) of SSMs with direct, softplus, S4 and best eigenvalues on a linear functional with polynomial memory: "
    "only the direct ones are unstable.",
    settings=f"{settings()} Here the readout is y = cᵀ tanh(h). S4 is complex diagonal with real parts -e^w; best is "
    "-1/(w² + 1/2).",
    jobs=_jobs,
    assemble=assemble,
    claims=_claims,
    plot=_plot,
    rows=table_rows,
    findings=_findings,
)
