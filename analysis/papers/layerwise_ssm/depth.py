"""[SSM]: state-space models with layer-wise nonlinearity have exponentially decaying memory, whatever their depth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...plotting import BLACK, label, picture, shades
from ..compute.deep_ssm import deep_ssm_memory
from ..compute.memory_bands import exponentials
from ..engine.figure import Claim, Data, Figure, Job, Options, Result, results_of

DEPTHS = (1, 2, 3, 4)
UNITS, ACTIVATION, AMPLITUDE = 16, "tanh", 1.0
HORIZON, SAMPLES = 80.0, 161
SEEDS, QUICK_SEEDS = range(12), range(2)
# Part of the fits that must be named exponential, and how far the rate may be from that of the slowest mode.
_NEARLY_ALL, _NEAR = 0.9, 0.2


def _jobs(options: Options) -> list[Job]:
    seeds = list(QUICK_SEEDS if options.quick else SEEDS)
    shared = {"units": UNITS, "activation": ACTIVATION, "amplitude": AMPLITUDE, "horizon": HORIZON, "samples": SAMPLES}
    return [
        Job(deep_ssm_memory, {"layers": layers, **shared, "seeds": seeds}, cost=0.2 * layers * len(seeds)) for layers in DEPTHS
    ]


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    return {"depths": results_of(deep_ssm_memory, results, "layers")}


def _ratios(depth: dict[str, Any]) -> list[float]:
    """Fitted rate over the rate of the slowest mode, of every seed named exponential."""
    return [fit["rate"] / fit["slowest"] for fit in depth["fits"] if fit["rate"] is not None]


def _claims(data: Data) -> list[Claim]:
    counts = {depth["layers"]: (exponentials(depth["fits"]), len(depth["fits"])) for depth in data["depths"]}
    medians = {depth["layers"]: float(np.median(_ratios(depth) or [np.nan])) for depth in data["depths"]}
    return [
        Claim(
            f"The memory decays exponentially at every depth, for {_NEARLY_ALL:.0%} of seeds",
            all(found >= _NEARLY_ALL * total for found, total in counts.values()),
            ", ".join(f"{layers} layer{'s' * (layers > 1)}: {found} of {total}" for layers, (found, total) in counts.items()),
        ),
        Claim(
            f"The rate is that of the slowest mode of any layer, within {_NEAR:.0%}, at every depth",
            all(abs(ratio - 1) <= _NEAR for ratio in medians.values()),
            "median of fitted rate / slowest rate: "
            + ", ".join(f"L = {layers}: {ratio:.3f}" for layers, ratio in medians.items()),
        ),
    ]


def _plot(data: Data, path: Path) -> None:
    colours = shades(len(DEPTHS))
    with picture(path, columns=2, width=8.0, height=3.2) as (_, (memory, rates)):
        for depth, colour in zip(data["depths"], colours):
            layers = depth["layers"]
            t, mean, deviation = (np.asarray(depth["curve"][key]) for key in ("times", "mean", "deviation"))
            memory.fill_between(t, 10 ** (mean - deviation), 10 ** (mean + deviation), color=colour, alpha=0.25, lw=0)
            memory.plot(t, 10**mean, color=colour, label=f"{layers} layer{'s' * (layers > 1)}")
            for fit in depth["fits"]:
                # Side by side, in the order of seeds.
                x = layers + 0.5 * ((fit["seed"] + 0.5) / len(depth["fits"]) - 0.5)
                if fit["rate"] is not None:
                    rates.errorbar(x, fit["rate"], 2 * fit["stderr"], fmt="o", color=colour, ms=3, lw=1)
                rates.plot([x - 0.02, x + 0.02], [fit["slowest"]] * 2, color=BLACK, lw=1.5)
        memory.set_yscale("log")
        memory.set_xlim(0, HORIZON)
        label(memory, x="time $t$", y=r"$M(t) = |\frac{d}{dt}H_t(u^x)|\,/\,|x|$", title=f"tanh SSM, $m$ = {UNITS}, $|x|$ = 1")
        memory.legend(loc="upper right")
        rates.plot([], [], "o", color=colours[0], ms=3, label="fitted rate, ± 2 standard errors")
        rates.plot([], [], color=BLACK, lw=1.5, label="slowest mode of any layer")
        rates.set_xticks(DEPTHS)
        rates.set_ylim(bottom=0)
        label(rates, x="layers", y="rate of decay (1 / time)", title="each seed")
        rates.legend(loc="lower left")


def _rows(data: Data) -> list[dict[str, Any]]:
    return [
        {
            "layers": depth["layers"],
            "seed": fit["seed"],
            "law": fit["law"],
            "rate": fit["rate"],
            "stderr": fit["stderr"],
            "slowest_mode_rate": fit["slowest"],
            "window_start": fit["window"][0],
            "window_end": fit["window"][1],
        }
        for depth in data["depths"]
        for fit in depth["fits"]
    ]


FIGURE = Figure(
    name="ssm-depth",
    title="Memory of state-space models of one to four layers",
    source="[SSM]",
    published="State-space models with layer-wise nonlinearity have exponentially decaying memory, whatever the depth: layers "
    "add expressive power and no long memory.",
    settings=f"""dh/dt = W h + U z, z = tanh(h), {UNITS} units a layer, W = PᵀΛP with rates log-uniform in [0.3, 2], as many
outputs as units (|y| is their Euclidean norm; a single output crosses zero), Heaviside input at |x| = {AMPLITUDE:g}, dopri5 at
rtol 1e-12, 12 seeds. Lines are means of log M, bands one standard deviation.""",
    jobs=_jobs,
    assemble=_assemble,
    claims=_claims,
    plot=_plot,
    rows=_rows,
    findings="""Each layer filters the one below: a mode of rate r that the layers share gives t^(L-1) e^(-r t), which bends the
start of the curves of deeper models and lowers the rate fitted on a finite window. The law itself stays exponential, with a
rate that no depth changes but by the modes it adds.""",
)
