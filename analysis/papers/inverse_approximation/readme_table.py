"""The table in the README of the published code: which parameterisation approximates which memory stably."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odernn.tables import markdown

from ...verdict import FOLLOWS_MEMORY, IGNORES_MEMORY
from ..engine.figure import Claim, Data, Figure, Job, Options
from ..panels.trained_case import (
    EXPONENTIAL,
    POLYNOMIAL,
    Case,
    assemble,
    mixed,
    not_decided,
    own_verdict,
    plot_families,
    settings,
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
    "Exponential reparameterisation (RNN)": ({"recurrence": "symmetric", "parameterization": "exp"}, ("tanh",), _STABLE),
    "Stable reparameterisation (SSM)": (
        {"model": "ssm", "recurrence": "diagonal", "parameterization": "softplus"},
        ("tanh",),
        _STABLE,
    ),
}


_LRU = """it is stable in w alone; what is less stable are its frequencies, which are not parameterised here: see below"""


def _cases(options: Options) -> list[Case]:
    return [
        Case(target, {**family, "activation": activation})
        for family, activations, _ in ROWS.values()
        for activation in (("tanh",) if options.quick else activations)
        for target in TARGETS.values()
    ]


def _jobs(options: Options) -> list[Job]:
    return [job for case in _cases(options) for job in case.jobs(options)]


def _row(entry: dict[str, Any]) -> str:
    family = {key: entry["family"].get(key) for key in ("model", "recurrence", "parameterization")}
    return next(name for name, (mine, *_) in ROWS.items() if all(family[key] == mine.get(key) for key in family))


def _cell(data: Data, row: str, target: str, activation: str | None = None) -> list[tuple[dict[str, Any], Any]]:
    return [
        (entry, own_verdict(entry))
        for entry in data["families"]
        if _row(entry) == row and entry["target"] == TARGETS[target] and activation in (None, entry["family"]["activation"])
    ]


def _claims(data: Data) -> list[Claim]:
    claims = []
    for row, (_, _, published) in ROWS.items():
        for target, expected in zip(TARGETS, published):
            judged = _cell(data, row, target)
            evidence = ", ".join(
                f"{entry['family']['activation']} seed {entry['seed']}: {one.judgement} (κ {one.kappa_text()})"
                for entry, one in judged
            )
            verdicts = [one for _, one in judged]
            held = all(one.judgement == expected for one in verdicts)
            excused = row == "Linear recurrent unit" and target == "polynomial"
            excused = excused and all(verdict_of_rates(entry).judgement == "stable" for entry, _ in judged)
            difference = _LRU if excused else mixed(verdicts) if "symmetric" in str(ROWS[row][0]) else ""
            difference = difference or not_decided(verdicts, expected)
            claims.append(Claim(f"{row}, {target} memory: {expected}", held, evidence, difference))
    return claims


def _table(data: Data) -> str:
    rows = []
    for row, (_, activations, published) in ROWS.items():
        for activation in activations:
            cells = [_summary(_cell(data, row, target, activation)) for target in TARGETS]
            if all(cells):
                rows.append((row, activation, *cells, " / ".join(published)))
    return markdown(("", "activation", "exponential", "polynomial", "published"), rows)


def _summary(judged: Sequence[tuple[dict[str, Any], Any]]) -> str:
    """The judgements of all seeds, with the median kappa."""
    if not judged:
        return ""
    names = [one.judgement for _, one in judged]
    kappas = sorted(one.kappa["recurrent"] for _, one in judged)
    counted = ", ".join(f"{name} {names.count(name)}/{len(names)}" for name in dict.fromkeys(names))
    return f"{counted} (κ {kappas[len(kappas) // 2]:.3g})"


def _plot(data: Data, path: Path) -> None:
    """The tanh family of each row on the polynomial memory."""
    plot_families({row: [entry for entry, _ in _cell(data, row, "polynomial", "tanh")] for row in ROWS}, path)


def _findings(data: Data) -> str:
    lru = [entry for entry, _ in _cell(data, "Linear recurrent unit", "polynomial")]
    whole = ", ".join(own_verdict(entry).kappa_text() for entry in lru)
    ratios = ", ".join(f"{own_verdict(entry).memory_ratio:.2g}" for entry in lru)
    rates = ", ".join(f"{kappa:.3g}" for entry in lru for kappa in verdict_of_rates(entry).kappa.values())
    ssm = [entry for entry, _ in _cell(data, "Stable reparameterisation (SSM)", "polynomial")]
    everything = ", ".join(f"{verdict(entry).kappa['all']:.2g}" for entry in ssm)
    return f"""**LRU on polynomial memory: it is the frequencies, not the eigenvalues' moduli.** The README of the published
code calls LRU unstable, [IA] 3.4 lists its modulus e^(-e^w) among the stable parameterisations. Perturbed in w alone, its κ
is {rates}: as stable as any. Perturbed with the frequencies it is {whole}; the radius is then {ratios} times the slowest rate
seen, which says nothing between {FOLLOWS_MEMORY:g} and {IGNORES_MEMORY:g}: a slow mode e^(-λt) turned into
e^(-λt) cos(βt) is lost as soon as β reaches λ, and a slow tail needs λ about 1/T. LRUs that are less accurate need not have
such modes yet, so that the verdict depends on how well a run was trained. That is so because the frequencies are raw weights
here, as they are in S4D. The codes of LRU parameterise them, too, as θ = e^(θ_log), which keeps a slow mode's frequency where
it is; such LRUs (recurrence `lru`) are not among these families. No eigenvalue leaves the stable region in either.

"Stable" here is said of the recurrent block alone. [IA] Def 3.4 perturbs W, U, b and c together, and then no parameterisation
of the eigenvalues makes the approximation of (1+t)^-1.1 stable: it protects neither U nor c.

State-space models with a saturating readout are judged by their recurrent block. With *all* blocks perturbed even the stable
reparameterisation has κ = {everything}: cᵀ tanh(h) is linear in a slow mode only if U is as small as its rate, so that a
perturbation of U does harm from about 1/T on."""


README_TABLE = Figure(
    name="readme-table",
    title="Which parameterisation approximates which memory stably",
    source="README of the published code",
    published="""Diagonal RNN, vanilla RNN, SSM and LRU: stable on exponential, unstable on polynomial memory; stable
reparameterisation: stable on both. Linear, hardtanh and tanh; m = 8, 16, 32, 64; T = 100.""",
    settings=f"""{settings()} κ = r T of the recurrent block, median of the seeds. The vanilla RNN is W = Pᵀ diag(λ) P; LRU is
complex diagonal with modulus e^(-e^w) and input scaled by sqrt(1 - |λ|²).""",
    jobs=_jobs,
    assemble=assemble,
    claims=_claims,
    plot=_plot,
    table=_table,
    rows=table_rows,
    findings=_findings,
)
