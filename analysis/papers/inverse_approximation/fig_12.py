"""[IA] Fig 12: a random transformer, its memory, and why RNNs do not approximate it stably."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from ...plotting import GREY, label, picture, shades
from ...verdict import APPROXIMATED
from ..engine.figure import Claim, Data, Figure, Job, Options, Result
from ..panels.teachers import assemble_teachers, teacher_jobs
from ..panels.trained_case import EXPONENTIAL, WIDTHS, Case, draw_protocols, protocols, table_rows
from ..panels.trained_case import verdict as own_verdict

HORIZON, POINTS = 100.0, 101
_MEMORY = {"horizon": 200.0, "points": 201, "warmup": 20.0}
# The published runs, by time of day, and the widths that the published picture gives them.
PUBLISHED = {8: "130145", 16: "130247", 32: "130348", 64: "130451"}


def published_curves() -> dict[int, tuple[list[float], list[float]]]:
    """Width -> (betas, errors) of the authors' hardtanh diagonal students of a random transformer (their repository)."""
    curves = {}
    for m, time in PUBLISHED.items():
        text = files(__package__).joinpath(f"published/filter_transformer_hardtanh_diagonal_{time}.csv").read_text()
        rows = list(csv.DictReader(text.splitlines()))
        curves[m] = [float(row["perturbation"]) for row in rows], [float(row["perturbation_error"]) for row in rows]
    return curves


def _jobs(options: Options) -> list[Job]:
    family = {"horizon": HORIZON, "points": POINTS, "activation": "hardtanh", "recurrence": "diagonal", "bias": True}
    return teacher_jobs("transformer", family, WIDTHS, _MEMORY, options) + Case(EXPONENTIAL, family).jobs(options)


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    """As `assemble_teachers`, with the students of an exponential memory as "control"."""
    data = assemble_teachers(results)
    return {
        **data,
        "families": [entry for entry in data["families"] if entry["target"] != EXPONENTIAL],
        "control": [entry for entry in data["families"] if entry["target"] == EXPONENTIAL],
    }


def _claims(data: Data) -> list[Claim]:
    judged = [(entry["seed"], own_verdict(entry)) for entry in data["families"]]
    control = [own_verdict(entry) for entry in data["control"]]
    laws = ", ".join(
        f"seed {memory['target']['seed']}: {memory['law']}" + (f" {memory['exponent']:.2f}" if memory["exponent"] else "")
        for memory in data["memories"]
    )
    named = {memory["law"] for memory in data["memories"]} - {"undecided"}
    return [
        Claim(
            f"No stable approximation by RNNs: no width comes within {APPROXIMATED:g} ‖H‖, or the approximation is unstable",
            all(verdict.judgement in ("not approximated", "unstable") for _, verdict in judged),
            "; ".join(f"seed {seed}: {verdict}" for seed, verdict in judged),
        ),
        Claim(
            f"It is not the training: on memory e^-t the same students come within {APPROXIMATED:g} ‖H‖ at every width",
            all(max(verdict.initial_errors) <= APPROXIMATED for verdict in control),
            "largest E_m(0) / ‖H‖ by seed: " + ", ".join(f"{max(verdict.initial_errors):.2g}" for verdict in control),
        ),
        Claim(
            "The transformer's memory decays like a power where its law can be told, and nowhere exponentially",
            named == {"power"},
            f"law and exponent: {laws}",
            "" if named else "the samples tell no teacher's law",
        ),
    ]


def _plot(data: Data, path: Path) -> None:
    first = data["families"][:1]
    rows, columns = (2, 2) if len(protocols(*first)) == 2 else (1, 3)
    with picture(path, rows=rows, columns=columns, width=4.2 * columns, height=3.3 * rows) as (_, (published, *ours, memory)):
        for (m, (betas, errors)), colour in zip(published_curves().items(), shades(len(PUBLISHED))):
            published.loglog(betas[1:], errors[1:], color=colour, label=f"m = {m}")
        label(published, x=r"perturbation $\beta$ of the weights", y="time-weighted MSE", title="published")
        published.legend()
        draw_protocols(ours, first, f"ours, teacher {first[0]['target']['seed']}")
        for one, colour in zip(data["memories"], shades(len(data["memories"]))):
            times, values = np.asarray(one["times"]), np.asarray(one["values"])
            memory.loglog(times[1:], values[1:], color=colour, label=f"teacher {one['target']['seed']}: {one['law']}")
        late = times >= _MEMORY["warmup"]
        memory.loglog(
            times[late], 2 * values[late][0] * (times[late] / times[late][0]) ** -2, "--", color=GREY, label=r"$t^{-2}$"
        )
        label(memory, x="time $t$", y="memory $M(t)$", title="memory of random transformers")
        memory.legend()


def _findings(data: Data) -> str:
    errors = [own_verdict(entry).initial_errors for entry in data["families"]]
    least, most = min(map(min, errors)), max(map(max, errors))
    ends = ", ".join(f"{values[0]:.2g} (m = {m})" for m, (_, values) in published_curves().items())
    return f"""The published curves are of another teacher, whose size is not known, and compare in shape only: their errors at
β = 0 are {ends}. Ours lie between {least:.2g} and {most:.2g} ‖H‖.

Attention with random weights is nearly an average over the past, whose response to a step changes like 1/t² (after
{_MEMORY["warmup"]:g} samples without input here: a step at the very start would be a constant input, to which attention without
positions answers with a constant)."""


IA_12 = Figure(
    name="ia-12",
    title="A random transformer: no exponential memory, no stable approximation by RNNs",
    source="[IA] Fig 12",
    published="Hardtanh diagonal RNN students, m = 8, 16, 32, 64, of a random transformer decoder (one layer, one head, width "
    "16, feed-forward 32): the error of wider students crosses that of narrower ones ever further left.",
    settings=f"""Such transformers without position encoding, seeds 0 to 2, less their answer to 0. Students: hardtanh diagonal
RNNs with bias, m = 8, 16, 32, 64, on [0, {HORIZON:g}] with Δt = 1; trained, perturbed and judged as the families of ia-8.
The control has the same students and the memory e^-t.""",
    jobs=_jobs,
    assemble=_assemble,
    claims=_claims,
    plot=_plot,
    rows=table_rows,
    findings=_findings,
)
