"""[IA] Fig 3: filtering. RNNs as students of random RNNs, and the memory of the teachers that are approximated stably."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...decay import EXPONENTIAL_END
from ...perturbation.picture import draw_perturbation, explain_marks
from ...plotting import PALETTE, label, picture
from ...target_memory import TIME_CONSTANTS
from ...verdict import APPROXIMATED, Verdict
from ..engine.figure import Claim, Data, Figure, Job, Options
from ..panels.teachers import (
    WIDTHS,
    assemble_teachers,
    law_of,
    memory_job,
    memory_of,
    of_target,
    recurrent,
    student_job,
    verdict_on,
)
from ..panels.trained_case import seeds, table_rows

_HORIZON, _AMPLITUDE = 800.0, 0.1
_FAMILY = {"horizon": _HORIZON, "points": 801, "recurrence": "symmetric", "amplitude": _AMPLITUDE}
# The filter lets pass what bears perturbations of so many 1/T. Radii below the other are those that one of 1/T ruins.
_LARGE_RADIUS, _SMALL_RADIUS = 10.0, 1.0
# Part of a memory below which it is gone.
_GONE = 1e-6
# Teachers by what a reader should know of them.
_TEACHERS = {
    "rnn": "fast",
    "slow-rnn": "slow",
    "hardly-decaying-rnn": "hardly decaying",
    "lasting-rnn": "not decaying",
}


def _jobs(options: Options) -> list[Job]:
    jobs = []
    for name in _TEACHERS:
        for seed in seeds(options):
            target = {"teacher": name, "seed": seed}
            jobs += [student_job(target, _FAMILY, seed, options, cost=25.0)]
            jobs += [memory_job(target, _HORIZON, amplitude=_AMPLITUDE)]
    return jobs


def _judged(data: Data) -> list[tuple[dict[str, Any], dict[str, Any], Verdict]]:
    """Of every teacher the target, the memory and the verdict on its students."""
    found = []
    for entry in data["families"]:
        memory = memory_of(data, entry["target"])
        if memory is not None:
            found.append((entry["target"], memory, verdict_on(data, entry)))
    return found


def _passes(verdict: Verdict) -> bool:
    """The filter, which knows nothing of the memory: `analysis.verdict` asks for it before it says stable."""
    return verdict.initial_errors[-1] <= APPROXIMATED and verdict.kappa["recurrent"] >= _LARGE_RADIUS


def _forgets(memory: Mapping[str, Any]) -> bool:
    """Whether a memory ends exponentially, with many time constants on the horizon; where no law is named, whether it is gone."""
    if memory["law"] == "undecided":
        return _left(memory) <= _GONE
    return memory["law"] in EXPONENTIAL_END and memory["rate"] * _HORIZON >= TIME_CONSTANTS


def _left(memory: Mapping[str, Any]) -> float:
    """The part of the largest M that is left from a tenth of the horizon on."""
    values = np.array(memory["values"])
    return float(values[np.array(memory["times"]) >= _HORIZON / 10].max() / values.max())


def _named(target: Mapping[str, Any]) -> str:
    return f"{_TEACHERS[target['teacher']]} {target['seed']}"


def _claims(data: Data) -> list[Claim]:
    judged = _judged(data)
    kept = [one for one in judged if _passes(one[2])]
    left_out = [one for one in judged if not _passes(one[2])]
    fast = [verdict for target, _, verdict in judged if target["teacher"] == "rnn"]
    evidence = "; ".join(
        f"{_named(target)}: {one.blocks['recurrent'].judgement} (E {one.initial_errors[-1]:.2g}, κ = "
        f"{one.radius_bounds['recurrent'][-1]}{one.kappa['recurrent']:.2g}), memory {law_of(memory)}, left {_left(memory):.1g}"
        for target, memory, one in judged
    )
    accurate = [
        one for one in left_out if one[2].initial_errors[-1] <= APPROXIMATED and one[2].kappa["recurrent"] < _SMALL_RADIUS
    ]
    return [
        Claim(
            "The filter lets some teachers pass and holds others back (fails if it does not do both)",
            bool(kept and left_out),
            f"{len(kept)} of {len(judged)} pass: " + ", ".join(_named(target) for target, _, _ in kept),
        ),
        Claim(
            "Every teacher that passes has exponentially decaying memory (fails if the law of one does not end exponentially, "
            f"with {TIME_CONSTANTS:g} time constants on the horizon, or, where none is named, more than {_GONE:g} of it is left "
            "at T/10)",
            all(_forgets(memory) for _, memory, _ in kept),
            evidence,
        ),
        Claim(
            f"Some are held back though the students learn them, by their radius alone (fails if none within {APPROXIMATED:g} "
            f"‖H‖ has a radius below {_SMALL_RADIUS:g}/T)",
            bool(accurate),
            "E_m(0) / ‖H‖ and κ of the widest: "
            + ", ".join(
                f"{_named(target)} {one.initial_errors[-1]:.2g}, {one.radius_bounds['recurrent'][-1]}{one.kappa['recurrent']:.2g}"
                for target, _, one in accurate
            ),
        ),
        Claim(
            f"Students of the fast teachers are accurate at every width (fails if one is beyond {APPROXIMATED:g} ‖H‖)",
            all(max(one.initial_errors) <= APPROXIMATED for one in fast),
            "; ".join(", ".join(f"{value:.2g}" for value in one.initial_errors) for one in fast),
        ),
    ]


def _plot(data: Data, path: Path) -> None:
    judged = _judged(data)
    with picture(path, rows=2, columns=3, width=12.6, height=6.8) as (figure, axes):
        panels = dict(zip(_TEACHERS, (axes[0], axes[1], axes[3], axes[4])))
        for name, panel in panels.items():
            entries = of_target(data, teacher=name)
            judgement = verdict_on(data, entries[0]).blocks["recurrent"].judgement
            spread = [curve for entry in entries for curve in recurrent(entry)]
            draw_perturbation(panel, recurrent(entries[0]), spread=spread, title=f"{_TEACHERS[name]} teacher 0: {judgement}")
        for panel, passes in ((axes[2], True), (axes[5], False)):
            mine = [one for one in judged if _passes(one[2]) == passes]
            for target, memory, _ in mine:
                times, values = np.array(memory["times"]), np.array(memory["values"])
                shown = values > memory["floor"]
                kind = list(_TEACHERS).index(target["teacher"])
                named = _TEACHERS[target["teacher"]]
                first = named not in [line.get_label() for line in panel.get_lines()]
                style = {"color": PALETTE[kind], "lw": 0.5 if named == "not decaying" else 1.2, "label": named if first else "_"}
                panel.semilogy(times[shown], values[shown], **style)
            label(
                panel,
                x="time $t$",
                y=r"memory $M(t)$",
                title=f"{len(mine)} of {len(judged)} teachers {'pass' if passes else 'are held back'}",
            )
            if mine:
                panel.legend()
        explain_marks(figure)


_FINDINGS = f"""Without teachers that forget slowly the filter has nothing to hold back: with the fast ones alone any target would
have passed. It lets pass what is within {APPROXIMATED:g} ‖H‖ and bears perturbations of the recurrent weights of
{_LARGE_RADIUS:g}/T, and asks nothing of the memory. The verdicts of `analysis.verdict` do: "stable" needs an exponential memory
that the horizon holds, so that by them the claim would be true by definition. The slow and the hardly decaying teachers are
learned, and yet do not pass, since perturbations far below 1/T ruin the students. What does not decay and never comes to rest is
not learned at all at these widths. Not to pass is no proof of a slow memory: whether e^(-0.001 t) is approximated stably cannot
be seen on [0, {_HORIZON:g}], which holds less than one of its time constants, and the rule says so ("undecided"). Fast teacher 0
changes its sign twice before it is gone: no law is named, and its verdict is undecided, too."""


IA_3 = Figure(
    name="ia-3",
    title="Filtering: random RNNs that are approximated stably have exponential memory",
    source="[IA] Fig 3",
    published="RNN students of m = 4, 8, 16, 32, 64 units of random RNN teachers of 256 units; left E_m(β), right the memory "
    "functions of the teachers for which the perturbation error stays small: they decay exponentially.",
    settings=f"""Teachers, three seeds of each: dense tanh RNNs of 256 units, fast (the library's random weights, W symmetric with
rates in [0.3, 2]), slow (rates log-uniform in [0.001, 1]) and hardly decaying (in [0.00001, 0.001]), and such of 32 units with
antisymmetric W, whose memory does not decay (ia-11a). Students: tanh RNNs with W = PᵀDP of m = {", ".join(map(str, WIDTHS))},
on [0, {_HORIZON:g}] with Δt = 1, trained from random weights by Levenberg-Marquardt, each from the one before; inputs of standard
deviation {_AMPLITUDE:g}, at which tanh is nearly linear. Worst perturbation of the recurrent weights by ascent, relative L2
error, the filter as below; titles have the verdicts of `analysis.verdict`. The memory is the Heaviside response's at |x| =
{_AMPLITUDE:g} on four times the horizon, by the law that `analysis.fit_decay` names. Lines are seed 0, bands all seeds; claims
are about all.""",
    jobs=_jobs,
    assemble=assemble_teachers,
    claims=_claims,
    plot=_plot,
    rows=table_rows,
    findings=_FINDINGS,
)
