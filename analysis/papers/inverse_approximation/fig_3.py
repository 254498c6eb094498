"""[IA] Fig 3: filtering. RNNs as students of random RNNs, and the memory of the teachers that are approximated stably."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...decay import EXPONENTIAL_END
from ...plotting import label, picture, shades
from ...verdict import APPROXIMATED
from ..engine.figure import Claim, Data, Figure, Job, Options
from ..panels.teachers import assemble_teachers, teacher_jobs
from ..panels.trained_case import draw_protocols, protocols, table_rows
from ..panels.trained_case import verdict as own_verdict

# Far beyond the teachers' time scale, a few units.
HORIZON, POINTS = 800.0, 801
_WIDTHS = (4, 8, 16, 32, 64)
_MEMORY = {"horizon": 40.0, "points": 401}


def _jobs(options: Options) -> list[Job]:
    return teacher_jobs("rnn", {"horizon": HORIZON, "points": POINTS}, _WIDTHS, _MEMORY, options)


def _claims(data: Data) -> list[Claim]:
    judged = [(entry["target"]["seed"], own_verdict(entry)) for entry in data["families"]]
    laws = {memory["target"]["seed"]: memory for memory in data["memories"]}
    survivors = [seed for seed, verdict in judged if verdict.judgement == "stable"]
    evidence = "; ".join(
        f"teacher {seed}: {verdict.judgement} (κ = {verdict.kappa_text()}), memory {laws[seed]['law']}"
        + (f" with rate {laws[seed]['rate']:.3g}" if laws[seed]["rate"] is not None else "")
        for seed, verdict in judged
    )
    return [
        Claim("Some teachers are approximated stably", bool(survivors), evidence),
        Claim(
            "Every teacher that is approximated stably has exponentially decaying memory",
            all(laws[seed]["law"] in EXPONENTIAL_END for seed in survivors),
            evidence,
        ),
        Claim(
            f"Students of every width are within {APPROXIMATED:g} ‖H‖",
            all(max(verdict.initial_errors) <= APPROXIMATED for _, verdict in judged),
            "; ".join(
                f"teacher {seed}: E_m(0) / ‖H‖ = " + ", ".join(f"{value:.2g}" for value in verdict.initial_errors)
                for seed, verdict in judged
            ),
        ),
    ]


def _plot(data: Data, path: Path) -> None:
    first = data["families"][:1]
    columns = len(protocols(*first)) + 1
    with picture(path, columns=columns, width=4.2 * columns, height=3.3) as (_, (*left, right)):
        draw_protocols(left, first, f"students of teacher {first[0]['target']['seed']}")
        survivors = {one["target"]["seed"] for one in data["families"] if own_verdict(one).judgement == "stable"}
        kept = [memory for memory in data["memories"] if memory["target"]["seed"] in survivors]
        for memory, colour in zip(kept, shades(max(1, len(kept)))):
            values = np.asarray(memory["values"])
            right.semilogy(memory["times"], values, color=colour, label=f"teacher {memory['target']['seed']}: {memory['law']}")
        label(right, x="time $t$", y=r"memory $M(t)$", title="teachers that are approximated stably")
        if kept:
            right.legend()


IA_3 = Figure(
    name="ia-3",
    title="Filtering: random RNNs that are approximated stably have exponential memory",
    source="[IA] Fig 3",
    published="RNN students of m = 4, 8, 16, 32, 64 units of random RNN teachers of 256 units; left E_m(β), right the memory "
    "functions of the teachers for which the perturbation error stays small: they decay exponentially.",
    settings=f"""Teachers: dense tanh RNNs of 256 units with the library's random weights, seeds 0 to 2. Students: dense tanh
RNNs of m = 4, 8, 16, 32, 64, on [0, {HORIZON:g}] with {POINTS} samples; trained, perturbed and judged as the families of ia-8.
The memory is the Heaviside response's, by the law that `analysis.fit_decay` names.""",
    jobs=_jobs,
    assemble=assemble_teachers,
    claims=_claims,
    plot=_plot,
    rows=table_rows,
)
