"""The table in the README of the published code: which parameterisation approximates which memory stably."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odernn.tables import markdown

from ..engine.figure import Claim, Data, Figure, Job, Options
from ..panels.trained_case import (
    BLOCKS,
    EXPONENTIAL,
    POLYNOMIAL,
    Case,
    assemble,
    plot_families,
    rotation,
    settings,
    stability_claim,
    table_rows,
    verdict,
    verdict_of_rates,
)

TARGETS = {"exponential": EXPONENTIAL, "polynomial": POLYNOMIAL}
ACTIVATIONS = ("linear", "hardtanh", "tanh")
# Row -> the family, the activations it is trained with, and what was published for (exponential, polynomial).
_STABLE = ("stable", "stable")
_UNSTABLE = ("stable", "unstable")
ROWS: dict[str, tuple[dict[str, Any], Sequence[str], tuple[str, str]]] = {
    "Diagonal RNN": ({"recurrence": "diagonal"}, ACTIVATIONS, _UNSTABLE),
    "Vanilla RNN": ({"recurrence": "symmetric"}, ACTIVATIONS, _UNSTABLE),
    "Dense RNN (W free)": ({"recurrence": "dense"}, ("hardtanh", "tanh"), _UNSTABLE),
    "State-space model": ({"model": "ssm", "recurrence": "diagonal"}, ("tanh",), _UNSTABLE),
    "Linear recurrent unit": ({"model": "ssm", "recurrence": "complex", "parameterization": "lru"}, ("tanh",), _UNSTABLE),
    "Stable reparameterisation (RNN)": ({"recurrence": "symmetric", "parameterization": "softplus"}, ACTIVATIONS, _STABLE),
    "Stable reparameterisation (diagonal RNN)": (
        {"recurrence": "diagonal", "parameterization": "softplus"},
        ACTIVATIONS,
        _STABLE,
    ),
    "Exponential reparameterisation (RNN)": ({"recurrence": "symmetric", "parameterization": "exp"}, ("tanh",), _STABLE),
    "Stable reparameterisation (SSM)": (
        {"model": "ssm", "recurrence": "diagonal", "parameterization": "softplus"},
        ("tanh",),
        _STABLE,
    ),
}


_LRU = """it is stable in w alone; what is less stable are its frequencies, which are not parameterised here: see below"""
# E_m(0) falls little beyond m = 16, and there are a hundred families.
_WIDTHS = (4, 8, 16)


def _cases(options: Options) -> list[Case]:
    return [
        Case(target, {**family, "activation": activation}, _WIDTHS, stages=(2, *_WIDTHS))
        for family, activations, _ in ROWS.values()
        for activation in (("tanh",) if options.quick else activations)
        for target in TARGETS.values()
    ]


def _jobs(options: Options) -> list[Job]:
    return [job for case in _cases(options) for job in case.jobs(options)]


def _row(entry: dict[str, Any]) -> str:
    family = {key: entry["family"].get(key) for key in ("model", "recurrence", "parameterization")}
    return next(name for name, (mine, *_) in ROWS.items() if all(family[key] == mine.get(key) for key in family))


def _cell(data: Data, row: str, target: str, activation: str | None = None) -> list[dict[str, Any]]:
    return [
        entry
        for entry in data["families"]
        if _row(entry) == row and entry["target"] == TARGETS[target] and activation in (None, entry["family"]["activation"])
    ]


def _claims(data: Data) -> list[Claim]:
    claims = []
    for row, (_, activations, published) in ROWS.items():
        for target, expected in zip(TARGETS, published):
            for block in BLOCKS:
                found = [
                    stability_claim(entries, expected, block, f"{row}, {target} memory", _reason(data, row, target, block))
                    for activation in activations
                    if (entries := _cell(data, row, target, activation))
                ]
                # One claim for all activations, so that the table can be read.
                evidence = "; ".join(f"{name}: {one.evidence.partition('. Seed')[0]}" for name, one in zip(activations, found))
                reasons = dict.fromkeys(one.difference for one in found if not one.held)
                difference = "; ".join(reasons) if all(reasons) else ""
                claims.append(Claim(found[0].statement, all(one.held for one in found), evidence, difference))
    return claims


def _reason(data: Data, row: str, target: str, block: str) -> str:
    """Why a row may come out otherwise in its recurrent weights, where the data show it."""
    if target != "polynomial" or block != "recurrent":
        return ""
    entries = _cell(data, row, target)
    if row == "Linear recurrent unit":
        return _LRU if all(verdict_of_rates(entry).judgement == "stable" for entry in entries) else ""
    turned = ROWS[row][0].get("recurrence") == "symmetric" and "parameterization" in ROWS[row][0]
    return rotation(entries, _cell(data, "Stable reparameterisation (diagonal RNN)", target)) if turned else ""


def _table(data: Data) -> str:
    rows = []
    for row, (_, activations, published) in ROWS.items():
        for activation in activations:
            cells = [_summary(_cell(data, row, target, activation), block) for target in TARGETS for block in BLOCKS]
            if all(cells):
                rows.append((row, activation, *cells, " / ".join(published)))
    heads = [f"{target}, {words}" for target in TARGETS for words in BLOCKS.values()]
    return markdown(("", "activation", *heads, "published"), rows)


def _summary(entries: Sequence[dict[str, Any]], block: str) -> str:
    """The judgements of all seeds, with the median kappa."""
    if not entries:
        return ""
    judged = [verdict(entry).blocks[block] for entry in entries]
    names = [one.judgement for one in judged]
    kappas = sorted(one.kappa for one in judged)
    counted = ", ".join(f"{name} {names.count(name)}/{len(names)}" for name in dict.fromkeys(names))
    return f"{counted} (κ {kappas[len(kappas) // 2]:.3g})"


def _plot(data: Data, path: Path) -> None:
    """The tanh family of each row on the polynomial memory."""
    plot_families({row: _cell(data, row, "polynomial", "tanh") for row in ROWS}, path)


def _findings(data: Data) -> str:
    lru = [verdict(entry).blocks["recurrent"] for entry in _cell(data, "Linear recurrent unit", "polynomial")]
    whole = ", ".join(f"{one.kappa:.3g}" for one in lru)
    ratios = ", ".join(f"{one.memory_ratio:.2g}" for one in lru)
    rates = ", ".join(
        f"{kappa:.3g}"
        for entry in _cell(data, "Linear recurrent unit", "polynomial")
        for kappa in verdict_of_rates(entry).kappa.values()
    )
    return f"""**LRU on polynomial memory: what moves it are its frequencies, not the eigenvalues' moduli.** The README of the
published code calls LRU unstable, [IA] 3.4 lists its modulus e^(-e^w) among the stable parameterisations. Perturbed in w alone,
its κ is {rates}: as stable as any. Perturbed with the frequencies it is {whole}; the radius is then {ratios} times the slowest
rate seen: a slow mode e^(-λt) turned into e^(-λt) cos(βt) is lost as soon as β reaches λ, and a slow tail needs λ about 1/T.
That is so because the frequencies are raw weights here, as they are in S4D. The codes of LRU parameterise them, too, as
θ = e^(θ_log), which keeps a slow mode's frequency where it is; such LRUs (recurrence `lru`) are not among these families. No
eigenvalue leaves the stable region in either.

**All weights.** [IA] Def 3.4 perturbs W, U, b and c together, and then no parameterisation of the eigenvalues makes the
approximation of (1+t)^-1.1 stable: it protects neither U nor c ([all blocks](../docs/all_blocks.md)). State-space models with a
saturating readout have the smallest radii: cᵀ tanh(h) is linear in a slow mode only if U is as small as its rate, so that a
perturbation of U does harm from about 1/T on."""


README_TABLE = Figure(
    name="readme-table",
    title="Which parameterisation approximates which memory stably",
    source="README of the published code",
    published="""Diagonal RNN, vanilla RNN, SSM and LRU: stable on exponential, unstable on polynomial memory; stable
reparameterisation: stable on both. Linear, hardtanh and tanh; m = 8, 16, 32, 64; T = 100.""",
    settings=f"""{settings(_WIDTHS)} κ = r T at the longest horizon, median of the seeds. The vanilla RNN is
W = Pᵀ diag(λ) P; LRU is complex diagonal with modulus e^(-e^w) and input scaled by sqrt(1 - |λ|²).""",
    jobs=_jobs,
    assemble=assemble,
    claims=_claims,
    plot=_plot,
    table=_table,
    rows=table_rows,
    findings=_findings,
)
