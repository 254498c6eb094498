"""[ESP], [ESS]: what a model remembers while an input drives it, and how that depends on the input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...influence.picture import draw_slope
from ...plotting import PALETTE, label, log_limits, picture, shades
from ..compute.background import driven_memory
from ..engine.figure import Claim, Data, Figure, Job, Options, Result, results_of

MODELS = {"rnn": "tanh RNN", "lstm": "LSTM", "ssm": "state-space model", "transformer": "random causal transformer"}
AMPLITUDES = (0.01, 0.3, 1.0, 3.0)
UNITS, HORIZON, SAMPLES, SEQUENCES = 16, 80.0, 161, 64
SEEDS, QUICK_SEEDS, QUICK_SEQUENCES = range(3), range(3), 8
# |log| by which rates that are one may differ: of exponents to each other, and of a fitted slope to an exponent.
_SAME, _NEAR = 0.02, 0.25
# Part of the lags, from where on a slope is fitted.
_LATE = 0.5


def _jobs(options: Options) -> list[Job]:
    sequences = QUICK_SEQUENCES if options.quick else SEQUENCES
    shared = {"units": UNITS, "horizon": HORIZON, "samples": SAMPLES, "sequences": sequences}
    return [
        Job(
            driven_memory,
            {"model": model, "amplitude": amplitude, "seed": seed, **shared, "state_size": seed == 0 or not options.quick},
            cost=(2.0 if model in ("rnn", "transformer") else 1.0) * (1 if options.quick else 4),
        )
        for model in MODELS
        for amplitude in AMPLITUDES
        for seed in (QUICK_SEEDS if options.quick else SEEDS)
    ]


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    return {"runs": results_of(driven_memory, results, "model", "amplitude", "seed")}


def _run(data: Data, model: str, amplitude: float, seed: int) -> dict[str, Any]:
    return next(one for one in data["runs"] if (one["model"], one["amplitude"], one["seed"]) == (model, amplitude, seed))


def _seeds(data: Data) -> list[int]:
    return sorted({one["seed"] for one in data["runs"]})


def _exponents(data: Data, model: str) -> np.ndarray:
    """Means over sequences, (seed, amplitude)."""
    return np.array([[np.mean(_run(data, model, a, seed)["exponents"]) for a in AMPLITUDES] for seed in _seeds(data)])


def _slope(run: dict[str, Any], curve: str) -> float:
    """The slope of the logarithm over the later half of the lags that are half of the horizon at most: the earlier half of the
    input is the start from rest."""
    lags, values = np.array(run["lags"]), np.array(run[curve])
    late = (lags >= _LATE * lags[-1] / 2) & (lags <= lags[-1] / 2) & (values > 0)
    return float(np.polyfit(lags[late], np.log(values[late]), 1)[0]) if late.sum() > 2 else np.nan


def _claims(data: Data) -> list[Claim]:
    rnn, lstm, ssm = (_exponents(data, model) for model in ("rnn", "lstm", "ssm"))
    every = np.concatenate([rnn, lstm, ssm])
    slopes = {
        model: [
            _slope(_run(data, model, a, seed), "geometric") / rate
            for seed, row in zip(_seeds(data), table)
            for a, rate in zip(AMPLITUDES, row)
        ]
        for model, table in (("rnn", rnn), ("lstm", lstm), ("ssm", ssm))
    }
    worst = {model: max(abs(ratio - 1) for ratio in ratios) for model, ratios in slopes.items()}
    gaps = [_slope(one, "rms") - _slope(one, "geometric") for one in data["runs"] if one["exponents"] is not None]
    smallest, largest = AMPLITUDES[0], AMPLITUDES[-1]
    heads = [_run(data, "transformer", a, 0) for a in (smallest, largest)]
    ranks = {model: [r for one in data["runs"] if one["model"] == model for r in one["rank"] or []] for model in MODELS}
    return [
        Claim(
            "Every recurrent model forgets its state along every input (fails if a mean conditional exponent is not negative)",
            bool((every < 0).all()),
            f"largest mean exponent {every.max():.3g}",
        ),
        Claim(
            f"The influence of a typical input decays at that exponent (fails if a slope of the geometric mean differs from it "
            f"by more than {_NEAR:.0%})",
            max(worst.values()) <= _NEAR,
            "largest difference: " + ", ".join(f"{MODELS[model]} {value:.0%}" for model, value in worst.items()),
        ),
        Claim(
            f"The decay of the state-space model does not depend on the input (fails if an exponent differs from that at the "
            f"smallest amplitude by more than {_SAME:.0%})",
            bool((abs(ssm / ssm[:, :1] - 1) <= _SAME).all()),
            f"largest difference {abs(ssm / ssm[:, :1] - 1).max():.1e}",
        ),
        Claim(
            "A tanh RNN without leak remembers longer around larger inputs (fails if at one seed an exponent is below that of a "
            "smaller amplitude)",
            bool((np.diff(rnn) > 0).all()),
            "; ".join(f"seed {seed}: " + ", ".join(f"{rate:.3f}" for rate in row) for seed, row in zip(_seeds(data), rnn)),
        ),
        Claim(
            "Rare inputs are remembered longer: the root mean square does not decay faster than the geometric mean (fails if in "
            "one of the runs it does, by more than 0.01)",
            min(gaps) >= -0.01,
            f"difference of the slopes from {min(gaps):.3g} to {max(gaps):.3g}",
        ),
        Claim(
            "The random transformer has no rate: its influence stays on the level of 1/n that averaging over n samples has "
            "(fails if over the later half of the lags it falls by more than a factor of 3)",
            all(np.array(one["geometric"])[-1] > np.array(one["geometric"])[len(one["geometric"]) // 2] / 3 for one in heads),
            "geometric mean at the middle and the last lag: "
            + "; ".join(f"{one['geometric'][len(one['geometric']) // 2]:.2g}, {one['geometric'][-1]:.2g}" for one in heads),
        ),
        Claim(
            "No recurrent model has more directions than its state has entries, and the state-space model as many at every "
            f"amplitude (fails if a rank exceeds {UNITS}, or {2 * UNITS} of the LSTM, or the other's varies by more than 1)",
            max(ranks["rnn"] + ranks["ssm"]) <= UNITS and max(ranks["lstm"]) <= 2 * UNITS and _steady_ranks(data),
            ", ".join(f"{MODELS[model]} {min(found)} to {max(found)}" for model, found in ranks.items()),
        ),
    ]


def _steady_ranks(data: Data) -> bool:
    """Whether, seed by seed, the rank of the state-space model changes by at most 1, at the edge of the tolerance."""
    found: dict[int, list[int]] = {}
    for one in data["runs"]:
        if one["model"] == "ssm" and one["rank"]:
            found.setdefault(one["seed"], []).extend(one["rank"])
    return all(max(ranks) - min(ranks) <= 1 for ranks in found.values())


def _plot(data: Data, path: Path) -> None:
    with picture(path, rows=2, columns=3, width=10.5, height=6.0) as (_, axes):
        panels = dict(zip(MODELS, (axes[0], axes[1], axes[3], axes[4])))
        for model, panel in panels.items():
            _draw_influence(panel, data, model)
        exponents, sizes = axes[2], axes[5]
        for (model, name), colour in zip(MODELS.items(), PALETTE):
            if model != "transformer":
                for row in _exponents(data, model):
                    exponents.plot(AMPLITUDES, row, "o-", color=colour, label=name)
                    name = None
            name = MODELS[model]
            for seed in _seeds(data):
                found = [(a, one["entropy"]) for a in AMPLITUDES if (one := _run(data, model, a, seed))["entropy"]]
                if found:
                    sizes.plot([a for a, _ in found], [np.mean(e) for _, e in found], "o-", color=colour, label=name)
                    name = None
        for panel in (exponents, sizes):
            panel.set_xscale("log")
        exponents.set_yscale("symlog", linthresh=0.1)
        exponents.set_ylim(top=0)
        label(exponents, x="amplitude of the input", y=r"conditional exponent $\lambda_c$", title="each seed")
        exponents.legend(loc="best")
        sizes.set_ylim(bottom=0)
        label(sizes, x="amplitude of the input", y="effective state size (entropy)", title="at the middle of the input")
        sizes.legend(loc="best")


def _draw_influence(axes: Any, data: Data, model: str) -> None:
    """The curves of the first seed: geometric mean with its band, mean dotted, slope of the exponent dashed."""
    shown = []
    for amplitude, colour in zip(AMPLITUDES, shades(len(AMPLITUDES))):
        run = _run(data, model, amplitude, _seeds(data)[0])
        lags, geometric, mean, low, high = (np.array(run[key]) for key in ("lags", "geometric", "mean", "low", "high"))
        axes.fill_between(lags, low, high, color=colour, alpha=0.2, lw=0)
        axes.plot(lags, geometric, color=colour, label=f"amplitude {amplitude:g}")
        axes.plot(lags, mean, ":", color=colour, lw=1)
        if run["exponents"] is not None:
            draw_slope(axes, lags, geometric, float(np.mean(run["exponents"])), color=colour, lw=1)
        shown += [geometric, low]
    log_limits(axes, shown)
    unit = "unit of time" if model in ("rnn", "ssm") else "sample"
    label(axes, x="lag $t - s$", y=rf"$|dy_t/dx_s|$ per {unit}", title=MODELS[model])
    axes.legend(loc="best")


def _rows(data: Data) -> list[dict[str, Any]]:
    return [
        {
            "model": one["model"],
            "amplitude": one["amplitude"],
            "seed": one["seed"],
            "lag": lag,
            "mean": one["mean"][k],
            "root_mean_square": one["rms"][k],
            "geometric_mean": one["geometric"][k],
            "quantile_10": one["low"][k],
            "quantile_90": one["high"][k],
        }
        for one in data["runs"]
        for k, lag in enumerate(one["lags"])
    ]


FIGURE = Figure(
    name="esp-background",
    title="Memory around a background: the influence of an input while the model is driven",
    source="[ESP], [ESS]",
    published="Whether a network forgets where it started is a property of the network and of the input that drives it together "
    "(Manjunath and Jaeger 2013, of networks for which it was taken as one of the network alone); the number of directions that "
    "carry the past is measured along an input, too (Parnichkun et al. 2025). Neither shows this figure.",
    settings=f"""Random models of {UNITS} units: a tanh RNN and a state-space model with symmetric W, rates log-uniform in
[0.1, 1]; torch's LSTM with forget gates opened by a bias of 3; the random causal transformer of [IA] Fig 12. Gaussian noise of
standard deviations {", ".join(f"{a:g}" for a in AMPLITUDES)}, {SAMPLES} samples on [0, {HORIZON:g}] (the LSTM and the transformer
count samples), {SEQUENCES} sequences, three seeds. Influence |dy_T/dx_s| of the last output, solid: geometric mean
of seed 0, dotted: mean, band: 10 % to 90 % of the sequences, dashed: slope of the conditional Lyapunov exponent. Effective state
size: entropy of the singular values of dy_future/dx_past at the middle.""",
    jobs=_jobs,
    assemble=_assemble,
    claims=_claims,
    plot=_plot,
    rows=_rows,
)
