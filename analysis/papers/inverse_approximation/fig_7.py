"""[IA] Fig 7: ReLU RNNs without (a) and with (b) a softplus parameterisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...perturbation import PerturbationCurve
from ..engine.figure import Claim, Data, Figure
from ..panels.trained_case import (
    BLOCKS,
    EXPONENTIAL,
    POLYNOMIAL,
    WIDTHS,
    Case,
    assemble,
    brief,
    falls,
    plot_families,
    settings,
    stability_claims,
    table_rows,
    verdict,
)

# On longer horizons nothing is approximated.
_HORIZON, _POINTS = 100.0, 101
_RELU = {
    "activation": "relu",
    "recurrence": "symmetric",
    "bias": True,
    "horizon": _HORIZON,
    "points": _POINTS,
    "scales": [2.0, 10.0, 50.0],
    # Many end with units that are silent for all inputs, most of the narrow ones.
    "starts": 5,
}
_SHARED = settings(horizon=_HORIZON, longest=50.0, start="random weights, ReLU being not linear around 0", bias=True)
_GROWING = """dh/dt = relu(·) is never negative: what decays in y is a difference of states that only grow, which no
parameterisation of the eigenvalues protects"""
_MODELS = {"rnn": "dh/dt = relu(Wh + Ux + b)", "leaky": "dh/dt = -h + relu((I + W)h + Ux + b)"}


def _of(data: Data, model: str, target: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in data["families"] if entry["family"]["model"] == model and entry["target"] == target]


def _fall_on_exponential(data: Data) -> bool:
    """Whether on e^-t the radii fall with the horizon, though the first holds a hundred of the memory's time constants."""
    judged = [verdict(entry).blocks for entry in _of(data, "rnn", EXPONENTIAL)]
    return all(falls(one) for blocks in judged for one in blocks.values())


def _findings(data: Data) -> str:
    def judged(model: str, target: dict[str, Any]) -> str:
        return ", ".join(brief(verdict(entry).blocks["recurrent"]) for entry in _of(data, model, target))

    errors = ", ".join(f"{verdict(entry).initial_errors[-1]:.2g}" for entry in _of(data, "leaky", POLYNOMIAL))
    text = f"""**What fails here is ReLU in the rate, whatever the memory.** On the memory e^-t, which linear, hardtanh and tanh
models approximate stably (readme-table), these come, in their recurrent weights, to
{judged("rnn", EXPONENTIAL)}: radii that fall with the horizon, though the first holds a hundred of the memory's time
constants. So their verdict on the power law says nothing of the power law. The reason holds for all of them: dh/dt =
relu(·) ≥ 0, so that no entry of h ever falls. What decays in y is a difference of states that only grow, and a perturbation of
any weight upsets it by more the longer it lasts.

**A ReLU network that forgets** is the leaky one, dh/dt = -h + relu((I + W)h + Ux + b), whose active units follow W and whose
silent ones fall. On e^-t the same recurrences then come to {judged("leaky", EXPONENTIAL)}; on the power law to
{judged("leaky", POLYNOMIAL)}, at errors of {errors} ‖H‖ by seed, from random weights: too far from the target to say what its
memory does. Something of this kind the paper must have had."""
    first = _of(data, "rnn", POLYNOMIAL)
    if not first[0]["sampled"]:
        return text
    widest = [PerturbationCurve.from_dict(entry["sampled"][-1]) for entry in first]
    radii = ", ".join(f"{curve.tolerance_radius() * curve.horizon:.2g}" for curve in widest)
    return f"""{text}

The published protocol, with another search, norm and error, has for κ of the widest models without a leak on the power law at
most {radii}, by seed."""


def _plot(data: Data, path: Path) -> None:
    targets = {"power law": POLYNOMIAL, r"$e^{-t}$": EXPONENTIAL}
    names = {"rnn": "no leak", "leaky": "leaky"}
    rows = {f"{name}, {words}": _of(data, model, target) for model, name in names.items() for words, target in targets.items()}
    plot_families(rows, path)


def _figure(letter: str, parameterization: str, expected: str, formula: str) -> Figure:
    def claims(data: Data) -> list[Claim]:
        plain, control = _of(data, "rnn", POLYNOMIAL), _of(data, "rnn", EXPONENTIAL)
        growing = dict.fromkeys(BLOCKS, _GROWING if _fall_on_exponential(data) else "")
        return [
            *stability_claims(plain, expected, "As published, without a leak", growing),
            *stability_claims(control, "stable", "Control: the same on the memory e^-t", growing),
            *stability_claims(_of(data, "leaky", EXPONENTIAL), "stable", "Control: with a leak on the memory e^-t"),
        ]

    family = {**_RELU, "parameterization": parameterization}
    cases = [
        Case(target, {**family, "model": model}, stages=WIDTHS, quick_sequences=16)
        for model in _MODELS
        for target in (POLYNOMIAL, EXPONENTIAL)
    ]
    equations = " and, beside it, ".join(_MODELS.values())
    return Figure(
        name=f"ia-7{letter}",
        title=f"ReLU RNNs, {formula}, polynomial memory: {expected}",
        source=f"[IA] Fig 7{letter}",
        published=f"ReLU RNNs, m = 8, 16, 32, 64, {formula}: {expected}.",
        settings=f"{_SHARED} {equations}, with a bias, ReLU being not odd; without a leak they start from h = 0, having no "
        f"unique rest state. W = Pᵀ diag(λ) P with P orthogonal, {formula}.",
        jobs=lambda options: [job for case in cases for job in case.jobs(options)],
        assemble=assemble,
        claims=claims,
        plot=_plot,
        rows=table_rows,
        findings=_findings,
    )


IA_7A = _figure("a", "direct", "unstable", "λ = w")
IA_7B = _figure("b", "softplus", "stable", "λ = -log(1 + e^w)")
