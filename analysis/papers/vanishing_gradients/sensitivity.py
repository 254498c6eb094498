"""[VEG] Fig 1 to 3: how sensitive models become to their weights as memory grows, and whether they can then still be trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..compute.sensitivities import correlated, landscapes, sensitivity_curves, stability_and_curvature
from ..compute.teacher_student import teacher_student
from ..engine.figure import Claim, Data, Figure, Job, Options, Result, results_of
from ..panels.sensitivities import BLOCKS, FITTED, STUDENT_STYLES, along_horizons, best_losses, horizons, mode_name, plot

# Recurrence and parameterisation of the modes, and the exponent of E |dh/dw|^2 in the rate as it goes to 0.
_MODES: dict[tuple[str, str], float] = {
    ("diagonal", "direct"): -3.0,
    ("diagonal", "exp"): -1.0,
    ("diagonal", "softplus"): -1.0,
    ("diagonal", "inverse"): 0.0,
    ("diagonal", "lru"): 0.0,
    ("lru", "direct"): -2.0,
    ("lru", "exp"): 0.0,
    ("lru", "inverse"): 1.0,
}
_RATES = np.geomspace(1e-4, 0.9, 41).tolist()
_MEASURED = np.geomspace(0.02, 0.8, 6).tolist()
_SIMULATED = {"step": 0.2, "horizon": 1000.0, "batch": 128, "seed": 0}
_QUICK_SIMULATED = {**_SIMULATED, "horizon": 600.0}
_SLOW, _EXPONENT_TOLERANCE, _MEASURED_TOLERANCE, _ROUNDING = 1e-3, 0.02, 0.1, 1e-9
# 1 - |l| and the correlation r of neighbouring samples; values with gamma read off [VEG] Fig 2, to 20 %.
_DISTANCES = np.geomspace(1e-4, 0.5, 31).tolist()
_PUBLISHED = {0.0: 0.5, 0.9: 10.0, 0.999: 1e3}
_CORRELATIONS, _READ_OFF = (0.0, 0.9, 0.99, 0.999, 1.0), 0.2
# rho* of the teachers of one mode.
_LANDSCAPES = [1.0, 0.3, 0.1, 0.03, 0.01]
_KERNEL, _WIDTH = "polynomial:exponent=1.1", 12
_HORIZONS, _QUICK_HORIZONS = (250.0, 1000.0, 4000.0, 16000.0, 64000.0), (250.0, 4000.0)
# Exponents of T: what counts as none (r and curvatures of finite fits wander a little), what as lost, and the least fall of r.
_STAYS, _GOES, _FALLS = 0.12, 0.3, 0.05
_TEACHERS: dict[str, Any] = {
    "slowest": [0.36, 0.84, 0.96, 0.98, 0.99],
    "teacher_size": 10,
    "student_size": 32,
    "horizon": 300,
    "seeds": [0, 1, 2],
}
_STEPS, _QUICK_STEPS = 1500, 150
# Recurrence and parameterisation of the students, with the learning rates of which the best counts.
_FREE, _PROTECTED = (1e-3, 3e-3, 1e-2), (1e-2, 3e-2, 1e-1)
_STUDENTS: dict[tuple[str, str], tuple[float, ...]] = {
    ("dense", "direct"): _FREE,
    ("complex", "direct"): _FREE,
    ("complex", "exp"): _PROTECTED,
    ("complex", "inverse"): _PROTECTED,
    ("complex", "lru"): _PROTECTED,
    ("lru", "exp"): _PROTECTED,
}
# Of the loss of the dense student over that of the LRU, at the longest memory and at the shortest.
_FAR_BEHIND, _BESIDE = 100.0, 10.0
# Of the median loss of any diagonal student over that of the dense one.
_APART = 0.1


def _jobs(options: Options) -> list[Job]:
    simulated = {"rates": _RATES, "measured": _MEASURED, **(_QUICK_SIMULATED if options.quick else _SIMULATED)}
    longest = _QUICK_HORIZONS if options.quick else _HORIZONS
    training = {**_TEACHERS, **({"slowest": [0.36, 0.99], "steps": _QUICK_STEPS} if options.quick else {"steps": _STEPS})}
    return [
        *(Job(sensitivity_curves, {"recurrence": r, "parameterization": f, **simulated}, cost=2.0) for r, f in _MODES),
        *(
            Job(correlated, {"recurrence": r, "correlation": rho, "distances": _DISTANCES})
            for r in ("diagonal", "lru")
            for rho in _CORRELATIONS
        ),
        *(Job(landscapes, {"parameterization": f, "rates": _LANDSCAPES}) for f in ("direct", "exp")),
        *(
            Job(
                stability_and_curvature,
                {"kernel": _KERNEL, "parameterization": f, "hidden_size": _WIDTH, "horizon": T, "seed": 0},
                cost=0.5,
            )
            for f in FITTED
            for T in longest
        ),
        *(
            Job(teacher_student, {"recurrence": r, "parameterization": f, "learning_rate": rate, **training}, cost=10.0)
            for (r, f), rates in _STUDENTS.items()
            for rate in (rates[1:2] if options.quick else rates)
        ),
    ]


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    return {
        "modes": results_of(sensitivity_curves, results, "recurrence", "parameterization", "rates"),
        "measured_rates": _MEASURED,
        "correlated": results_of(correlated, results, "recurrence", "correlation", "distances"),
        "landscapes": results_of(landscapes, results, "parameterization", "rates"),
        "fits": results_of(stability_and_curvature, results, "parameterization", "horizon"),
        "training": results_of(teacher_student, results, "recurrence", "parameterization", "learning_rate", "slowest", "steps"),
    }


def _exponent(data: Data, f: str, key: str, blocks: str) -> float:
    """a in T^a from the first horizon to the last."""
    values, T = along_horizons(data, f, key, blocks), horizons(data)
    return float(np.log(values[-1] / values[0]) / np.log(T[-1] / T[0]))


def _claims(data: Data) -> list[Claim]:
    long = data["training"][0]["steps"] >= _STEPS
    return [*_mode_claims(data), *_correlated_claims(data), *(_training_claims(data) if long else ()), *_fit_claims(data)]


def _mode_claims(data: Data) -> list[Claim]:
    deviations, exponents, off = {}, {}, 0.0
    for one in data["modes"]:
        rates, closed = np.array(one["rates"]), np.array(one["sensitivities"])
        slow = rates < _SLOW
        exponent = float(np.polyfit(np.log(rates[slow]), np.log(closed[slow]), 1)[0])
        off = max(off, abs(exponent - _MODES[one["recurrence"], one["parameterization"]]))
        exponents[mode_name(one)] = exponent
        deviations[mode_name(one)] = float(np.abs(np.array(one["measured"]) / np.array(one["expected"]) - 1).max())
    (flat,) = (one for one in data["landscapes"] if one["parameterization"] == "exp")
    sech = 1 - 1 / np.cosh(np.array(flat["offsets"]) / 2)
    difference = float(np.abs(np.array(flat["losses"]) - sech).max())
    return [
        Claim(
            "E |∂h/∂w|² of simulated models is that of the closed form (fails if one differs by more than "
            f"{_MEASURED_TOLERANCE:.0%})",
            max(deviations.values()) <= _MEASURED_TOLERANCE,
            "largest deviations: " + "; ".join(f"{name} {value:.1%}" for name, value in deviations.items()),
        ),
        Claim(
            "Slow modes: E |∂h/∂w|² grows like rate^-3 (direct) and rate^-1 (exp, softplus) and stays (inverse); with γ it grows "
            "like rate^-2 (direct), stays (exp, lru) and vanishes like the rate (inverse) (fails if an exponent is off by more "
            f"than {_EXPONENT_TOLERANCE:g})",
            off <= _EXPONENT_TOLERANCE,
            "exponents: " + "; ".join(f"{name} {value:.3f}" for name, value in exponents.items()),
        ),
        Claim(
            "With γ = √(2ϱ) and exp the loss of one mode against another is 1 - sech((w - w*)/2), whatever the memory (fails if "
            f"it differs by more than {_ROUNDING:g})",
            difference <= _ROUNDING,
            f"largest difference {difference:.1e}, at rates {max(flat['rates']):g} to {min(flat['rates']):g}",
        ),
    ]


def _correlated_claims(data: Data) -> list[Claim]:
    with_gamma = {one["correlation"]: one for one in data["correlated"] if one["recurrence"] == "lru"}
    slowest = {r: with_gamma[r]["sensitivities"][0] for r in _PUBLISHED}
    constant, few = with_gamma[1.0], slice(0, 8)
    growth = np.polyfit(np.log(constant["distances"][few]), np.log(constant["sensitivities"][few]), 1)[0]
    return [
        Claim(
            "With γ and exp it is 0.5, 10 and 1000 for the slowest modes at correlations 0, 0.9 and 0.999 (fails if one is off "
            f"by more than {_READ_OFF:.0%}, to which the published plot can be read)",
            all(abs(math.log(slowest[r] / read)) <= math.log(1 + _READ_OFF) for r, read in _PUBLISHED.items()),
            f"at 1 - |λ| = {constant['distances'][0]:g}: " + ", ".join(f"{slowest[r]:.4g}" for r in _PUBLISHED),
        ),
        Claim(
            "γ normalises for short correlations alone: for a constant input E |∂h/∂w|² grows like 1 / (1 - |λ|) all the same "
            "(fails if the exponent is not within 0.05 of -1)",
            bool(abs(growth + 1) <= 0.05),
            f"exponent {growth:.3f}",
        ),
    ]


def _training_claims(data: Data) -> list[Claim]:
    n0, dense = best_losses(data, ("dense", "direct"))
    quotient = dense / best_losses(data, ("lru", "exp"))[1]
    medians = {kind: float(np.median(best_losses(data, kind)[1][-1])) for kind in _STUDENTS}
    diagonal = {kind: value for kind, value in medians.items() if kind[0] != "dense"}
    return [
        Claim(
            "Dense RNNs do not learn the teacher of the longest memory, LRUs do (fails if at one seed the dense one's loss is "
            f"less than {_FAR_BEHIND:g} times the LRU's at n0 = {n0[-1]:g})",
            bool((quotient[-1] >= _FAR_BEHIND).all()),
            f"quotients by seed {_list(quotient[-1])}",
        ),
        Claim(
            "Where the memory is short they are as good (fails if the median of the quotient is above "
            f"{_BESIDE:g} at n0 = {n0[0]:g})",
            bool(np.median(quotient[0]) <= _BESIDE),
            f"quotients by seed {_list(quotient[0])}",
        ),
        Claim(
            "The diagonal matters more than parameterisation and γ: all students of pairs learn it (fails if the median loss of "
            f"one is above a {1 / _APART:g}th of the dense one's at n0 = {n0[-1]:g})",
            max(diagonal.values()) <= _APART * medians["dense", "direct"],
            "median losses over the power: " + "; ".join(f"{STUDENT_STYLES[k][0]} {value:.2g}" for k, value in medians.items()),
        ),
    ]


def _fit_claims(data: Data) -> list[Claim]:
    r, curvature = (
        {f: {blocks: _exponent(data, f, key, blocks) for blocks in BLOCKS} for f in FITTED} for key in ("radii", "curvatures")
    )
    protected = [f for f in FITTED if f != "direct"]

    def both(blocks: str) -> str:
        pairs = "; ".join(f"{f} {r[f][blocks]:.2f} and {curvature[f][blocks]:.2f}" for f in FITTED)
        return f"exponents of T of r and of the curvature: {pairs}"

    return [
        Claim(
            "In the recurrent weights stable and trainable are the same: direct loses r and its curvature grows, the others keep "
            f"both (fails if an exponent of T of one of these is beyond ±{_STAYS:g}, or one of direct within ±{_GOES:g})",
            all(abs(of[f]["recurrent"]) <= _STAYS for of in (r, curvature) for f in protected)
            and r["direct"]["recurrent"] < -_GOES
            and curvature["direct"]["recurrent"] > _GOES,
            both("recurrent"),
        ),
        Claim(
            "Over all weights they are not: r falls with every parameterisation, while the curvature of the protected ones stays "
            f"(fails if r falls by less than T^-{_FALLS:g}, or if one of these curvatures grows by more than T^{_STAYS:g})",
            all(r[f]["all"] <= -_FALLS for f in FITTED) and all(curvature[f]["all"] <= _STAYS for f in protected),
            both("all"),
        ),
    ]


def _list(values: Any) -> str:
    return ", ".join(f"{value:.2g}" for value in values)


def _rows(data: Data) -> list[dict[str, Any]]:
    modes = [
        {
            "panel": "modes",
            "recurrence": one["recurrence"],
            "parameterization": one["parameterization"],
            "x": rate,
            "value": value,
        }
        for one in data["modes"]
        for rate, value in zip(one["rates"], one["sensitivities"])
    ]
    learnt = [
        {
            "panel": "teacher-student",
            "recurrence": one["recurrence"],
            "parameterization": one["parameterization"],
            "x": n0,
            "value": value,
            "learning_rate": one["learning_rate"],
            "seed": seed,
        }
        for one in data["training"]
        for n0, values in zip(one["slowest"], one["losses"])
        for seed, value in zip(_TEACHERS["seeds"], values)
    ]
    fits = [
        {
            "panel": f"fits, {blocks}",
            "recurrence": "diagonal",
            "parameterization": one["parameterization"],
            "x": one["horizon"],
            "value": one["curvatures"][blocks],
            "radius": one["radii"][blocks],
        }
        for one in data["fits"]
        for blocks in BLOCKS
    ]
    keys = ("panel", "recurrence", "parameterization", "x", "value", "radius", "learning_rate", "seed")
    return [{key: row.get(key, "") for key in keys} for row in (*modes, *fits, *learnt)]


def _findings(data: Data) -> str:
    losses = {
        kind: np.median(best_losses(data, kind)[1][-1] * np.array(data["training"][0]["power"])[-1])
        for kind in (("dense", "direct"), ("lru", "exp"))
    }
    n0, steps = data["training"][0]["slowest"][-1], data["training"][0]["steps"]
    T = horizons(data)
    slopes = {
        f: np.log(r[-1] / r[-2]) / np.log(T[-1] / T[-2])
        for f, r in ((f, along_horizons(data, f, "radii", "all")) for f in ("exp", "lru"))
    }
    return f"""At n0 = {n0:g} the losses themselves, after {steps} steps, have the medians {losses["dense", "direct"]:.2g}
(dense) and {losses["lru", "exp"]:.2g} (LRU); the published ones, after 10,000 steps with drawn inputs, are 0.4 and 2.5e-5.

Whether w moves γ, too, makes a factor of two: with γ as a weight of its own, as in the recurrence `lru` and in the published
curves, E |∂h/∂w|² of white noise comes to 1/2, where w sets γ, as in the parameterisation `lru`, to 1/4. What is flat
depends on the noise and on the normalisation: without γ it is the inverse parameterisation, whose f'² falls like the third
power of the rate; with γ it is exp, and inverse then hardly sees its slow modes.

Over all weights r falls least with `lru`: between the last two horizons like T^{slopes["lru"]:.2f}, with exp like
T^{slopes["exp"]:.2f}. Moving U and c of the slowest mode by β adds β² γ / l to the error, l its rate; γ is 1 for exp and
√(2l) for lru, so that r² is at most of the order of l for the one and of √l for the other. It tends to 0 for both."""


VANISHING_GRADIENTS = Figure(
    name="vanishing-gradients",
    title="Sensitivity and curvature as memory grows: which parameterisations are stable and trainable",
    source="[VEG] Fig 1 to 3",
    published="""Even with stable dynamics the state of a linear mode becomes ever more sensitive to its eigenvalue as memory
grows: E |dh/dλ|² = (1 + |λ|²)/(1 - |λ|²)³ for white noise, and more for correlated inputs (Fig 1A, 2). Normalising the input
by γ = √(1 - |λ|²) and λ = exp(-exp(w)) keep it bounded. Students of 64 states learn teachers of 10 states with moduli from
n0 to 1: dense RNNs reach losses of 8e-9, 5e-4 and 0.4 at n0 = 0.36, 0.96 and 0.99, LRUs 5e-8, 5e-6 and 2.5e-5 (Fig 3; Adam,
10,000 steps, 10 seeds).""",
    settings=f"""Top left: single modes in continuous time, white noise of unit intensity, U = 1; γ = √(1 - e^(-2ϱ)) is a
weight of its own (recurrence `lru`), γ(w) = √(ϱ(2 - ϱ)) that of the parameterisation `lru`; points are simulations on 128
sequences. Top middle: maps with λ = exp(-exp(w)), input R(d) = r^d. Top right: the exact loss of one normalised mode against
another. Bottom left: students of {_TEACHERS["student_size"]} states and teachers of {_TEACHERS["teacher_size"]}, on the
exact expected loss of sequences of {_TEACHERS["horizon"]} samples, which needs no inputs; Adam with a cosine schedule,
{_STEPS} steps, the best of three learning rates by the median over the seeds, loss over the power of the teacher. No
feedthrough D. Lines are medians, bands all seeds. Bottom middle and right: linear diagonal models of {_WIDTH} units fitted
to (1+t)^-1.1 on [0, T], T = {_HORIZONS[0]:g} to {_HORIZONS[-1]:g}: the largest eigenvalue of E (∂y/∂θ)(∂y/∂θ)ᵀ on white
noise, over E y², and the tolerance radius r of E_m(β) by ascent; solid for the recurrent weights, dashed for all.""",
    jobs=_jobs,
    assemble=_assemble,
    plot=plot,
    claims=_claims,
    rows=_rows,
    findings=_findings,
)
