"""[ESP], [ESS]: what a model remembers while an input drives it, and how that depends on the input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...influence.picture import draw_slope
from ...plotting import GREY, PALETTE, label, log_limits, picture, shades
from ..compute.background import driven_memory
from ..engine.figure import Claim, Data, Figure, Job, Options, Result, results_of

MODELS = {"rnn": "tanh RNN", "lstm": "LSTM", "ssm": "state-space model", "transformer": "random causal transformer"}
AMPLITUDES = (0.01, 0.3, 1.0, 3.0)
UNITS, SEQUENCES = 16, 64
# Horizon and number of samples: of the models in continuous time a multiple of their memory, 10; the others count samples.
SPANS = {"rnn": (240.0, 481), "ssm": (240.0, 481), "lstm": (160.0, 161), "transformer": (160.0, 161)}
SEEDS, QUICK_SEEDS, QUICK_SEQUENCES = range(3), range(1), 16
# Where the picture shows the band of inputs: all four would hide each other.
_BANDS = (AMPLITUDES[-1],)
# Part by which exponents that are one may differ, and a fitted slope from an exponent, up to this amplitude: a network that
# saturates turns its tangents too slowly for the horizon.
_SAME, _NEAR, _UNSATURATED = 0.02, 0.1, 1.0
# Ratio of the quantiles 90 % and 10 %: of inputs that are remembered alike, and of such as are not.
_ALIKE, _APART = 1.2, 5.0
# By how much an influence that stays may fall over the later half of the lags.
_STAYS = 3.0


def _jobs(options: Options) -> list[Job]:
    sequences = QUICK_SEQUENCES if options.quick else SEQUENCES
    shared = {"units": UNITS, "sequences": sequences}
    return [
        Job(
            driven_memory,
            {"model": model, "amplitude": amplitude, "seed": seed, "horizon": horizon, "samples": samples, **shared},
            cost=(5.0 if model in ("rnn", "transformer") else 2.0) * (1 if options.quick else 2),
        )
        for model, (horizon, samples) in SPANS.items()
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


def _middle(run: dict[str, Any], curve: str) -> tuple[np.ndarray, np.ndarray]:
    """Lags and values over the middle half of the lags, where the exponent is taken."""
    lags, values = np.array(run["lags"]), np.array(run[curve])
    inner = (lags >= lags[-1] / 4) & (lags <= 3 * lags[-1] / 4)
    return lags[inner], values[inner]


def _slope(run: dict[str, Any]) -> float:
    """That of the logarithm of the geometric mean."""
    lags, values = _middle(run, "geometric")
    return float(np.polyfit(lags, np.log(values), 1)[0]) if (values > 0).all() else np.nan


def _apart(data: Data, model: str, rates: np.ndarray) -> np.ndarray:
    """By which part slopes and exponents differ, (seed, amplitude)."""
    slopes = np.array([[_slope(_run(data, model, a, seed)) for a in AMPLITUDES] for seed in _seeds(data)])
    return np.asarray(np.abs(slopes / rates - 1))


def _spread(run: dict[str, Any]) -> float:
    """Ratio of the quantiles 90 % and 10 % at the middle lags, the median."""
    return float(np.median(_middle(run, "high")[1] / _middle(run, "low")[1]))


def _kept(run: dict[str, Any]) -> float:
    """What is left of the influence from the second quarter of the lags to the last, by medians."""
    values = np.array(run["geometric"])
    quarter = len(values) // 4
    return float(np.median(values[-quarter:]) / np.median(values[quarter : 2 * quarter]))


def _claims(data: Data) -> list[Claim]:
    rates = {model: _exponents(data, model) for model in MODELS if model != "transformer"}
    highest = max(float(table.max()) for table in rates.values())
    apart = {model: _apart(data, model, table) for model, table in rates.items()}
    near = max(float(table[:, : 1 + AMPLITUDES.index(_UNSATURATED)].max()) for table in apart.values())
    change = float(abs(rates["ssm"] / rates["ssm"][:, :1] - 1).max())
    spreads = [[_spread(_run(data, "rnn", amplitude, seed)) for amplitude in AMPLITUDES] for seed in _seeds(data)]
    kept = [_kept(one) for one in data["runs"] if one["model"] == "transformer"]
    ranks = {model: _ranks(data, model) for model in MODELS}
    grown = [(found[0], found[-1]) for found in ranks["rnn"]]
    most = {model: max(max(found) for found in of) for model, of in ranks.items()}
    return [
        Claim(
            "Every recurrent model forgets its state along every input (fails if a mean conditional exponent is not negative)",
            highest < 0,
            f"largest mean exponent {highest:.3g}",
        ),
        Claim(
            f"The influence of a typical input decays at that exponent (fails if up to amplitude {_UNSATURATED:g} a slope of the "
            f"geometric mean over the middle half of the lags differs from it by more than {_NEAR:.0%})",
            near <= _NEAR,
            "largest differences by amplitude: "
            + "; ".join(f"{MODELS[model]} " + ", ".join(f"{d:.1%}" for d in table.max(0)) for model, table in apart.items()),
        ),
        Claim(
            "The decay of the state-space model does not depend on the input (fails if an exponent differs from that at the "
            f"smallest amplitude by more than {_SAME:.0%})",
            change <= _SAME,
            f"largest difference {change:.1e}",
        ),
        Claim(
            "A tanh RNN without leak remembers longer around larger inputs (fails if at one seed an exponent is not above that "
            "of the smaller amplitude)",
            bool((np.diff(rates["rnn"]) > 0).all()),
            "; ".join(
                f"seed {seed}: " + ", ".join(f"{rate:.3f}" for rate in row) for seed, row in zip(_seeds(data), rates["rnn"])
            ),
        ),
        Claim(
            "Around small inputs it remembers all alike, around large ones each otherwise (fails if at one seed the quantiles 90 "
            f"% and 10 % are a factor of more than {_ALIKE:g} apart at the smallest amplitude, or less than {_APART:g} at the "
            "largest)",
            all(row[0] <= _ALIKE and row[-1] >= _APART for row in spreads),
            "; ".join(", ".join(f"{ratio:.3g}" for ratio in row) for row in spreads),
        ),
        Claim(
            "The random transformer, which averages over all samples, does not forget with the lag (fails if from the second "
            f"quarter of the lags to the last the geometric mean falls by more than a factor of {_STAYS:g})",
            min(kept) >= 1 / _STAYS,
            f"what is left: {min(kept):.2g} to {max(kept):.2g}",
        ),
        Claim(
            f"The past passes through the state: no rank exceeds its size (fails if one is above {UNITS}, or {2 * UNITS} for h "
            "and c of the LSTM)",
            max(most["rnn"], most["ssm"]) <= UNITS and most["lstm"] <= 2 * UNITS,
            ", ".join(f"{MODELS[model]} at most {value}" for model, value in most.items()),
        ),
        Claim(
            "Larger inputs carry more directions through the tanh RNN, if faint ones (fails if at one seed the largest rank at "
            "the largest amplitude is not above that at the smallest)",
            all(last > first for first, last in grown),
            ", ".join(f"{first} and {last}" for first, last in grown),
        ),
    ]


def _ranks(data: Data, model: str) -> list[list[int]]:
    """The largest rank along an input, (seed, amplitude)."""
    return [[max(_run(data, model, a, seed)["rank"]) for a in AMPLITUDES] for seed in _seeds(data)]


def _plot(data: Data, path: Path) -> None:
    with picture(path, rows=2, columns=3, width=10.5, height=6.0) as (_, axes):
        panels = dict(zip(MODELS, (axes[0], axes[1], axes[3], axes[4])))
        for model, panel in panels.items():
            _draw_influence(panel, data, model)
        exponents, sizes = axes[2], axes[5]
        for (model, name), colour in zip(MODELS.items(), PALETTE):
            if model != "transformer":
                for k, row in enumerate(_exponents(data, model)):
                    exponents.plot(AMPLITUDES, row, "o-", color=colour, label=None if k else name)
            for size, line in (("entropy", "o-"), ("rank", "s:")):
                found = [[np.mean(_run(data, model, a, seed)[size]) for a in AMPLITUDES] for seed in _seeds(data)]
                sizes.plot(AMPLITUDES, np.mean(found, 0), line, color=colour, lw=1)
        for panel in (exponents, sizes):
            panel.set_xscale("log")
        exponents.set_ylim(top=0)
        label(exponents, x="amplitude of the input", y=r"conditional exponent $\lambda_c$", title="rate of forgetting, each seed")
        exponents.legend(loc="best")
        sizes.set_yscale("log")
        sizes.set_ylim(0.9, 90)
        for line, name in (("s:", "rank"), ("o-", "entropy")):
            sizes.plot([], [], line, color=GREY, lw=1, label=name)
        sizes.plot([], [], color=PALETTE[len(MODELS) - 1], label=MODELS["transformer"])
        label(sizes, x="amplitude of the input", y="effective state size", title="directions from past to future")
        sizes.legend(loc="upper left")
        for line, name in (("-", "geometric mean"), (":", "mean"), ("--", r"slope of $\lambda_c$")):
            panels["lstm"].plot([], [], line, color=GREY, lw=1, label=name)
        panels["lstm"].fill_between([], [], [], color=GREY, alpha=0.2, lw=0, label="10 % to 90 % of inputs")
        handles, names = panels["lstm"].get_legend_handles_labels()
        panels["lstm"].legend(handles[len(AMPLITUDES) :], names[len(AMPLITUDES) :], loc="best")


def _draw_influence(axes: Any, data: Data, model: str) -> None:
    """The curves of the first seed: geometric mean with its band, mean dotted, slope of the exponent dashed."""
    shown = []
    for amplitude, colour in zip(AMPLITUDES, shades(len(AMPLITUDES))):
        run = _run(data, model, amplitude, _seeds(data)[0])
        lags, geometric, mean, low, high = (np.array(run[key]) for key in ("lags", "geometric", "mean", "low", "high"))
        if amplitude in _BANDS:
            axes.fill_between(lags, low, high, color=colour, alpha=0.2, lw=0)
        axes.plot(lags, geometric, color=colour, label=f"amplitude {amplitude:g}")
        axes.plot(lags, mean, ":", color=colour, lw=1)
        if run["exponents"] is not None:
            draw_slope(axes, lags, geometric, float(np.mean(run["exponents"])), color=colour, lw=1)
        shown += [geometric, *([low] if amplitude in _BANDS else [])]
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
    settings=f"""Random models of {UNITS} units: a tanh RNN and a state-space model with symmetric W, one rate 0.1, the others
log-uniform in [0.2, 1]; torch's LSTM with a forget bias of 1; the random causal transformer of [IA] Fig 12. Gaussian noise of
standard deviations {", ".join(f"{a:g}" for a in AMPLITUDES)}, a sample every 0.5 on [0, 240] (161 samples to the LSTM and
the transformer, which count them), {SEQUENCES} sequences, {len(SEEDS)} seeds. Influence |dy_T/dx_s| of the last output, solid:
geometric mean of seed 0, dotted: mean, band: 10 % to 90 % of the sequences at the largest amplitude, dashed: slope of the
conditional Lyapunov exponent. Effective state size: entropy and rank of the singular values of dy_future/dx_past at the middle
of the first 161 samples, means over four sequences and the seeds.""",
    jobs=_jobs,
    assemble=_assemble,
    claims=_claims,
    plot=_plot,
    rows=_rows,
    findings="""The background enters the state-space model at the readout alone, as diag σ'(h_t): its rate stays, its influence
shrinks where h_t saturates. In the tanh RNN every rate is multiplied by σ' ≤ 1, so that a large input slows the state down and
what was there before it stays longer. At amplitude 3 its slopes and exponents may be some 30 % apart: what
is slow also turns slowly to its slowest direction. More directions are then above 1e-6 of the largest, but the entropy hardly
moves: the new ones are faint.""",
)
