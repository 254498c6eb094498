"""[IA] Fig 10: the memory of randomly initialised RNN, GRU, LSTM and S4, Heaviside against impulse probe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...decay import EXPONENTIAL_END
from ...plotting import label, picture, shades
from ..compute.memory_bands import exponentials
from ..compute.random_networks import PROBES, network_memory, settled_rates
from ..compute.s4d import STEPS
from ..engine.figure import Claim, Data, Figure, Job, Options, Result

KINDS = ("RNN", "GRU", "LSTM", "S4D")
DEPTHS = {"RNN": (1, 2, 3, 4), "GRU": (1, 2, 3, 4), "LSTM": (1, 2, 3, 4), "S4D": (1, 2, 3)}
UNITS, STATES = 64, 16
SEEDS, QUICK_SEEDS = range(20), range(2)
AMPLITUDES = (0.1, 1.0, 10.0)
SMALL, LARGE, DRAWN = 1.0, 10.0, 1.0
# Samples of the window: until a float64 curve has met its numerical floor; S4D is ten times slower, see STEPS.
_SAMPLES = {"RNN": 200, "GRU": 200, "LSTM": 200, "S4D": 2400}
# Without input, until nothing moves any more; S4D has no biases and is at rest.
_WARMUP = {"RNN": 200, "GRU": 200, "LSTM": 200, "S4D": 0}
# Of S4D fits leave out the time in which the modes of up to ten times the slowest rate die out.
_FIT_FROM = {"RNN": 0, "GRU": 0, "LSTM": 0, "S4D": 800}
_LINEARISED = ("RNN", "GRU", "LSTM")
# Part of the fits that must be named exponential, mismatch of rates that counts as agreement, and as a difference.
_NEARLY_ALL, _AGREE, _PART = 0.9, 0.05, 0.2
# Of the recurrent networks; of single ones the samples leave open whether a stretched exponent near 1 describes them as well.
_ALL_BUT_A_FEW = 0.99
_LEVELS = (25, 50, 75)
_PROBE_NAMES = {"heaviside": "Heaviside", "impulse": "impulse"}


def _jobs(options: Options) -> list[Job]:
    seeds = list(QUICK_SEEDS if options.quick else SEEDS)
    shared = {"units": UNITS, "amplitudes": AMPLITUDES, "seeds": seeds}
    memories = [
        Job(
            network_memory,
            {
                **shared,
                "kind": kind,
                "layers": layers,
                "states": STATES,
                "samples": _SAMPLES[kind],
                "fit_from": _FIT_FROM[kind],
                "warmup": _WARMUP[kind],
            },
            cost=len(seeds) * layers * (0.8 if kind == "S4D" else 0.06),
        )
        for kind in KINDS
        for layers in DEPTHS[kind]
    ]
    linearised = [Job(settled_rates, {**shared, "kind": kind, "samples": 400}, cost=0.05 * len(seeds)) for kind in _LINEARISED]
    return memories + linearised


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    memories = [(job.settings, result) for job, result in results if job.compute is network_memory]
    linearised = [(job.settings, result) for job, result in results if job.compute is settled_rates]
    return {
        "panels": [
            {
                "kind": settings["kind"],
                "layers": settings["layers"],
                **result,
                "curves": [curve for curve in result["curves"] if curve["amplitude"] == DRAWN],
            }
            for settings, result in memories
        ],
        "linearised": [{"kind": settings["kind"], **rate} for settings, result in linearised for rate in result["rates"]],
    }


def _pairs(panel: Mapping[str, Any], amplitude: float) -> Iterator[tuple[float, float]]:
    """Rates under (Heaviside, impulse), of every seed for which both are exponential."""
    rates = {(fit["probe"], fit["seed"]): fit["rate"] for fit in panel["fits"] if fit["amplitude"] == amplitude}
    for probe, seed in rates:
        pair = rates["heaviside", seed], rates["impulse", seed]
        if probe == "heaviside" and None not in pair:
            yield pair


def mismatch(panel: Mapping[str, Any], amplitude: float) -> float:
    """Median over seeds of |r_H - r_I| / max(r_H, r_I), of those that are exponential under both; inf where there are none."""
    return float(np.median([abs(one - other) / max(one, other) for one, other in _pairs(panel, amplitude)] or [np.inf]))


def _name(panel: Mapping[str, Any]) -> str:
    return f"{panel['layers']}-layer {panel['kind']}"


def _exponential(data: Data) -> list[Claim]:
    claims = []
    for statement, kinds, least in (
        (
            f"RNN, GRU and LSTM of 1 to 4 layers forget exponentially at |x| ≤ 1 (fails if fewer than {_ALL_BUT_A_FEW:.0%} of "
            "seeds and probes do)",
            _LINEARISED,
            _ALL_BUT_A_FEW,
        ),
        (
            f"S4D of 1 to 3 layers forget exponentially at |x| ≤ 1 (fails if fewer than {_NEARLY_ALL:.0%} of seeds and probes "
            "do)",
            ("S4D",),
            _NEARLY_ALL,
        ),
    ):
        fits = [fit for panel in data["panels"] if panel["kind"] in kinds for fit in panel["fits"] if fit["amplitude"] <= SMALL]
        others = [fit["law"] for fit in fits if fit["law"] not in EXPONENTIAL_END]
        named = ", ".join(f"{others.count(law)} {law}" for law in dict.fromkeys(others))
        evidence = f"{exponentials(fits)} of {len(fits)} end exponentially by `fit_decay`" + (f"; {named}" if named else "")
        claims.append(Claim(statement, exponentials(fits) >= least * len(fits), evidence))
    return claims


def _probes_agree(data: Data) -> Claim:
    each = {(_name(panel), a): mismatch(panel, a) for panel in data["panels"] for a in AMPLITUDES if a <= SMALL}
    worst = max(each, key=lambda key: each[key])
    evidence = f"medians over seeds: {min(each.values()):.2%} to {each[worst]:.2%} ({worst[0]}, |x| = {worst[1]:g})"
    return Claim(
        f"The two probes give the same rate at |x| ≤ 1 (fails if the median over seeds differs by more than {_AGREE:.0%} for one "
        "network)",
        each[worst] <= _AGREE,
        evidence,
    )


def _probes_part(data: Data) -> Claim:
    each = {panel["kind"]: mismatch(panel, LARGE) for panel in data["panels"] if panel["layers"] == 1}
    held = all(each[kind] >= _PART for kind in _LINEARISED)
    evidence = ", ".join(f"{kind}: {value:.1%}" for kind, value in each.items())
    statement = f"""At |x| = 10 the rates of one-layer RNN, GRU and LSTM part (fails if the median over seeds differs by less than
{_PART:.0%} for one of them)""".replace("\n", " ")
    return Claim(statement, held, evidence)


def _linearisation(data: Data) -> Claim:
    """Every fitted rate of one layer against that of the Jacobian where the probe leads: to x's state, or back to rest."""
    expected = {(rate["kind"], rate["seed"], rate["amplitude"]): rate["rate"] for rate in data["linearised"]}
    deviations: dict[tuple[str, float, str], list[float]] = {}
    count = 0
    for panel in data["panels"]:
        if panel["layers"] == 1 and panel["kind"] in _LINEARISED:
            for fit in panel["fits"]:
                count += 1
                group = deviations.setdefault((panel["kind"], fit["amplitude"], fit["probe"]), [])
                if fit["rate"] is not None:
                    input_there = fit["amplitude"] if fit["probe"] == "heaviside" else 0.0
                    group.append(abs(fit["rate"] / expected[panel["kind"], fit["seed"], input_there] - 1))
    medians = {group: float(np.median(values or [np.inf])) for group, values in deviations.items()}
    worst = max(medians, key=lambda group: medians[group])
    kind, amplitude, probe = worst
    return Claim(
        "With one layer the rate, where the memory is exponential, is that of the Jacobian at the state where the probe leads "
        "(fails if the median over seeds is off by more than 10 % at one |x|)",
        medians[worst] <= 0.1,
        f"largest median deviation {medians[worst]:.1%} ({kind}, |x| = {amplitude:g}, {probe}); "
        f"{sum(map(len, deviations.values()))} of {count} are exponential",
    )


def _slowest_mode(data: Data) -> Claim:
    """S4D's layers are linear in their states: whatever stands between them, the slowest mode is left in the end."""
    ratios = [
        fit["rate"] / slowest["rate"]
        for panel in data["panels"]
        for slowest in panel["slowest"]
        for fit in panel["fits"]
        if fit["seed"] == slowest["seed"] and fit["rate"] is not None
    ]
    count = sum(len(panel["fits"]) for panel in data["panels"] if panel["kind"] == "S4D")
    low, middle, high = np.percentile(ratios, (5, 50, 95))
    return Claim(
        "S4D, where its memory is exponential, decays with the rate of its slowest mode (fails if fewer than 90 % of the fits "
        "are within 10 %)",
        bool(low >= 0.9 and high <= 1.1),
        f"fitted over slowest rate: median {middle:.3f}, 90 % of {len(ratios)} fits in [{low:.3f}, {high:.3f}]; {count} in all",
    )


def _claims(data: Data) -> list[Claim]:
    return [*_exponential(data), _probes_agree(data), _probes_part(data), _linearisation(data), _slowest_mode(data)]


def _plot(data: Data, path: Path) -> None:
    """Columns: networks. Rows: Heaviside and impulse memory at |x| = 1 by depth; ratio of their rates against |x|."""
    colours = shades(4)
    with picture(path, rows=3, columns=len(KINDS), width=11.0, height=8.0) as (figure, panels):
        for column, kind in enumerate(KINDS):
            mine = [panel for panel in data["panels"] if panel["kind"] == kind]
            for row, probe in enumerate(PROBES):
                axes = panels[row * len(KINDS) + column]
                for panel in mine:
                    curve = next(c for c in panel["curves"] if c["probe"] == probe)
                    t, mean, deviation = (np.asarray(curve[key]) for key in ("times", "mean", "deviation"))
                    colour = colours[panel["layers"] - 1]
                    axes.fill_between(t, 10 ** (mean - deviation), 10 ** (mean + deviation), color=colour, alpha=0.25, lw=0)
                    axes.plot(t, 10**mean, color=colour, label=f"{panel['layers']} layer{'s' * (panel['layers'] > 1)}")
                axes.set_yscale("log")
                axes.set_xlim(left=0)
                axes.legend(loc="upper right")
                symbol = r"|\frac{d}{dt}H_t(u^x)|" if probe == "heaviside" else "|H_t(i^x)|"
                label(axes, x="time $t$ (samples)", y="", title=f"{kind}, {_PROBE_NAMES[probe]} probe")
                if column == 0:
                    axes.set_ylabel(f"$M(t) = {symbol} / |x|$, $|x| = {DRAWN:g}$")
            axes = panels[2 * len(KINDS) + column]
            for panel in mine:
                ratios = [[one / other for one, other in _pairs(panel, a)] or [np.nan] for a in AMPLITUDES]
                low, middle, high = np.array([np.percentile(values, _LEVELS) for values in ratios]).T
                # Side by side, so that every bar is seen.
                x = np.array(AMPLITUDES) * 1.12 ** (panel["layers"] - 2.5)
                bars = np.stack([middle - low, high - middle])
                axes.errorbar(x, middle, bars, fmt="o-", color=colours[panel["layers"] - 1], capsize=2, lw=1)
            axes.axhline(1, color="black", lw=0.8, ls=":")
            axes.set_xscale("log")
            axes.set_ylim(0, 2)
            label(axes, x="input $|x|$", y="", title=f"{kind}, do the probes agree?")
            if column == 0:
                axes.set_ylabel("rate under Heaviside / under impulse")
        for row in range(2):
            shared = panels[row * len(KINDS) : (row + 1) * len(KINDS)]
            bottom, top = min(axes.get_ylim()[0] for axes in shared), max(axes.get_ylim()[1] for axes in shared)
            for axes in shared:
                axes.set_ylim(bottom, top)
        figure.align_ylabels(panels[:: len(KINDS)])


def _rows(data: Data) -> list[dict[str, Any]]:
    """The fit of every network and probe."""
    return [
        {
            "network": panel["kind"],
            "layers": panel["layers"],
            "amplitude": fit["amplitude"],
            "probe": fit["probe"],
            "seed": fit["seed"],
            "law": fit["law"],
            "rate_per_sample": fit["rate"],
            "stderr_per_sample": fit["stderr"],
            "window_start_samples": fit["window"][0],
            "window_end_samples": fit["window"][1],
        }
        for panel in data["panels"]
        for fit in panel["fits"]
    ]


def _findings(data: Data) -> str:
    deep = {_name(panel): mismatch(panel, LARGE) for panel in data["panels"] if panel["kind"] in _LINEARISED}
    least = min(deep, key=lambda name: deep[name])
    large = [
        fit for panel in data["panels"] if panel["kind"] in _LINEARISED for fit in panel["fits"] if fit["amplitude"] == LARGE
    ]
    s4d = max(mismatch(panel, LARGE) for panel in data["panels"] if panel["kind"] == "S4D")
    return f"""That the probes agree is a statement about small inputs. An impulse is forgotten on the way back to the state
without input, a Heaviside input on the way to the state of x, and each has the rate of its own Jacobian: bottom row, and the
claim about the Jacobian, which comes from `analysis.dynamics` and not from any memory function. At |x| = 10 a saturated tanh
forgets faster, and gates held open or shut forget more slowly; the mismatch goes from {deep[least]:.1%} ({least}) to
{max(deep.values()):.0%}, and {len(large) - exponentials(large)} of {len(large)} curves are no plain exponential in the window
any more. S4D is linear in its state, so that its rates do not depend on the input: at most {s4d:.1%} at |x| = 10. Its memory
bends before it is straight: channels of {UNITS} time scales add up, and only the slowest of them is left in the end."""


FIGURE = Figure(
    name="ia-10",
    title="Memory functions of randomly initialised networks",
    source="[IA] Fig 10, App F",
    published="Randomly initialised RNN, GRU, LSTM (1 to 4 layers) and S4 (1 to 3), mean and error band of 20 repeats: the "
    "memory decays exponentially, and Heaviside and impulse probe show the same.",
    settings=f"""{UNITS} units, PyTorch's initialisation, float64, one sample as the unit of time, 20 seeds. M is the Euclidean
norm of the output vector's rate over the larger of x and -x; the zero-input response is subtracted, after the networks have
come to rest. Lines are means of log M, bands one standard deviation, drawn while every seed is above its numerical floor; bars
are quartiles. S4 is S4D-Lin with zero-order hold, {UNITS} channels of {STATES} states, steps log-uniform in [{STEPS[0]:g},
{STEPS[1]:g}] (S4's own [0.001, 0.1] would need 50,000 samples until its slowest mode is alone; fits start at sample
{_FIT_FROM["S4D"]}, when the faster channels are gone), a GELU and a mixing matrix between layers, residuals, and no layer norm,
which would make the answer to a small input as large as that to a large one.""",
    jobs=_jobs,
    assemble=_assemble,
    claims=_claims,
    plot=_plot,
    rows=_rows,
    findings=_findings,
)
