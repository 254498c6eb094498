"""[AAK]: the floor that Hankel singular values put under every linear model of m states, and what fits and trainings reach."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...hankel.picture import draw_width_errors
from ...hankel.widths import WidthErrors
from ...plotting import BLACK, BLUE, GREEN, GREY, VERMILION, label, picture
from ..compute.hankel_floors import errors_over_width, trained_error, values
from ..engine.figure import Claim, Data, Figure, Job, Options, Result, results_of

_SMOOTH, _SLOW, _BUMP, _JUMPS = "polynomial:exponent=1.5", "polynomial:exponent=1.1", "two_part", "shift"
_KERNELS = {_SMOOTH: r"$(1+t)^{-1.5}$", _SLOW: r"$(1+t)^{-1.1}$", _BUMP: r"$e^{-t}+e^{-(t-9)^2}$", _JUMPS: r"1 on $9<t<11$"}
_HORIZON = 100.0
_WIDTHS, _QUICK_WIDTHS = (1, 2, 4, 8, 16, 32), (1, 2, 4, 8)
_PARAMETERIZATIONS = ("direct", "exp", "softplus", "inverse")
_STEPS, _QUICK_STEPS, _LEARNING_RATE, _SEEDS = 2000, 300, 0.03, (0, 1, 2)
_LAW = {"polynomial:exponent=1.5": 1.5, "polynomial:exponent=2": 2.0, "polynomial:exponent=3": 3.0}
_LAW_WIDTHS, _LAW_LEAST = 32, 24
# What the law says of -log sigma_m, it has reached by this part at the last m.
_REACHED = 0.75
# An error so many times another is of another kind.
_WORSE = 10
# Quadrature of the L1 distances, which have kinks, and rounding of the floor.
_ROUNDING = 1e-4


def _jobs(options: Options) -> list[Job]:
    widths = _QUICK_WIDTHS if options.quick else _WIDTHS
    steps, seeds = (_QUICK_STEPS, _SEEDS[:1]) if options.quick else (_STEPS, _SEEDS)
    shared = {"horizon": _HORIZON}
    jobs = [Job(values, {"kernel": kernel, "count": _LAW_WIDTHS}, cost=0.3) for kernel in _LAW]
    jobs += [
        Job(
            errors_over_width,
            {**shared, "kernel": kernel, "widths": widths, "parameterizations": ["direct"], "seed": 0},
            cost=0.2 * sum(widths),
        )
        for kernel in _KERNELS
    ]
    return jobs + [
        Job(
            trained_error,
            {
                **shared,
                "kernel": kernel,
                "parameterization": f,
                "width": m,
                "steps": steps,
                "learning_rate": _LEARNING_RATE,
                "seed": seed,
            },
            cost=steps / 1000,
        )
        for kernel in _KERNELS
        for f in _PARAMETERIZATIONS
        for m in widths
        for seed in seeds
    ]


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    return {
        "law": results_of(values, results, "kernel"),
        "errors": results_of(errors_over_width, results, "kernel"),
        "trained": results_of(trained_error, results, "kernel", "parameterization", "width", "seed"),
    }


def _errors(data: Data, kernel: str) -> WidthErrors:
    """With the median over the seeds of each training."""
    one = next(one for one in data["errors"] if one["kernel"] == kernel)
    trained = {
        f"trained, {f}": [
            float(np.median([run["error"] for run in _runs(data, kernel) if (run["parameterization"], run["width"]) == (f, m)]))
            for m in one["widths"]
        ]
        for f in _PARAMETERIZATIONS
    }
    return WidthErrors.from_dict({**one, "trained": trained})


def _runs(data: Data, kernel: str) -> list[dict[str, Any]]:
    return [run for run in data["trained"] if run["kernel"] == kernel]


def _ratios(data: Data) -> dict[str, np.ndarray]:
    """-log sigma_m over pi sqrt(2 (a-1) m), m = 1, 2, ..."""
    found = {}
    for one in data["law"]:
        m = np.arange(1, len(one["values"]) + 1)
        found[one["kernel"]] = -np.log(one["values"]) / (math.pi * np.sqrt(2 * (_LAW[one["kernel"]] - 1) * m))
    return found


def _plot(data: Data, path: Path) -> None:
    with picture(path, rows=2, columns=3, width=9.5, height=6.0) as (figure, panels):
        for axes, kernel in zip(panels, _KERNELS):
            draw_width_errors(axes, _errors(data, kernel), title=f"{_KERNELS[kernel]}, $T$ = {_HORIZON:g}")
        for axes in (panels[1], panels[2]):
            axes.set_ylabel("")
        handles: dict[str, Any] = {}
        for axes in panels[: len(_KERNELS)]:
            for handle, name in zip(*axes.get_legend_handles_labels()):
                handles.setdefault(name, handle)
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
        law, width = panels[len(_KERNELS) :]
        for (kernel, ratio), colour in zip(_ratios(data).items(), (BLUE, VERMILION, GREEN)):
            law.plot(np.arange(1, len(ratio) + 1), ratio, "o-", color=colour, lw=0.8, label=f"a = {_LAW[kernel]:g}")
        law.axhline(1.0, color=BLACK, ls="--", lw=0.8)
        law.set_ylim(0, 1.1)
        label(law, x="$m$", y=r"$-\log\sigma_m\,/\,\pi\sqrt{2(a-1)m}$", title=r"the law of $(1+t)^{-a}$ on $[0,\infty)$")
        law.legend(loc="lower right")
        runs = [run for run in _runs(data, _SMOOTH) if run["effective_width"] is not None]
        for f, colour in zip(_PARAMETERIZATIONS, (VERMILION, GREEN, "#CC79A7", "#56B4E9")):
            mine = [run for run in runs if run["parameterization"] == f]
            width.plot([run["width"] for run in mine], [run["effective_width"] for run in mine], "o", color=colour, alpha=0.6)
        widths = sorted({run["width"] for run in runs})
        width.plot(widths, widths, color=GREY, lw=0.8)
        width.set_xscale("log", base=2)
        width.set_yscale("log", base=2)
        width.set_xticks(widths, [str(m) for m in widths])
        width.set_yticks(widths, [str(m) for m in widths])
        width.text(widths[-1], widths[-1], "all states ", ha="right", va="center", color=GREY, fontsize=8)
        title = f"states that trained models use, {_KERNELS[_SMOOTH]}"
        label(width, x="width $m$", y=r"$(\sum\sigma)^2/\sum\sigma^2$", title=title)


def _claims(data: Data) -> list[Claim]:
    every = {kernel: _errors(data, kernel) for kernel in _KERNELS}
    margins = {}
    for kernel, errors in every.items():
        for k, m in enumerate(errors.widths):
            reached = [*(fit[k] for fit in errors.fits.values()), errors.reached[k]]
            reached += [run["error"] for run in _runs(data, kernel) if run["width"] == m]
            if errors.floor[k] > 0:
                margins[kernel, m] = np.nanmin(reached) / errors.floor[k]
    closest = min(margins, key=lambda key: margins[key])
    ratios = _ratios(data)
    last = {kernel: ratio[-1] for kernel, ratio in ratios.items()}
    rising = all((np.diff(ratio) > 0).all() for ratio in ratios.values())
    # of the widest models: the best that is known, and the best of the trained
    known = {
        kernel: min(errors.fits["direct"][-1], np.nan_to_num(errors.reached[-1], nan=np.inf)) for kernel, errors in every.items()
    }
    best = {kernel: float(np.nanmin([values[-1] for values in errors.trained.values()])) for kernel, errors in every.items()}
    widest, powers = every[_JUMPS].widths[-1], (_SMOOTH, _SLOW)
    needed = every[_JUMPS].floor[-1]
    return [
        Claim(
            "No linear model comes below the floor σ_{m+1}, be it a balanced truncation, a fit or trained (fails if one does)",
            margins[closest] >= 1 - _ROUNDING,
            f"smallest error / floor {margins[closest]:.3g}, of {closest[0]} at m = {closest[1]}; {len(margins)} floors",
        ),
        Claim(
            f"The singular values of (1+t)^-a follow the root-exponential law, slowly (fails if -log σ_m / π√(2(a-1)m) does not "
            f"rise at every m, or is not within [{_REACHED:g}, 1] at the last m ≤ {_LAW_WIDTHS} that is resolved, or if that is "
            f"below {_LAW_LEAST})",
            rising
            and all(_REACHED <= value <= 1 for value in last.values())
            and all(ratio.size >= _LAW_LEAST for ratio in ratios.values()),
            "; ".join(
                f"a = {_LAW[kernel]:g}: {ratio[0]:.2f} at m = 1, {ratio[-1]:.2f} at m = {ratio.size}"
                for kernel, ratio in ratios.items()
            ),
        ),
        Claim(
            f"Jumps need width, slow decay does not (fails if no linear model of the widest width is known whose error for the "
            f"power laws is {_WORSE:g} times below the floor of all models of that width for the delayed window)",
            all(_WORSE * known[kernel] <= needed for kernel in powers),
            f"at m = {widest} reached {_of_each(known, powers)}; floor of the window {needed:.2g}",
        ),
        Claim(
            "For power laws most of the error of the widest trained models is their training's, not their width's (fails if the "
            "best linear model known of that width has more than half the error of the best of all parameterisations, median "
            "over seeds)",
            all(best[kernel] >= 2 * known[kernel] for kernel in powers),
            f"trained {_of_each(best, powers)}; reached {_of_each(known, powers)}; "
            f"floors {_of_each({kernel: errors.floor[-1] for kernel, errors in every.items()}, powers)}",
        ),
    ]


def _of_each(values: Mapping[str, float], kernels: Sequence[str]) -> str:
    return ", ".join(f"{values[kernel]:.2g} ({_KERNELS[kernel].strip('$')})" for kernel in kernels)


def _rows(data: Data) -> list[dict[str, Any]]:
    rows = []
    for kernel in _KERNELS:
        errors = _errors(data, kernel)
        columns = {"floor": errors.floor, "ceiling": errors.ceiling, "balanced truncation": errors.reached}
        columns |= {f"fit, {f}": found for f, found in errors.fits.items()}
        for name, found in columns.items():
            rows += [
                {"kernel": kernel, "model": name, "width": m, "seed": None, "relative_error": float(value)}
                for m, value in zip(errors.widths, found)
            ]
        rows += [
            {
                "kernel": kernel,
                "model": f"trained, {run['parameterization']}",
                "width": run["width"],
                "seed": run["seed"],
                "relative_error": run["error"],
            }
            for run in _runs(data, kernel)
        ]
    return rows


HANKEL_FLOOR = Figure(
    name="hankel-floor",
    title="A certified floor under every linear model of m states",
    source="[AAK], [Glover]",
    published="""Adamyan, Arov and Krein (1971): the best approximation of a Hankel operator by one of rank m misses it by
σ_{m+1}. Glover (1984): balanced truncation misses a system by at most 2 (σ_{m+1} + σ_{m+2} + ...) in the H∞ norm. Neither paper
has neural networks or this picture.""",
    settings=f"""Relative L1 distances of kernels on [0, {_HORIZON:g}], the first part of the error norm of [IA]. The floor is
σ_{{m+1}} on that horizon, the ceiling that on [0, ∞), of the H∞ error. Balanced truncations come from the target's own singular
functions, with complex poles too; fits are by variable projection in L2; training is by Adam on the expected loss of white
noise, ∫(ρ-ρ̂)²dt in closed form, {_STEPS} steps from {_LEARNING_RATE:g} to 0, medians of {len(_SEEDS)} seeds. Fitted and
trained models are diagonal, with real rates. Both minimise squares: their L1 errors may be above 1, that of no model at all.""",
    jobs=_jobs,
    assemble=_assemble,
    plot=_plot,
    claims=_claims,
    rows=_rows,
    findings="""The floor holds for every linear model, trained or not, of any recurrence and parameterisation. The fits stop
where their penalties on large amplitudes do. Smooth power laws are cheap to represent: what is left of the error of a
wide trained model belongs to its training. A bump or a window far from t = 0 is another matter: the floor falls slowly with m,
and real rates do not come near it; truncations, whose poles are complex, do.""",
)
