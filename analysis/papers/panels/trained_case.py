"""E_m(beta) of families trained by gradients, under the published protocol and by ascent (the nonlinear figures)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from odernn import activations

from ...perturbation import PUBLISHED_BETAS, PerturbationCurve
from ...perturbation.picture import draw_perturbation
from ...plotting import picture
from ...target_memory import TargetMemory, target_memory
from ...verdict import FOLLOWS_MEMORY, Verdict, judge_stable_approximation
from ..compute.trained_families import load_target, trained_curves
from ..engine.figure import Claim, Data, Job, Options, Result
from .curves import rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEEDS = (0, 1, 2)
# Published, and of quick runs.
WIDTHS, QUICK_WIDTHS = (8, 16, 32, 64), (2, 4, 8)
# Widths through which training grows: from random weights at m = 8, E_m(0) ends larger at all of them.
STAGES = (2, 4, 8, 16, 32, 64)
HORIZON = 800.0
# What one family takes, roughly.
_SECONDS, _QUICK_SECONDS = 75.0, 15.0
# From below 1/T to where the samples no longer resolve perturbed rates.
_ASCENT = {"betas": [0.0, *np.geomspace(3e-4, 0.5, 8).tolist()], "draws": 8, "restarts": 1, "steps": 6}
_QUICK_ASCENT = {"betas": [0.0, *np.geomspace(1e-3, 0.25, 6).tolist()], "draws": 4, "restarts": 1, "steps": 4}
POLYNOMIAL, EXPONENTIAL = {"kernel": "polynomial:exponent=1.1"}, {"kernel": "exponential"}


def settings(
    widths: Sequence[int] = WIDTHS,
    stages: Sequence[int] = STAGES,
    *,
    horizon: float = HORIZON,
    longest: float = 300.0,
    protocol: str = "the largest of 30 draws, the time-weighted mean square error",
    bias: bool = False,
) -> str:
    """The text on settings that all figures of trained families share, with what differs between them."""
    why = """because on the published [0, 100] four modes already resolve the power law and the radius saturates near 1/T for
stable and unstable families alike; """
    odd = "Models have no bias: the target is odd, and so are they. "
    return f"""Left, the published protocol: noise on every weight with largest entry β, {protocol}, the running maximum over β.
Right, ours: the worst perturbation of the recurrent weights by ascent, the relative L2 error, and the verdict of
`analysis.verdict` from these and from all-block curves. Both on the same models: widths {_listed(widths)}, on [0, {horizon:g}],
{why if horizon == HORIZON else ""}trained by L-BFGS in float64 through m = {_listed(stages)}, each from the one before; inputs
are random Fourier series of time scales from 2 to {longest:g} and a constant, because white noise does not see the tail of a
memory. {"" if bias else odd}Lines are seed 0, bands all seeds; claims are about all seeds."""


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


# The rule presumes a horizon far beyond the target's time scale, a few units.
_JUDGED_FROM = 100.0
PUBLISHED_PROTOCOL = "published protocol"


def seeds(options: Options) -> tuple[int, ...]:
    """One family for each; a quick run has the first alone."""
    return SEEDS[:1] if options.quick else SEEDS


@dataclass(frozen=True)
class Case:
    """One family to train on one target.

    Args:
        target: of `trained_families.load_target`.
        family: of `analysis.families.Family`, where it differs from the defaults here.
        widths, stages: m that full runs measure, and through which training grows.
        sampled: the published protocol, of `trained_curves`; quick runs leave it out.
        quick_sequences: training inputs of quick runs.
    """

    target: Mapping[str, Any]
    family: Mapping[str, Any]
    widths: tuple[int, ...] = WIDTHS
    stages: tuple[int, ...] = STAGES
    sampled: Mapping[str, Any] = field(default_factory=lambda: {"betas": PUBLISHED_BETAS, "draws": 30})
    quick_sequences: int = 8

    def jobs(self, options: Options) -> list[Job]:
        return [self.job(seed, options) for seed in seeds(options)]

    def job(self, seed: int, options: Options) -> Job:
        family = {
            "horizon": HORIZON,
            "points": int(HORIZON) + 1,
            "steps": 150,
            "starts": 2,
            **self.family,
            "widths": QUICK_WIDTHS if options.quick else self.stages,
            "seed": seed,
        }
        if options.quick:
            family |= {"sequences": self.quick_sequences}
        # Frequencies have no stable parameterisation: their part in the recurrent block is told apart from that of w.
        parts = {"blocks": ["recurrent", "all", "w"]} if family.get("recurrence") == "complex" else {}
        settings = {
            "target": dict(self.target),
            "family": family,
            "widths": QUICK_WIDTHS if options.quick else self.widths,
            "ascent": {**(_QUICK_ASCENT if options.quick else _ASCENT), **parts},
            "sampled": None if options.quick else dict(self.sampled),
        }
        return Job(trained_curves, settings, cost=_QUICK_SECONDS if options.quick else _SECONDS)


def assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    """{"families": [{"target", "family", "seed", "curves", "sampled"}]}."""
    return {
        "families": [
            {"target": job.settings["target"], "family": job.settings["family"], "seed": job.settings["family"]["seed"], **result}
            for job, result in results
        ]
    }


def verdict(entry: Mapping[str, Any], blocks: Sequence[str] = ("recurrent", "all")) -> Verdict:
    """The verdict on one trained family, from the curves of these blocks: 'recurrent', 'all' or 'named'."""
    curves = [PerturbationCurve.from_dict(curve) for curve in entry["curves"] if curve["block_choice"] in blocks]
    family = entry["family"]
    memory = _memory(json.dumps(entry["target"], sort_keys=True), family["horizon"], family["horizon"] / (family["points"] - 1))
    return judge_stable_approximation(curves, memory)


@cache
def _memory(target: str, horizon: float, step: float) -> TargetMemory | None:
    """The memory of a target given as JSON; None where the target does not answer to a step: a transformer without positions."""
    try:
        return target_memory(load_target(**json.loads(target)), horizon, step)
    except ValueError:
        return None


def verdict_of_rates(entry: Mapping[str, Any]) -> Verdict:
    """The verdict on one complex family when only w is perturbed, not the frequencies."""
    return verdict(entry, ("named",))


def judged_blocks(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The blocks whose curves count for a family: the recurrent ones alone for state-space models whose readout saturates.

    y = c^T sigma(h) with |sigma| <= 1 is linear in slow modes only if U is as small as their rates. A perturbation of U then does
    harm from 1/T on, whatever the parameterisation of the eigenvalues, which is what is compared here.
    """
    saturates = entry["family"].get("model") == "ssm" and not activations.get(entry["family"]["activation"]).linear
    return ("recurrent",) if saturates else ("recurrent", "all")


def own_verdict(entry: Mapping[str, Any]) -> Verdict:
    """The verdict on one trained family, from the blocks that count for it."""
    return verdict(entry, judged_blocks(entry))


def stability_claim(
    entries: Sequence[Mapping[str, Any]], expected: str, statement: str | None = None, difference: str = ""
) -> Claim:
    """Families that differ in their seeds all get the expected verdict.

    Args:
        difference: why not, if its cause was found in the data.
    """
    judged = [(entry["seed"], own_verdict(entry)) for entry in entries]
    named = ", ".join(f"seed {seed}: {one.judgement} (κ = {one.kappa_text()})" for seed, one in judged)
    verdicts = [one for _, one in judged]
    held = all(one.judgement == expected for one in verdicts)
    difference = difference or not_decided(verdicts, expected)
    return Claim(
        statement or f"The approximation is {expected}", held, f"{named}. Seed {judged[0][0]}: {judged[0][1]}", difference
    )


def not_decided(judged: Sequence[Verdict], expected: str) -> str:
    """Why verdicts do not all agree where none says the opposite: what the rule asks for; '' where one does."""
    undecided = [one for one in judged if one.judgement == "undecided"]
    if not undecided or any(one.judgement not in (expected, "undecided") for one in judged):
        return ""
    return f"not decided on these horizons and widths: {undecided[0].reasons[-1]}"


_MIXED = """one horizon does not tell: R lies between the sure cases where it says undecided. W is symmetric, and a rotation of P
mixes slow modes with fast ones, which costs part of the radius"""


def mixed(judged: Sequence[Verdict]) -> str:
    """Why symmetric families with protected eigenvalues are not all judged stable: '' unless the others are undecided with an R
    that is too large for unstable ones."""

    def between(one: Verdict) -> bool:
        return one.judgement == "undecided" and one.memory_ratio is not None and one.memory_ratio > FOLLOWS_MEMORY

    return _MIXED if all(one.judgement == "stable" or between(one) for one in judged) else ""


def improvement_claim(data: Data) -> Claim:
    """The widest model is more accurate than the narrowest, and not much less than the best."""
    errors = [(entry["seed"], own_verdict(entry).initial_errors) for entry in data["families"]]
    held = all(values[-1] < values[0] and values[-1] <= _IMPROVED * min(values) for _, values in errors)
    listed = "; ".join(f"seed {seed}: " + ", ".join(f"{value:.2g}" for value in values) for seed, values in errors)
    statement = f"E_m(0) falls from the narrowest model to the widest, which is within a factor of {_IMPROVED:g} of the best"
    return Claim(statement, held, f"E_m(0) / ‖H‖: {listed}")


# The widest model may be so much less accurate than the best: training is not exact.
_IMPROVED = 1.5


def plot(data: Data, path: Path) -> None:
    """Both protocols, side by side."""
    plot_families({"": data["families"]}, path)


def plot_families(families: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Both protocols of each family, side by side, in rows of one or two families.

    Args:
        families: title -> entries that differ in their seeds: lines are the first, bands all of them.
    """
    each = max(len(protocols(entries[0])) for entries in families.values())
    columns = each * (2 if len(families) > 2 else 1)
    lines = -(-each * len(families) // columns)
    with picture(path, rows=lines, columns=columns, width=4.2 * columns, height=3.3 * lines) as (_, axes):
        for k, (title, entries) in enumerate(families.items()):
            draw_protocols(axes[each * k : each * (k + 1)], entries, title)


def draw_protocols(axes: Sequence[Axes], entries: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """A panel for each of `protocols`, headed by the title, the protocol and the verdict of the first of the entries."""
    every = [protocols(entry) for entry in entries]
    for panel, (name, curves) in zip(axes, every[0].items()):
        judged = name != PUBLISHED_PROTOCOL and entries[0]["family"]["horizon"] >= _JUDGED_FROM
        judgement = f": {own_verdict(entries[0]).judgement}" if judged else ""
        spread = [curve for one in every for curve in one[name]]
        draw_perturbation(panel, curves, spread=spread, title=f"{title}\n{name}{judgement}".strip())


def protocols(entry: Mapping[str, Any]) -> dict[str, list[PerturbationCurve]]:
    """The curves that a picture shows of a family, by title: the published protocol, which quick runs leave out, and the ascent
    over recurrent weights."""
    recurrent = [PerturbationCurve.from_dict(curve) for curve in entry["curves"] if curve["block_choice"] == "recurrent"]
    worst = {f"worst case on $[0, {recurrent[0].horizon:g}]$": recurrent}
    return (
        {PUBLISHED_PROTOCOL: [PerturbationCurve.from_dict(curve) for curve in entry["sampled"]], **worst}
        if entry["sampled"]
        else worst
    )


def table_rows(data: Data) -> list[dict[str, Any]]:
    """Every curve, long."""
    return [
        row
        for entry in data["families"]
        for protocol in ("sampled", "curves")
        for row in rows(entry[protocol], protocol="published" if protocol == "sampled" else "ours", **described(entry))
    ]


def described(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that name a family."""
    family = entry["family"]
    target = entry["target"].get("kernel") or f"{entry['target']['teacher']} teacher {entry['target'].get('seed', 0)}"
    names = ("model", "activation", "recurrence", "parameterization")
    defaults = {"model": "rnn", "activation": "tanh", "recurrence": "dense", "parameterization": "direct"}
    return {"target": target, **{name: family.get(name, defaults[name]) for name in names}, "seed": entry["seed"]}
