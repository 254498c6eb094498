"""[StableSSM] 3.4: which parameterisations keep the gradient in proportion to the weight."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from odernn.parameterizations import get

from ...plotting import label, picture
from ..compute.gradient_scales import gradients, training_ratios
from ..engine.figure import Claim, Data, Figure, Job, Options, Result, results_of
from ..panels.parameterizations import COLOURS, LABELS, NAMES

_KERNEL = "polynomial:exponent=1.1"
_SLOWEST, _FASTEST, _COUNT = 1e-3, 1.9, 13
_TRAINED_SLOWEST, _WIDTH, _LEARNING_RATE, _STEPS, _QUICK_STEPS = 1e-2, 16, 1e-3, 2000, 300
_SEEDS = range(5)
# Rates below this decade's end are slow: there the power laws of |f'|/f^2 hold for all f.
_SLOW = 0.03
# Of the quotient |dLoss/dw| / (|c U| |f'|/f^2), 1 where rho_hat - rho keeps its sign for as long as the mode lasts. Above 1
# only by rounding and quadrature.
_ATTAINED, _ROUNDING = 0.9, 1e-3
_SLOPES = {"direct": -2.0, "exp": -1.0, "softplus": -1.0, "inverse": -0.5}
_SLOPE_TOLERANCE = 0.1


def _jobs(options: Options) -> list[Job]:
    seeds = _SEEDS[:3] if options.quick else _SEEDS
    shared = [
        {"kernel": _KERNEL, "parameterization": name, "fastest": _FASTEST, "seed": seed} for name in NAMES for seed in seeds
    ]
    training = {
        "hidden_size": _WIDTH,
        "slowest": _TRAINED_SLOWEST,
        "learning_rate": _LEARNING_RATE,
        "steps": _QUICK_STEPS if options.quick else _STEPS,
    }
    return [Job(gradients, {**one, "slowest": _SLOWEST, "count": _COUNT}, cost=0.1) for one in shared] + [
        Job(training_ratios, {**one, **training}, cost=training["steps"] / 2000) for one in shared
    ]


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    return {
        "gradients": results_of(gradients, results, "parameterization", "seed"),
        "training": results_of(training_ratios, results, "parameterization", "seed"),
    }


def _of(data: Data, part: str, name: str) -> list[dict[str, Any]]:
    return [one for one in data[part] if one["parameterization"] == name]


def _ratios(data: Data, name: str) -> np.ndarray:
    """(seeds, steps)."""
    return np.array([one["ratios"] for one in _of(data, "training", name)])


def _plot(data: Data, path: Path) -> None:
    r = np.geomspace(_SLOWEST, _FASTEST, 200)
    with picture(path, columns=3, width=10.0, height=3.4) as (figure, (left, middle, right)):
        for name in NAMES:
            style: dict[str, Any] = {"color": COLOURS[name]}
            # exp and softplus coincide on slow modes: both should be seen
            wide = {**style, "lw": 3.5 if name == "exp" else 1.5}
            scale, weight = _theory(name, r)
            left.plot(r, scale, **wide, label=LABELS[name])
            middle.plot(r, scale / weight, **wide)
            for one in _of(data, "gradients", name):
                measured = np.array(one["gradients"])
                left.plot(one["rates"], measured, "o", **style)
                middle.plot(one["rates"], measured / np.array(one["weights"]), "o", **style)
            ratios = _ratios(data, name)
            steps = np.arange(1, ratios.shape[1] + 1)
            right.fill_between(steps, ratios.min(0), ratios.max(0), color=COLOURS[name], alpha=0.2, lw=0)
            right.plot(steps, np.median(ratios, 0), **style)
        for axes in (left, middle, right):
            axes.set_xscale("log")
            axes.set_yscale("log")
        for axes in (left, middle):
            # Fast modes, whose time scale is the target's own, fall far below the bound.
            axes.set_ylim(bottom=1e-2)
        label(
            left, x=r"rate $-\lambda = -f(w)$", y=r"$|\partial_w \mathrm{Loss}|\,/\,|cU|$", title=r"gradient; lines: $|f'|/f^2$"
        )
        label(middle, x=r"rate $-\lambda = -f(w)$", y=r"$|\partial_w \mathrm{Loss}|\,/\,|cUw|$", title="gradient over weight")
        label(
            right,
            x="training step",
            y=r"$\max_j\ |\partial_{w_j} \mathrm{Loss}|\,/\,|w_j|$",
            title=f"in training, {len(ratios)} seeds",
        )
        figure.legend(loc="outside lower center", ncols=4)


def _theory(name: str, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|f'|/f^2 and |w| at the rates r."""
    f = get(name)
    w = f.inverse(-torch.from_numpy(r))
    return f.gradient_scale(w).numpy(), w.abs().numpy()


def _claims(data: Data) -> list[Claim]:
    shares = {
        name: np.concatenate([np.array(one["gradients"]) / np.array(one["bounds"]) for one in _of(data, "gradients", name)])
        for name in NAMES
    }
    rates = np.array(data["gradients"][0]["rates"])
    slow = rates < _SLOW
    attained = {name: share.reshape(-1, rates.size)[:, slow].max(0).min() for name, share in shares.items()}
    medians = {name: np.median([one["gradients"] for one in _of(data, "gradients", name)], 0) for name in NAMES}
    slopes = {name: np.polyfit(np.log(rates[slow]), np.log(values[slow]), 1)[0] for name, values in medians.items()}
    off = max(abs(slope - _SLOPES[name]) for name, slope in slopes.items())
    largest = {name: _ratios(data, name).max(1) for name in NAMES}
    typical = {name: np.median(_ratios(data, name), 1) for name in NAMES}
    best = np.array([min(NAMES, key=lambda name: largest[name][k]) for k in range(len(largest["direct"]))])
    worst = np.array([max(NAMES, key=lambda name: typical[name][k]) for k in range(len(largest["direct"]))])
    return [
        Claim(
            f"|dLoss/dw| ≤ |cU| |f'(w)|/f(w)² (fails if one mode of a seed and parameterisation exceeds it by {_ROUNDING:g} of "
            "it)",
            all(share.max() <= 1 + _ROUNDING for share in shares.values()),
            "largest quotient " + ", ".join(f"{name} {share.max():.4f}" for name, share in shares.items()),
        ),
        Claim(
            f"The bound is sharp (fails if at a slow rate, below {_SLOW:g}, no seed comes within {1 - _ATTAINED:.0%} of it)",
            all(share >= _ATTAINED for share in attained.values()),
            "least of the largest quotients " + ", ".join(f"{name} {share:.3f}" for name, share in attained.items()),
        ),
        Claim(
            "Slow modes: the gradient grows like rate^-2 (direct), rate^-1 (exp, softplus), rate^-1/2 (inverse) "
            f"(fails if an exponent is off by more than {_SLOPE_TOLERANCE:g})",
            off <= _SLOPE_TOLERANCE,
            "exponents of the median over seeds: " + ", ".join(f"{name} {slope:.3f}" for name, slope in slopes.items()),
        ),
        Claim(
            "In training the inverse parameterisation has the smallest peak of gradient over weight (fails if another has, at "
            "one seed)",
            bool((best == "inverse").all()),
            "largest over the steps, by seed: " + "; ".join(f"{name} {_list(values)}" for name, values in largest.items()),
        ),
        Claim(
            "In training the direct parameterisation has the largest typical gradient over weight (fails if another has, at one "
            "seed)",
            bool((worst == "direct").all()),
            "median over the steps, by seed: " + "; ".join(f"{name} {_list(values)}" for name, values in typical.items()),
        ),
    ]


def _list(values: np.ndarray) -> str:
    return ", ".join(f"{value:.2g}" for value in values)


def _rows(data: Data) -> list[dict[str, Any]]:
    return [
        {"parameterization": one["parameterization"], "seed": one["seed"], "rate": r, "gradient": g, "bound": b, "weight": w}
        for one in data["gradients"]
        for r, g, b, w in zip(one["rates"], one["gradients"], one["bounds"], one["weights"])
    ]


def _findings(data: Data) -> str:
    losses = {name: np.mean([one["losses"][-1] for one in _of(data, "training", name)]) for name in NAMES}
    margins = {name: np.mean([one["margin"] for one in _of(data, "training", name)]) for name in NAMES}
    steps = len(data["training"][0]["losses"])
    reached = ", ".join(f"{name} {loss:.2f}" for name, loss in losses.items())
    slowest = ", ".join(f"{name} {margin:.3f}" for name, margin in margins.items())
    return f"""The loss reached after {steps} steps, relative to ∫|ρ|, is {reached}: a small gradient over weight speaks of stable
training, not of fast training. The slowest rate is then {slowest} (means over the seeds; the slowest at the start was about
{_TRAINED_SLOWEST:g}). A weight w of exp or softplus may pass through 0, which is no boundary of anything there, and
then has a high peak; the median over the steps has no such peaks. For direct w = 0 is the boundary of stability."""


STABLE_SSM_GRADIENT = Figure(
    name="stable-ssm-gradient",
    title="Gradient of the recurrent weights: the inverse parameterisation is balanced",
    source="[StableSSM] Thm 3.6 and 3.4",
    published="""|dLoss/dw| ≤ C |f'(w)|/f(w)²: 1/w² for direct, e^-w for exp, 2a|w| for the inverse ("best") one, which
alone keeps gradient over weight bounded near the stability boundary.""",
    settings=f"""Target ρ = 1/(1+t)^1.1, linear diagonal models, Loss = ∫|ρ - ρ̂| dt (the largest error on inputs |x| ≤ 1;
mode by mode C = |cU|), gradients by autograd in double precision. Left and middle: {_COUNT} modes with rates log-spaced in
[{_SLOWEST:g}, {_FASTEST:g}], random U and c (points: all seeds; lines: the bound). Right: Adam, learning rate
{_LEARNING_RATE:g}, {_STEPS} steps, m = {_WIDTH}, rates log-uniform in [{_TRAINED_SLOWEST:g}, {_FASTEST:g}], the same W, U and c
for all parameterisations; lines are medians over the seeds, bands all of them. Inverse: a = 1, b = 1/2.""",
    jobs=_jobs,
    assemble=_assemble,
    plot=_plot,
    claims=_claims,
    rows=_rows,
    findings=_findings,
)
