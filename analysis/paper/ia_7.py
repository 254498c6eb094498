"""[IA] Fig 7: ReLU RNNs without (a) and with (b) a softplus parameterisation."""

from __future__ import annotations

from .curves import restore
from .figure import Claim, Data, Figure
from .trained_figure import POLYNOMIAL, SETTINGS, WIDTHS, Case, assemble, plot, stability_claim, table_rows

# On longer horizons nothing is approximated.
_HORIZON, _POINTS = 100.0, 101
_RELU = {
    "activation": "relu",
    "recurrence": "orthogonal",
    "bias": True,
    "horizon": _HORIZON,
    "points": _POINTS,
    "scales": [2.0, 10.0, 50.0],
    # Many end with units that are silent for all inputs, most of the narrow ones.
    "starts": 5,
}
_GROWING = """dh/dt = relu(·) is never negative, so that no unit forgets: what decays in y is a difference of growing states,
which no parameterisation of the eigenvalues protects"""


def _findings(data: Data) -> str:
    if not data["families"][0]["sampled"]:
        return ""
    widest = [restore(entry["sampled"][-1]) for entry in data["families"]]
    kappas = ", ".join(f"{curve.tolerance_radius() * curve.horizon:.2g}" for curve in widest)
    return f"""An independent look, without the ascent and in the published error: gaussian noise on all weights, 30 draws, finds
at the widest model κ = r T = {kappas} (seeds 0 to 2). Draws can overlook a perturbation that does harm, not invent one, so
that the true κ is at most that. The reason holds for every such model: dh/dt = relu(·) ≥ 0, so that h is a sum of all that
ever happened, and a pulse is never forgotten by h, whatever W is. What decays in y is a difference of states that grow, which a
perturbation of U, W or b upsets by more the longer it lasts."""


def _figure(letter: str, parameterization: str, expected: str, formula: str) -> Figure:
    def claims(data: Data) -> list[Claim]:
        return [stability_claim(data["families"], expected, difference=_GROWING if expected == "stable" else "")]

    return Figure(
        name=f"ia-7{letter}",
        title=f"ReLU RNNs, {formula}, polynomial memory: {expected}",
        source=f"[IA] Fig 7{letter}",
        published=f"ReLU RNNs, m = 8, 16, 32, 64, {formula}: {expected}.",
        settings=f"{SETTINGS} Here they have a bias, ReLU being not odd, and start from h = 0, having no unique rest state. W = "
        f"Pᵀ diag(λ) P with P orthogonal, {formula}. Training starts at m = {WIDTHS[0]}. The horizon is {_HORIZON:g} here: "
        "longer ones are not approximated.",
        jobs=Case(POLYNOMIAL, {**_RELU, "parameterization": parameterization}, stages=WIDTHS, quick_sequences=16).jobs,
        assemble=assemble,
        claims=claims,
        plot=plot,
        rows=table_rows,
        findings=_findings,
    )


IA_7A = _figure("a", "direct", "unstable", "λ = w")
IA_7B = _figure("b", "softplus", "stable", "λ = -log(1 + e^w)")
