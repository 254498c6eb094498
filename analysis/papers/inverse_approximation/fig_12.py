"""[IA] Fig 12: a random transformer, why RNNs do not approximate it, and attention whose memory is one."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ...perturbation.picture import draw_perturbation, explain_marks
from ...plotting import GREY, PALETTE, label, picture, shades
from ...verdict import APPROXIMATED
from ..compute.teacher_memory import teacher_memory, teacher_parts
from ..compute.teachers import EXPONENT, SLOPE, SMALL, WINDOW
from ..engine.figure import Claim, Data, Figure, Job, Options, Result, results_of
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
from ..panels.trained_case import SEEDS, seeds, table_rows

# The published teacher on its own horizon; the others on one that holds many of their time constants.
_SHORT, _HORIZON = 100.0, 800.0
_PUBLISHED_FAMILY = {"horizon": _SHORT, "points": 101, "activation": "hardtanh", "recurrence": "diagonal", "bias": True}
_FAMILY = {"horizon": _HORIZON, "points": 801, "activation": "hardtanh", "recurrence": "diagonal", "amplitude": SMALL}
_FAMILY |= {"scales": [4.0, 30.0, 200.0]}
_WARMUPS = (5, 20, 80, 320)
# Of these the memory falls below what rounding leaves of a difference of outputs of size 1.
_FLOOR = 1e-11
# Attention with a weight of the lag, and kernels of the same memory: name -> target.
_ATTENTION = {
    "exponential": {"teacher": "exponential-transformer"},
    "power": {"teacher": "power-transformer"},
    "windowed": {"teacher": "windowed-transformer"},
}
_CONTROL = {
    "exponential": {"kernel": f"exponential:rate={SLOPE:g}"},
    "power": {"kernel": f"polynomial:exponent={EXPONENT:g}"},
}
# How far a fitted number may be from the one put in, a scale from the warm-up, and a radius from that of the control.
_NEAR, _FACTOR, _ALIKE = 0.05, 2.0, 3.0
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
    # Of all seeds in quick runs too: the samples of seed 0 tell no law.
    jobs = []
    for seed in SEEDS:
        for warmup in _WARMUPS:
            times = {"horizon": 10.0 * warmup, "points": 10 * warmup + 1, "warmup": float(warmup)}
            jobs.append(Job(teacher_memory, {"target": {"teacher": "transformer", "seed": seed}, **times}, cost=0.3))
    for seed in seeds(options):
        published = {"teacher": "transformer", "seed": seed}
        jobs += [student_job(published, _PUBLISHED_FAMILY, seed, options, cost=8.0)]
        jobs += [Job(teacher_parts, {"target": published, "horizon": _SHORT, "points": 101, "seed": seed}, cost=2.0)]
        for target in _ATTENTION.values():
            jobs.append(student_job({**target, "seed": seed}, _FAMILY, seed, options, cost=15.0))
            jobs.append(memory_job({**target, "seed": seed}, _HORIZON, amplitude=SMALL, floor=_FLOOR))
        # Of kernels the best linear model is known: here training starts at random weights, as that of the others must.
        control = {**_FAMILY, "start": "random"}
        jobs += [student_job(target, control, seed, options, cost=10.0) for target in _CONTROL.values()]
    return jobs


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    """As `assemble_teachers`, with the "parts" of the published teachers."""
    return {**assemble_teachers(results), "parts": results_of(teacher_parts, results, "target")}


def _errors(data: Data, entries: Sequence[dict[str, Any]]) -> list[tuple[float, ...]]:
    return [verdict_on(data, entry).initial_errors for entry in entries]


def _scales(data: Data) -> dict[int, dict[int, float]]:
    """Seed -> warm-up -> scale s of the power law (1 + t/s)^-p, where one was named."""
    found: dict[int, dict[int, float]] = {}
    for one in data["memories"]:
        if one["target"]["teacher"] == "transformer" and one["law"] == "power":
            found.setdefault(one["target"]["seed"], {})[int(one["warmup"])] = one["scale"]
    return found


def _claims(data: Data) -> list[Claim]:
    students = of_target(data, teacher="transformer")
    errors = _errors(data, students)
    parts = {one["target"]["seed"]: one for one in data["parts"]}
    scales = _scales(data)
    ratios = [scale / warmup for by_warmup in scales.values() for warmup, scale in by_warmup.items()]
    listed = "; ".join(f"seed {entry['seed']}: " + ", ".join(f"{e:.2g}" for e in found) for entry, found in zip(students, errors))
    shown = "; ".join(
        f"seed {seed}: " + ", ".join(f"{warmup}: {scale:.3g}" for warmup, scale in of.items()) for seed, of in scales.items()
    )
    return [
        Claim(
            f"The published teacher is not approximated (fails if a width comes within {APPROXIMATED:g} ‖H‖)",
            all(min(found) > APPROXIMATED for found in errors),
            f"E_m(0) / ‖H‖: {listed}",
        ),
        Claim(
            "That is no matter of memory (fails if an E_m(0) is smaller than the part of ‖H‖ that depends on the past)",
            all(min(found) > parts[entry["seed"]]["past"] for entry, found in zip(students, errors)),
            "part that depends on the past, by seed: "
            + ", ".join(f"{one['past']:.2g}" for one in data["parts"])
            + "; even in x: "
            + ", ".join(f"{one['even']:.2g}" for one in data["parts"]),
        ),
        Claim(
            "Its power law is the warm-up before the probe (fails if none is named, or a scale is not the warm-up within a "
            f"factor of {_FACTOR:g})",
            bool(ratios) and all(1 / _FACTOR <= ratio <= _FACTOR for ratio in ratios),
            f"scale of the law by warm-up: {shown}",
        ),
        *(_law_claim(data, name) for name in _CONTROL),
        *(_verdict_claim(data, name, expected) for name, expected in (("exponential", "stable"), ("power", "unstable"))),
    ]


def _law_claim(data: Data, name: str) -> Claim:
    kind, put_in = {"exponential": ("rate", SLOPE), "power": ("exponent", EXPONENT)}[name]
    found = [memory_of(data, entry["target"]) or {} for entry in of_target(data, **_ATTENTION[name])]
    near = [one.get("law") == name and abs(one[kind] / put_in - 1) <= _NEAR for one in found]
    return Claim(
        f"Attention weighted by the lag has the memory of its weights: {name}, {kind} {put_in:g} (fails if a law is another, or "
        f"the {kind} off by more than {_NEAR:.0%})",
        all(near),
        "; ".join(law_of(one) for one in found),
    )


def _verdict_claim(data: Data, name: str, expected: str) -> Claim:
    mine, control = ([verdict_on(data, one) for one in of_target(data, **of[name])] for of in (_ATTENTION, _CONTROL))
    judged = [one.blocks["recurrent"] for one in mine + control]
    errors = [max(one.initial_errors) for one in mine]
    radii = ", ".join(f"{one.judgement} (κ = {one.kappa:.3g})" for one in judged[: len(mine)])
    theirs = ", ".join(f"{one.judgement} (κ = {one.kappa:.3g})" for one in judged[len(mine) :])
    return Claim(
        f"On the {name} attention the students are accurate and, in their recurrent weights, {expected}, as on the kernel of the "
        f"same memory (fails if an E_m(0) is above {APPROXIMATED:g} ‖H‖, or a verdict another)",
        max(errors) <= APPROXIMATED and all(one.judgement == expected for one in judged),
        f"largest E_m(0) / ‖H‖ {', '.join(f'{e:.2g}' for e in errors)}; {radii}; kernel: {theirs}",
    )


def _plot(data: Data, path: Path) -> None:
    first = data["families"][0]["seed"]
    with picture(path, rows=2, columns=3, width=12.6, height=6.8) as (figure, axes):
        published, ours, warmups, exponential, power, memory = axes
        for (m, (betas, errors)), colour in zip(published_curves().items(), shades(len(PUBLISHED))):
            published.loglog(betas[1:], errors[1:], color=colour, label=f"m = {m}")
        label(published, x=r"perturbation $\beta$ of the weights", y="time-weighted MSE", title="published")
        published.legend()
        _draw(ours, data, {"teacher": "transformer"}, "such a teacher, our students")
        # All that depends on the past.
        past = next(one["past"] for one in data["parts"] if one["target"]["seed"] == first)
        ours.axhline(past, color=GREY, ls=":", label="part of $|H|$ that\ndepends on the past")
        ours.set_ylim(bottom=min(ours.get_ylim()[0], past / 1.5))
        ours.legend(loc="best")
        drawn = [one for one in data["memories"] if one["target"] == {"teacher": "transformer", "seed": first}]
        for one, colour in zip(drawn, shades(len(drawn))):
            times, values = np.array(one["times"]), np.array(one["values"])
            warmups.loglog(times[1:], values[1:], color=colour, label=f"after {one['warmup']:g} samples")
            warmups.axvline(one["warmup"], color=colour, ls=":", lw=1)
        label(warmups, x="time $t$ (samples)", y="memory $M(t)$", title="its memory, by the zeros before the probe")
        warmups.legend(loc="lower left")
        _draw(exponential, data, _ATTENTION["exponential"], f"attention, weights $e^{{-{SLOPE:g} k}}$")
        _draw(power, data, _ATTENTION["power"], f"attention, weights $(1+k)^{{-{EXPONENT:g}}}$")
        for (name, target), hue in zip(_ATTENTION.items(), PALETTE):
            one = memory_of(data, {**target, "seed": first})
            if one is not None:
                times, values = np.array(one["times"]), np.array(one["values"])
                kept = (times > 0) & (values > one["floor"])
                memory.loglog(times[kept], values[kept], color=hue, label=f"{name} weights")
        label(memory, x="time $t$ (samples)", y="memory $M(t)$", title="memory of attention that weighs the lag")
        memory.legend(loc="lower left")
        explain_marks(figure)


def _draw(axes: Any, data: Data, target: dict[str, Any], title: str) -> None:
    """Curves of the recurrent weights, with the verdict on the first seed."""
    entries = of_target(data, **target)
    judgement = verdict_on(data, entries[0]).blocks["recurrent"].judgement
    spread = [curve for entry in entries for curve in recurrent(entry)]
    draw_perturbation(axes, recurrent(entries[0]), spread=spread, title=f"{title}: {judgement}")
    # The bands of all seeds too.
    axes.set_ylim(bottom=min(axes.get_ylim()[0], min(curve.relative_initial for curve in spread) / 1.5))


def _findings(data: Data) -> str:
    ends = ", ".join(f"{values[0]:.2g} (m = {m})" for m, (_, values) in published_curves().items())
    past = ", ".join(f"{one['past']:.0%}" for one in data["parts"])
    nearest = min(map(min, _errors(data, of_target(data, teacher="transformer"))))
    windowed = _errors(data, of_target(data, **_ATTENTION["windowed"]))
    return f"""The published picture says nothing of memory. The answer of a random transformer is, for {past} of ‖H‖ (by seed)
apart, its answer to the present sample, which passes by the attention on the residual path, and which a state without feedthrough
cannot follow; much of it is even in x, through the layer normalisation. No width of the students comes nearer than
{nearest:.2g} ‖H‖, which is more than all that depends on the past.
(The published curves, whose errors at β = 0 are {ends}, are of another teacher and compare in shape only.)

Nor is its memory one: attention without positions averages over all samples since the first, so that H is not time-homogeneous.
A step after n zeros changes a mean over n + t samples like n/(n + t)²: a power law whose scale is n, and at n = 0 a constant.

Attention that weighs the lag k, by {SLOPE:g} k (ALiBi) or {EXPONENT:g} log(1 + k) in the exponent, and has infinitely many zeros
before its first sample, is time-homogeneous. Of its answer the part that depends on the past and is odd in x has the memory of
the weights, and RNNs treat it as they treat a kernel with that memory: stably approximated where it is exponential, and not where
it is a power. Over a window of {WINDOW} samples memory ends at once; the error at m = {WIDTHS[-1]} is {windowed[0][-1]:.2g} ‖H‖,
since real rates do not make an edge. So what [IA] Fig 12 concludes is right for attention with slowly falling weights, by another
argument than the figure's."""


IA_12 = Figure(
    name="ia-12",
    title="A random transformer: no stable approximation by RNNs, and when that is a matter of memory",
    source="[IA] Fig 12",
    published="Hardtanh diagonal RNN students, m = 8, 16, 32, 64, of a random transformer decoder (one layer, one head, width "
    "16, feed-forward 32): the error of wider students crosses that of narrower ones ever further left.",
    settings=f"""Top: such transformers without position encoding, seeds 0 to 2, less their answer to 0; students are hardtanh
diagonal RNNs with bias, on [0, {_SHORT:g}] with Δt = 1, inputs of standard deviation 1; right, the memory after 5 to 320 samples
of zeros (dotted: that time). Bottom: the same weights with attention weighted by e^(-{SLOPE:g} k), (1 + k)^-{EXPONENT:g} or a
window of {WINDOW} samples, of the lag k, and an infinite past of zeros; of the answer the part that depends on the past and is
odd in x, in units of the answer to a constant; students without bias on [0, {_HORIZON:g}], inputs of {SMALL:g}, where layer
normalisation is nearly linear. Control: the kernels e^(-{SLOPE:g} t) and (1 + t)^-{EXPONENT:g}, students trained in the same way.
Widths m = {", ".join(map(str, WIDTHS))}, from random weights by Levenberg-Marquardt, each from the one before; worst perturbation
of the recurrent weights by ascent, relative L2 error. Lines are seed 0, bands all seeds; claims are about all seeds.""",
    jobs=_jobs,
    assemble=_assemble,
    claims=_claims,
    plot=_plot,
    rows=table_rows,
    findings=_findings,
)
