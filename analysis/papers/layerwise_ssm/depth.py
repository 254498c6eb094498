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
# Part of the fits that must be named exponential, and of the intervals of so many standard errors that must hold the true rate.
_NEARLY_ALL, _ERRORS = 0.9, 2
# How far the median of the rates may be from that of the slowest mode.
_NEAR = 0.2


def _jobs(options: Options) -> list[Job]:
    seeds = list(QUICK_SEEDS if options.quick else SEEDS)
    shared = {"units": UNITS, "activation": ACTIVATION, "amplitude": AMPLITUDE, "horizon": HORIZON, "samples": SAMPLES}
    return [
        Job(deep_ssm_memory, {"layers": layers, **shared, "seeds": seeds}, cost=0.1 * layers * len(seeds)) for layers in DEPTHS
    ]


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    return {"depths": results_of(deep_ssm_memory, results, "layers")}


def _ratios(depth: dict[str, Any]) -> list[float]:
    """Fitted rate over the rate of the slowest mode, of every seed named exponential."""
    return [fit["rate"] / fit["slowest"] for fit in depth["fits"] if fit["rate"] is not None]


def _covered(depth: dict[str, Any]) -> int:
    """How many of the intervals hold the rate of the slowest mode."""
    fits = [fit for fit in depth["fits"] if fit["rate"] is not None]
    return sum(abs(fit["rate"] - fit["slowest"]) <= _ERRORS * fit["stderr"] for fit in fits)


def _shortfalls(depth: dict[str, Any]) -> list[float]:
    """By how much each rate is below that of the slowest mode, over (L - 1) / t at the middle t of its window: the slope of
    log(t^(L-1) e^-rt) is -r + (L - 1) / t."""
    fits = [fit for fit in depth["fits"] if fit["rate"] is not None]
    return [(fit["slowest"] - fit["rate"]) * np.mean(fit["window"]) / (depth["layers"] - 1) for fit in fits]


def _claims(data: Data) -> list[Claim]:
    counts = {depth["layers"]: (exponentials(depth["fits"]), len(depth["fits"])) for depth in data["depths"]}
    medians = {depth["layers"]: float(np.median(_ratios(depth) or [np.nan])) for depth in data["depths"]}
    covered = {depth["layers"]: (_covered(depth), len(depth["fits"])) for depth in data["depths"]}
    stacked = {depth["layers"]: max(_shortfalls(depth), default=np.nan) for depth in data["depths"] if depth["layers"] > 1}
    return [
        Claim(
            f"The memory decays exponentially at every depth (fails if at one fewer than {_NEARLY_ALL:.0%} of seeds do)",
            all(found >= _NEARLY_ALL * total for found, total in counts.values()),
            _counted(counts),
        ),
        Claim(
            f"The rate is that of the slowest mode of any layer (fails if at some depth fewer than {_NEARLY_ALL:.0%} of the "
            f"intervals of ± {_ERRORS} standard errors hold it)",
            all(found >= _NEARLY_ALL * total for found, total in covered.values()),
            _counted(covered),
        ),
        Claim(
            f"No depth changes it (fails if at one the median over seeds is off by more than {_NEAR:.0%})",
            all(abs(ratio - 1) <= _NEAR for ratio in medians.values()),
            "median of fitted rate / slowest rate: "
            + ", ".join(f"L = {layers}: {ratio:.3f}" for layers, ratio in medians.items()),
        ),
        Claim(
            "Where stacked layers decay more slowly than that on the window, it is by no more than t^(L-1) explains (fails if a "
            "rate is below by more than (L - 1)/t, t the middle of its window)",
            all(shortfall <= 1 for shortfall in stacked.values()),
            "largest shortfall in units of (L - 1)/t: " + ", ".join(f"L = {L}: {value:.2f}" for L, value in stacked.items()),
        ),
    ]


def _counted(counts: dict[int, tuple[int, int]]) -> str:
    return ", ".join(f"{layers} layer{'s' * (layers > 1)}: {found} of {total}" for layers, (found, total) in counts.items())


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
                    rates.errorbar(x, fit["rate"], _ERRORS * fit["stderr"], fmt="o", color=colour, ms=3, lw=1)
                rates.plot([x - 0.02, x + 0.02], [fit["slowest"]] * 2, color=BLACK, lw=1.5)
        memory.set_yscale("log")
        memory.set_xlim(0, HORIZON)
        label(memory, x="time $t$", y=r"$M(t) = |\frac{d}{dt}H_t(u^x)|\,/\,|x|$", title=f"tanh SSM, $m$ = {UNITS}, $|x|$ = 1")
        memory.legend(loc="upper right")
        rates.plot([], [], "o", color=colours[0], ms=3, label=f"fitted rate, ± {_ERRORS} standard errors")
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
outputs as units (|y| is their Euclidean norm; a single output crosses zero), Heaviside input at |x| = {AMPLITUDE:g}, solved to
rtol 1e-12, 12 seeds. Lines are means of log M, bands one standard deviation.""",
    jobs=_jobs,
    assemble=_assemble,
    claims=_claims,
    plot=_plot,
    rows=_rows,
    findings="""Each layer filters the one below: a mode of rate r that the layers share gives t^(L-1) e^(-r t), which bends the
start of the curves of deeper models. Layers that share r only nearly do so on every finite window, whose slope is then up to
(L-1)/t less than r: at L = 3 and 4 the fitted rates lie up to 14 % below that of the slowest mode, nearly all of them on that
side. That is no chance, and a longer window does not cure it soon: the memory reaches the solver's rounding, 1e-10 of its largest
value, by t = 80. The standard errors carry it: they are those of `analysis.fit_decay`, which add to the scatter what the rate
differs between windows and in the direction that r - k/t still has to go. The law itself stays exponential, with a rate that no
depth changes but by the modes it adds.""",
)
