"""[CoM]: the loss of linear RNNs stays on a plateau for a time that grows exponentially with the memory of the target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...plotting import BLACK, BLUE, GREY, label, picture, shades
from ..compute.kernel_gradient_flow import descent, plateau
from ..engine.figure import Claim, Data, Figure, Job, Options, Result, results_of

_CENTERS = (4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0)
_WIDTH, _DROP, _LIMIT = 4, 0.05, 1e12
_SEEDS = range(5)
# The check by gradient descent, where it takes no more than some thousand steps.
_CHECKED, _LEARNING_RATE, _STEPS = (4.0, 6.0, 8.0), 0.01, 20_000
# Straightness of log(length) against memory, for all seeds together; the same line must beat a power law.
_CORRELATION = 0.95
_AGREEMENT = 0.05


def _jobs(options: Options) -> list[Job]:
    shared = {"hidden_size": _WIDTH, "drop": _DROP}
    seeds = _SEEDS[:3] if options.quick else _SEEDS
    flows = [
        Job(plateau, {**shared, "center": center, "seed": seed, "limit": _LIMIT}, cost=0.5)
        for seed in seeds
        for center in _CENTERS
    ]
    check = {**shared, "learning_rate": _LEARNING_RATE, "steps": _STEPS}
    return flows + [
        Job(descent, {**check, "center": center, "seed": seed}, cost=2.0)
        for seed in (seeds[:1] if options.quick else seeds)
        for center in _CHECKED
    ]


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    return {
        "flows": results_of(plateau, results, "center", "seed"),
        "descents": results_of(descent, results, "center", "seed"),
    }


def _lengths(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Memories (memory,) and lengths of the plateaus (seed, memory); NaN where the loss did not leave it."""
    centers = sorted({one["center"] for one in data["flows"]})
    seeds = sorted({one["seed"] for one in data["flows"]})
    found = {(one["seed"], one["center"]): one for one in data["flows"]}

    def length(flow: dict[str, Any]) -> float:
        return np.nan if flow["stop"] is None else flow["stop"] - (flow["start"] or 0.0)

    return np.array(centers), np.array([[length(found[seed, center]) for center in centers] for seed in seeds])


def _fit(x: np.ndarray, lengths: np.ndarray) -> tuple[float, float, float]:
    """Slope, intercept and correlation of log(length) against x, over all seeds."""
    xs, ys = np.tile(x, len(lengths)), np.log(lengths).ravel()
    slope, intercept = np.polyfit(xs, ys, 1)
    return float(slope), float(intercept), float(np.corrcoef(xs, ys)[0, 1])


def _plot(data: Data, path: Path) -> None:
    memories, lengths = _lengths(data)
    slope, intercept, _ = _fit(memories, lengths)
    with picture(path, columns=2, width=8.0, height=3.2) as (_, (left, right)):
        for center, colour in zip(memories, shades(len(memories))):
            flow = next(one for one in data["flows"] if one["center"] == center and one["seed"] == data["flows"][0]["seed"])
            left.plot(flow["times"], flow["losses"], color=colour, label=rf"$1/\omega$ = {center:g}")
        left.axhline(data["flows"][-1]["level"], color=GREY, ls=":", label="late part unlearned")
        left.set_xscale("log")
        # Training is followed to the end of the plateau.
        left.set_ylim(bottom=(1 - 2 * _DROP) * data["flows"][-1]["level"])
        label(
            left, x="training time (gradient flow)", y=r"loss $\int(\rho-\hat\rho)^2dt$", title=f"seed {data['flows'][0]['seed']}"
        )
        left.legend(loc="upper right", fontsize=7)
        for k, row in enumerate(lengths):
            right.plot(memories, row, "o", color=BLUE, label="gradient flow, each seed" if k == 0 else None)
        checked = [one for one in data["descents"] if one["stop"] is not None]
        starts = {(one["seed"], one["center"]): one["start"] or 0.0 for one in data["flows"]}
        right.plot(
            [one["center"] for one in checked],
            [one["stop"] - starts[one["seed"], one["center"]] for one in checked],
            "x",
            color=BLACK,
            ms=6,
            label="gradient descent",
        )
        right.plot(memories, np.exp(slope * memories + intercept), color=GREY, label=rf"fit $\propto e^{{{slope:.2f}/\omega}}$")
        right.set_yscale("log")
        label(right, x=r"memory of the target, $1/\omega$ (time)", y="length of the plateau (training time)")
        right.legend(loc="upper left")


def _claims(data: Data) -> list[Claim]:
    memories, lengths = _lengths(data)
    slope, _, straight = _fit(memories, lengths)
    _, _, power = _fit(np.log(memories), lengths)
    stops = {(one["seed"], one["center"]): one["stop"] for one in data["flows"]}
    apart = [
        abs(one["stop"] / stops[one["seed"], one["center"]] - 1) if one["stop"] is not None else np.inf
        for one in data["descents"]
    ]
    shown = "; ".join(f"{memory:g}: {np.median(column):.2g}" for memory, column in zip(memories, lengths.T))
    return [
        Claim(
            "Every loss meets the plateau, and leaves it in the end (fails if one run does not)",
            bool(np.isfinite(lengths).all()) and all(one["start"] is not None for one in data["flows"]),
            f"{int(np.isfinite(lengths).sum())} of {lengths.size} runs",
        ),
        Claim(
            "The plateau is longer for every longer memory (fails if a longer one has a shorter plateau, at one seed)",
            bool((np.diff(lengths) > 0).all()),
            f"medians {shown}",
        ),
        Claim(
            f"Its length grows exponentially with the memory (fails if the correlation of its logarithm is at most "
            f"{_CORRELATION:g}, or at most that with a power law)",
            straight > _CORRELATION and straight > power,
            f"length ∝ e^({slope:.2f}/ω), correlation {straight:.4f}; with log(1/ω) {power:.4f}",
        ),
        Claim(
            f"Gradient descent by autograd leaves the plateau at the same training time (fails if one run differs by more than "
            f"{_AGREEMENT:.0%})",
            max(apart) <= _AGREEMENT,
            f"largest difference {max(apart):.1%} of {len(apart)} runs",
        ),
    ]


def _rows(data: Data) -> list[dict[str, Any]]:
    parts = (("gradient flow", "flows"), ("gradient descent", "descents"))
    return [
        {"method": method, "memory": one["center"], "seed": one["seed"], "start": one.get("start"), "stop": one["stop"]}
        for method, part in parts
        for one in data[part]
    ]


def _findings(data: Data) -> str:
    memories, lengths = _lengths(data)
    slopes = ", ".join(f"{_fit(memories, row[None])[0]:.2f}" for row in lengths)
    return f"""The exponents of the single seeds are {slopes}; within a seed the steps are uneven, since which mode leaves first
changes with the memory. Their size is what the mechanism says: a mode e^-rt feels the late part with strength e^(-r/ω), and all
rates start between 1 and 2."""


COM_PLATEAU = Figure(
    name="com-plateau",
    title="The plateau in training grows exponentially with the memory",
    source="[CoM] training dynamics",
    published="""Linear RNNs trained by gradient flow on targets with a short-term part and a part at lag 1/ω: the loss first
falls to a plateau, on which only the short-term part is learned, and leaves it after a time exponential in 1/ω.""",
    settings=f"""ρ(t) = e^-t + e^-(t-1/ω)² with 1/ω from {_CENTERS[0]:g} to {_CENTERS[-1]:g}; linear diagonal RNNs,
m = {_WIDTH}. Gradient flow on the L2 distance of the kernels in closed form, which for white noise is the mean square error,
followed by a stiff solver in double precision: sampled inputs, step sizes and batches play no part. Rates start log-uniform in
[1, 2], no slower than the short-term part (a mode that is slow at the start has seen the late part already), U and c
at 0.3 of the usual size. The plateau is the time between 1 + {_DROP:g} and 1 - {_DROP:g} times the energy of the late part.
Crosses: plain gradient descent at rate {_LEARNING_RATE:g} on a quadrature of the same loss.""",
    jobs=_jobs,
    assemble=_assemble,
    plot=_plot,
    claims=_claims,
    rows=_rows,
    findings=_findings,
)
