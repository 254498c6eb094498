"""[StableSSM] Table 2: learning rates at which state-space models can be trained, by parameterisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from odernn.tables import markdown

from ...plotting import GREY, label, picture
from ..compute import images
from ..compute.image_classification import train_ssm
from ..engine.figure import Claim, Data, Figure, Job, Options, Result
from ..panels.classification import describe, short_name, spread
from ..panels.parameterizations import COLOURS, LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = ("direct", "softplus", "exp", "inverse")
LEARNING_RATES = (5e-4, 5e-3, 5e-2, 5e-1, 5.0)
_NAN = math.nan
PUBLISHED = {
    "direct": (0.094, _NAN, _NAN, _NAN, _NAN),
    "softplus": (0.094, 0.024, 0.803, 2.314, _NAN),
    "exp": (0.093, 0.024, 0.868, 2.314, _NAN),
    "inverse": (0.092, 0.023, 0.089, 2.186, 199.0),
}
_WIDTH = 64
# The public code starts with rates 1/2 and steps of 1e-3 to 1e-1: per pixel these.
_RATES = [5e-4, 5e-2]
_SEEDS = range(3)
# By data: units of time for which a pixel is held, batch size, epochs, seconds of a run.
_STEPS = {"digits": 12, "mnist": 1}
_BATCH = {"digits": 32, "mnist": 128}
_EPOCHS = {"digits": 10, "mnist": 1}
# As many steps as 10 epochs of MNIST.
_LONG_EPOCHS = 100
_COST = {"digits": 1.5, "mnist": 60.0}
# Where training by all stable parameterisations gets worse: there it is tried again with w at the smallest rate.
_TOO_LARGE = 5e-2
_AT_TOO_LARGE = LEARNING_RATES.index(_TOO_LARGE)
# Relative difference of losses that makes no difference.
_ALIKE = 0.1
# Of a classifier of ten classes that has learned nothing.
_CHANCE = math.log(10)


def _jobs(options: Options) -> list[Job]:
    source = images.find(options.data)
    name = source["name"]
    shared = {"source": source, "hidden_size": _WIDTH, "rates": _RATES, "steps_per_pixel": _STEPS[name]}
    shared |= {"epochs": _EPOCHS[name], "batch_size": _BATCH[name]}
    seeds = _SEEDS[:1] if options.quick else _SEEDS
    runs = [
        {**shared, "parameterization": f, "learning_rate": rate, "seed": seed}
        for seed in seeds
        for rate in LEARNING_RATES
        for f in NAMES
    ]
    slow = [
        {**one, "recurrent_learning_rate": LEARNING_RATES[0]}
        for one in runs
        if one["learning_rate"] == _TOO_LARGE and one["parameterization"] != "direct"
    ]
    jobs = [Job(train_ssm, one, cost=_COST[name]) for one in (runs if options.quick else runs + slow)]
    if options.quick or name != "digits":
        return jobs
    long = {**shared, "parameterization": "direct", "learning_rate": LEARNING_RATES[1], "epochs": _LONG_EPOCHS}
    jobs += [Job(train_ssm, {**long, "seed": seed}, cost=_COST[name] * _LONG_EPOCHS / _EPOCHS[name]) for seed in seeds]
    direct = [one for one in runs if one["parameterization"] == "direct" and one["learning_rate"] in LEARNING_RATES[:2]]
    return jobs + [Job(train_ssm, {**one, "growing": True}, cost=_COST[name]) for one in direct]


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    kept = ("parameterization", "learning_rate", "seed")
    data: Data = {"source": results[0][0].settings["source"], "runs": [], "slow_w": [], "long": [], "growing": []}
    for job, result in results:
        part = "slow_w" if "recurrent_learning_rate" in job.settings else "runs"
        part = "long" if job.settings["epochs"] == _LONG_EPOCHS else part
        part = "growing" if "growing" in job.settings else part
        data[part].append({**{name: job.settings[name] for name in kept}, **result})
    return data


def _losses(data: Data, name: str) -> np.ndarray:
    """Test losses after the last epoch, NaN where training diverged, (learning rate, seed)."""
    mine = [one for one in data["runs"] if one["parameterization"] == name]
    return np.array([[one["test_loss"][-1] for one in mine if one["learning_rate"] == rate] for rate in LEARNING_RATES])


def _entry(losses: np.ndarray) -> str:
    """Mean and standard error of the seeds; NaN if all diverged, and how many did if some."""
    finite = losses[np.isfinite(losses)]
    if finite.size == 0:
        return "NaN"
    error = spread(finite)
    text = f"{finite.mean():.3g}" + ("" if math.isnan(error) else f" ± {error:.2g}")
    return text if finite.size == losses.size else f"{text} ({losses.size - finite.size} of {losses.size} NaN)"


def _table(data: Data) -> str:
    rows = []
    for name in NAMES:
        rows.append((name, *(_entry(row) for row in _losses(data, name))))
        published = ("NaN" if math.isnan(value) else f"{value:g}" for value in PUBLISHED[name])
        rows.append((f"*{name}, published (MNIST)*", *(f"*{value}*" for value in published)))
    return markdown(("", *(f"lr {rate:g}" for rate in LEARNING_RATES)), rows)


def _plot(data: Data, path: Path) -> None:
    with picture(path, columns=2, height=3.4) as (figure, panels):
        ours = {name: _losses(data, name) for name in NAMES}
        theirs = {name: np.array(PUBLISHED[name])[:, None] for name in NAMES}
        for axes, values, title in zip(panels, (ours, theirs), (f"here: {short_name(data['source'])}", "published: MNIST")):
            _draw(axes, values)
            label(axes, x="learning rate", y="test loss, cross entropy (nats)", title=title)
        panels[1].set_ylabel("")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


def _draw(axes: Axes, values: dict[str, np.ndarray]) -> None:
    """Means, with bars from the smallest to the largest seed; what diverged stands in a row on top."""
    finite = np.concatenate([losses[np.isfinite(losses)] for losses in values.values()])
    top = finite.max() * 4
    axes.axhline(_CHANCE, color=GREY, ls=":", label="chance, log 10")
    axes.axhspan(top / 1.7, top * 6, color=GREY, alpha=0.15, lw=0)
    for k, (name, losses) in enumerate(values.items()):
        # side by side, as several would coincide
        x = np.array(LEARNING_RATES) * 1.18 ** (k - (len(values) - 1) / 2)
        good = np.isfinite(losses).all(1)
        mean = losses[good].mean(1)
        bars = np.abs(np.stack([losses[good].min(1), losses[good].max(1)]) - mean)
        axes.errorbar(x[good], mean, yerr=bars, fmt="o-", lw=1.2, color=COLOURS[name], label=LABELS[name])
        axes.plot(x[~good], np.full((~good).sum(), top * 1.5**k), "x", ms=6, mew=1.8, color=COLOURS[name])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(top=top * 6)
    axes.text(LEARNING_RATES[0], top * 1.8, "diverged (NaN)", va="center", fontsize=8)
    axes.set_xticks(LEARNING_RATES, [f"{rate:g}" for rate in LEARNING_RATES])
    axes.minorticks_off()


def _claims(data: Data) -> list[Claim]:
    losses = {name: _losses(data, name) for name in NAMES}
    stable = NAMES[1:]
    finite = {name: np.isfinite(values).all(1) for name, values in losses.items()}
    diverged = [rate for rate, values in zip(LEARNING_RATES, losses["direct"]) if np.isnan(values).all()]
    where = {
        name: ", ".join(f"{rate:g}" for rate, good in zip(LEARNING_RATES, finite[name]) if not good) or "none" for name in NAMES
    }
    evidence = "rates at which a seed diverged: " + "; ".join(f"{name} {rates}" for name, rates in where.items())
    smallest = {name: values[0] for name, values in losses.items()}
    means = np.array([values.mean() for values in smallest.values()])
    slowest = [
        one["margin"] for one in data["runs"] if one["parameterization"] == "direct" and one["learning_rate"] == LEARNING_RATES[0]
    ]
    at_5 = {name: values[-1] for name, values in losses.items()}
    learned = all(values[1].mean() < values[0].mean() for name, values in losses.items() if name in stable)
    claims = [
        Claim(
            "Direct diverges at learning rates at which every stable parameterisation is trained to a finite loss, at every seed",
            any(all(finite[name][LEARNING_RATES.index(rate)] for name in stable) for rate in diverged),
            evidence,
        ),
        Claim(
            "Once direct diverges it does so at every larger learning rate",
            bool(diverged) and diverged == list(LEARNING_RATES[-len(diverged) :]),
            f"diverged at every seed: {', '.join(f'{rate:g}' for rate in diverged)}",
        ),
        Claim(
            "The inverse parameterisation never diverges",
            bool(finite["inverse"].all()),
            f"{int(np.isfinite(losses['inverse']).sum())} of {losses['inverse'].size} runs finite",
        ),
        Claim(
            "At the smallest learning rate all parameterisations train alike, within 10 %",
            bool(means.max() <= 1.1 * means.min()),
            ", ".join(f"{name} {_entry(values)}" for name, values in smallest.items())
            + f"; slowest rate of direct at the end {', '.join(f'{margin:.2g}' for margin in slowest)} (negative: unstable)",
        ),
        Claim(
            "The stable parameterisations do better at 0.005 than at 0.0005",
            learned,
            ", ".join(f"{name} {_entry(losses[name][0])} → {_entry(losses[name][1])}" for name in stable),
        ),
        Claim(
            "At learning rate 5 nothing is learned: NaN, or a loss above that of chance",
            all(not (values < _CHANCE).any() for values in at_5.values()),
            ", ".join(f"{name} {_entry(values)}" for name, values in at_5.items()),
        ),
        Claim(
            "exp and softplus diverge at 5, where the inverse parameterisation does not",
            bool(not finite["exp"][-1] and not finite["softplus"][-1] and finite["inverse"][-1]),
            ", ".join(f"{name} {_entry(at_5[name])}" for name in stable),
            difference="an exact solve bears any stable eigenvalue, however fast" if _all_borne(data) else "",
        ),
    ]
    if slow := _slow_losses(data):
        apart = max(abs(values.mean() / losses[name][_AT_TOO_LARGE].mean() - 1) for name, values in slow.items())
        alike = apart <= _ALIKE
        claims.append(
            Claim(
                "At 0.05 and 0.5 the inverse parameterisation has the lowest test loss of the stable ones",
                all(losses["inverse"][k].mean() < np.min([losses[name][k].mean() for name in stable[:2]]) for k in (2, 3)),
                "; ".join(f"{name} {_entry(losses[name][2])}, {_entry(losses[name][3])}" for name in stable)
                + f"; with w trained at {LEARNING_RATES[0]:g} losses at {_TOO_LARGE:g} change by at most {apart:.1%}",
                difference="at such rates the loss is decided by U, b and c, whose steps are the same for all" if alike else "",
            )
        )
    if data["long"]:
        short = _losses(data, "direct")[1]
        claims.append(
            Claim(
                f"Direct diverges at {LEARNING_RATES[1]:g} already, at one seed at least, in as many steps as were published",
                any(not math.isfinite(loss[-1]) for loss in _long_losses(data)),
                f"finite epochs of {_LONG_EPOCHS}: {_lasted(data)}; loss after {_EPOCHS['digits']} of them {_entry(short)}",
            )
        )
    return claims


def _all_borne(data: Data) -> bool:
    """Whether at the largest rate all stable parameterisations end with finite losses, and with eigenvalues that are stable."""
    ends = [one for one in data["runs"] if one["parameterization"] != "direct" and one["learning_rate"] == LEARNING_RATES[-1]]
    return all(math.isfinite(one["test_loss"][-1]) and one["margin"] > 0 for one in ends)


def _slow_losses(data: Data) -> dict[str, np.ndarray]:
    """(seeds,) by parameterisation: test losses with w at the smallest rate, and all else at the one that is too large."""
    ends = {name: [one["test_loss"][-1] for one in data["slow_w"] if one["parameterization"] == name] for name in NAMES[1:]}
    return {name: np.array(losses) for name, losses in ends.items() if losses}


def _long_losses(data: Data) -> list[list[float]]:
    return [one["test_loss"] for one in data["long"]]


def _lasted(data: Data) -> str:
    """Epochs until direct diverged, by seed."""
    ends = _long_losses(data)
    return ", ".join("all" if math.isfinite(loss[-1]) else str(int(np.isfinite(loss).sum())) for loss in ends)


def _settings(data: Data) -> str:
    name = data["source"]["name"]
    held = f", each held for {_STEPS[name]} units of time to make T that of MNIST" if _STEPS[name] > 1 else ""
    return f"""The data are {describe(data["source"])}, as sequences of pixels{held}. One layer dh/dt = diag(f(w)) h + U x
+ b, m = {_WIDTH}, logits c^T tanh(h(T)), solved exactly. Rates -f(w) at the start log-uniform in [{_RATES[0]:g}, {_RATES[1]:g}],
those of the public code; the same W, U, c and order of images for all parameterisations. Adam, batch {_BATCH[name]},
{_EPOCHS[name]} epoch{"s" * (_EPOCHS[name] > 1)}. NaN: a loss or an output stopped being finite. The published table comes from
MNIST, 10 epochs, with more of a network around the layer (64 layers of 64 states side by side, GELU, gating, normalisation,
averages over time), so losses are not to be compared, only where training diverges is. Inverse: a = 1, b = 1/2."""


def _findings(data: Data) -> str:
    text = """In the public code of [StableSSM] (radarFudan/StableSSM, src/models/recurrent/stablessm.py, in the version we could
read) the direct parameterisation starts at eigenvalues with real part *+1/2*, the other three at -1/2: it grows by e^(1/2 · 0.1 ·
784) = 10^17 over a sequence at the largest step size before it has learned anything. How much of the published row is due to that
we cannot say."""
    if data["growing"]:
        compared = []
        for k, rate in enumerate(LEARNING_RATES[:2]):
            losses = np.array([one["test_loss"][-1] for one in data["growing"] if one["learning_rate"] == rate])
            compared.append(f"{_entry(losses)} in place of {_entry(_losses(data, 'direct')[k])} at {rate:g}")
        text += f"""
Here, started at growth in place of decay with the same moduli, direct comes to a loss of {" and of ".join(compared)}: the tanh in
the readout bounds what it gives out."""
    if data["long"]:
        ends = _long_losses(data)
        text += f"""

With as many steps as the published runs have ({_LONG_EPOCHS} epochs of the digits), direct at {LEARNING_RATES[1]:g} diverged at
{sum(not math.isfinite(loss[-1]) for loss in ends)} of {len(ends)} seeds (epochs until then: {_lasted(data)})."""
    slow = _slow_losses(data)
    if not slow:
        return text
    parts = [f"{name} {_entry(loss)} in place of {_entry(_losses(data, name)[_AT_TOO_LARGE])}" for name, loss in slow.items()]
    return f"""{text}

That the three stable parameterisations get worse alike at {_TOO_LARGE:g} is not due to their eigenvalues. With w trained at
{LEARNING_RATES[0]:g}, and only U, b and c at {_TOO_LARGE:g}, the losses are {", ".join(parts)}."""


STABLE_SSM_LR = Figure(
    name="stable-ssm-lr",
    title="Learning rates at which state-space models can be trained",
    source="[StableSSM] Table 2",
    published="""Test loss on MNIST at learning rates 5e-4, 5e-3, 5e-2, 5e-1, 5: direct can be trained at the smallest only,
softplus and exp up to 5e-1, the inverse ("best") parameterisation at all of them. Numbers in the table.""",
    settings=_settings,
    jobs=_jobs,
    assemble=_assemble,
    plot=_plot,
    claims=_claims,
    table=_table,
    findings=_findings,
)
