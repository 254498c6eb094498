"""[StableSSM] Table 2: learning rates at which state-space models can be trained, by parameterisation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from odernn.tables import markdown

from ...plotting import GREY, label, picture
from ..compute import images
from ..compute.image_classification import train_ssm
from ..engine.figure import Claim, Data, Figure, Job, Options, Result
from ..panels.classification import by_data_set, describe, short_name, spread
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
# By data set: seeds, units of time for which a pixel is held, batch size; seconds of a run.
_SEEDS = {"digits": range(3), "mnist-10k": range(3), "mnist": range(3)}
_STEPS = {"digits": 12, "mnist-10k": 1, "mnist": 1}
_BATCH = {"digits": 32, "mnist-10k": 128, "mnist": 128}
_EPOCHS = 10
# As many steps as 10 epochs of MNIST.
_LONG_EPOCHS = 100
_COST = {"digits": 1.5, "mnist-10k": 11.0, "mnist": 80.0}
# Where training by all stable parameterisations gets worse: there it is tried again with w at the smallest rate.
_TOO_LARGE = 5e-2
_AT_TOO_LARGE = LEARNING_RATES.index(_TOO_LARGE)
_BEFORE = _AT_TOO_LARGE - 1
# Part of a rise of the loss that is most of it.
_MOSTLY = 0.5
# Relative difference of losses that makes no difference.
_ALIKE = 0.1
_BORNE = "an exact solve bears any stable eigenvalue, however fast; by Euler steps of length 1 it comes out as published"
# Of a classifier of ten classes that has learned nothing.
_CHANCE = math.log(10)


def _jobs(options: Options) -> list[Job]:
    return [job for found in images.find(options.data) for job in _jobs_on(found, options.quick)]


def _jobs_on(found: images.DataSet, quick: bool) -> list[Job]:
    name = found.name
    shared = {"source": found.source, "hidden_size": _WIDTH, "rates": _RATES, "steps_per_pixel": _STEPS[name]}
    shared |= {"epochs": _EPOCHS, "batch_size": _BATCH[name]}
    seeds = _SEEDS[name][:1] if quick else _SEEDS[name]

    def job(settings: Mapping[str, Any], epochs: int = _EPOCHS) -> Job:
        return Job(train_ssm, {**shared, **settings, "epochs": epochs}, _COST[name] * epochs / _EPOCHS, found.places)

    runs = [
        {"parameterization": f, "learning_rate": rate, "seed": seed} for seed in seeds for rate in LEARNING_RATES for f in NAMES
    ]
    jobs = [job(one) for one in runs]
    if quick:
        return jobs
    for one in runs:
        if one["learning_rate"] == _TOO_LARGE and one["parameterization"] != "direct":
            jobs.append(job({**one, "recurrent_learning_rate": LEARNING_RATES[0]}))
    # exp, softplus and inverse part there only if the solve does not bear the fastest eigenvalues.
    for one in runs:
        if one["learning_rate"] == LEARNING_RATES[-1] and one["parameterization"] != "direct":
            jobs.append(job({**one, "euler": True}))
    if name != "digits":
        return jobs
    long = {"parameterization": "direct", "learning_rate": LEARNING_RATES[1]}
    jobs += [job({**long, "seed": seed}, _LONG_EPOCHS) for seed in seeds]
    direct = [one for one in runs if one["parameterization"] == "direct" and one["learning_rate"] in LEARNING_RATES[:2]]
    return jobs + [job({**one, "growing": True}) for one in direct]


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    kept = ("parameterization", "learning_rate", "seed")
    sets = []
    for source, mine in by_data_set(results):
        part: Data = {"source": source, "runs": [], "slow_w": [], "long": [], "growing": [], "euler": []}
        for job, result in mine:
            which = "slow_w" if "recurrent_learning_rate" in job.settings else "runs"
            which = "long" if job.settings["epochs"] == _LONG_EPOCHS else which
            which = next((name for name in ("growing", "euler") if name in job.settings), which)
            part[which].append({**{name: job.settings[name] for name in kept}, **result})
        sets.append(part)
    return {"sets": sets}


def _losses(part: Data, name: str) -> np.ndarray:
    """Test losses after the last epoch on a data set, NaN where training diverged, (learning rate, seed)."""
    mine = [one for one in part["runs"] if one["parameterization"] == name]
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
        for part in data["sets"]:
            rows.append((name, short_name(part["source"]), *(_entry(row) for row in _losses(part, name))))
        published = ("NaN" if math.isnan(value) else f"{value:g}" for value in PUBLISHED[name])
        rows.append((f"*{name}*", "*published (MNIST)*", *(f"*{value}*" for value in published)))
    return markdown(("", "data", *(f"lr {rate:g}" for rate in LEARNING_RATES)), rows)


def _plot(data: Data, path: Path) -> None:
    ours = [({name: _losses(part, name) for name in NAMES}, part) for part in data["sets"]]
    theirs = {name: np.array(PUBLISHED[name])[:, None] for name in NAMES}
    every = np.concatenate([losses.ravel() for values in (*(values for values, _ in ours), theirs) for losses in values.values()])
    low, top = np.nanmin(every) / 2, np.nanmax(every) * 4
    with picture(path, columns=len(ours) + 1, height=3.4) as (figure, panels):
        for axes, (values, part) in zip(panels, ours):
            _draw(axes, values, low, top)
            _draw_euler(axes, part, top)
            label(axes, x="learning rate", y="", title=f"here: {short_name(part['source'])}")
        _draw(panels[-1], theirs, low, top)
        label(panels[-1], x="learning rate", y="", title="published: MNIST")
        panels[0].set_ylabel("test loss, cross entropy (nats)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


def _draw(axes: Axes, values: dict[str, np.ndarray], low: float, top: float) -> None:
    """Means, with bars from the smallest to the largest seed; what diverged stands in rows above `top`."""
    axes.axhline(_CHANCE, color=GREY, ls=":", label="chance, log 10")
    axes.axhspan(top / 1.7, top * 10, color=GREY, alpha=0.15, lw=0)
    for k, (name, losses) in enumerate(values.items()):
        x = _beside(LEARNING_RATES, k)
        good = np.isfinite(losses).all(1)
        mean = losses[good].mean(1)
        bars = np.abs(np.stack([losses[good].min(1), losses[good].max(1)]) - mean)
        axes.errorbar(x[good], mean, yerr=bars, fmt="o-", lw=1.2, color=COLOURS[name], label=LABELS[name])
        axes.plot(x[~good], np.full((~good).sum(), top * 1.5**k), "x", ms=6, mew=1.8, color=COLOURS[name])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(low, top * 10)
    axes.text(LEARNING_RATES[0], top * 1.8, "diverged (NaN)", va="center", fontsize=8)
    axes.set_xticks(LEARNING_RATES, [f"{rate:g}" for rate in LEARNING_RATES])
    axes.minorticks_off()


def _draw_euler(axes: Axes, part: Data, top: float) -> None:
    """Means at the largest rate by Euler steps, hollow; what diverged above `top`."""
    for name, losses in _by_euler(part).items():
        k = NAMES.index(name)
        y = losses.mean() if np.isfinite(losses).all() else top * 1.5**k
        axes.plot(_beside(LEARNING_RATES[-1:], k), [y], "D", ms=5, mfc="none", mec=COLOURS[name])
    if part["euler"]:
        axes.plot([], [], "D", ms=5, mfc="none", mec="black", label="by Euler steps of 1")


def _beside(rates: Sequence[float], k: int) -> np.ndarray:
    """Where the k-th parameterisation is drawn, as several would coincide."""
    return np.array(rates) * 1.18 ** (k - (len(NAMES) - 1) / 2)


def _claims(data: Data) -> list[Claim]:
    return [claim for part in data["sets"] for claim in _claims_on(part)]


def _claims_on(part: Data) -> list[Claim]:
    where = short_name(part["source"])
    losses = {name: _losses(part, name) for name in NAMES}
    stable = NAMES[1:]
    finite = {name: np.isfinite(values).all(1) for name, values in losses.items()}
    diverged = [rate for rate, values in zip(LEARNING_RATES, losses["direct"]) if np.isnan(values).all()]
    bad = {
        name: ", ".join(f"{rate:g}" for rate, good in zip(LEARNING_RATES, finite[name]) if not good) or "none" for name in NAMES
    }
    smallest = {name: values[0] for name, values in losses.items()}
    means = np.array([values.mean() for values in smallest.values()])
    slowest = [
        one["margin"] for one in part["runs"] if one["parameterization"] == "direct" and one["learning_rate"] == LEARNING_RATES[0]
    ]
    at_5 = {name: values[-1] for name, values in losses.items()}
    claims = [
        Claim(
            f"{where}: direct diverges at learning rates at which every stable parameterisation is trained to a finite loss, at "
            "every seed (fails if there is no such rate)",
            any(all(finite[name][LEARNING_RATES.index(rate)] for name in stable) for rate in diverged),
            "rates at which a seed diverged: " + "; ".join(f"{name} {rates}" for name, rates in bad.items()),
        ),
        Claim(
            f"{where}: once direct diverges it does so at every larger learning rate (fails if a larger one has a finite seed)",
            bool(diverged) and diverged == list(LEARNING_RATES[-len(diverged) :]),
            f"diverged at every seed: {', '.join(f'{rate:g}' for rate in diverged)}",
        ),
        Claim(
            f"{where}: the inverse parameterisation never diverges (fails if one run does)",
            bool(finite["inverse"].all()),
            f"{int(np.isfinite(losses['inverse']).sum())} of {losses['inverse'].size} runs finite",
        ),
        Claim(
            f"{where}: at the smallest learning rate all parameterisations train alike (fails if two losses are more than "
            f"{_ALIKE:.0%} apart)",
            bool(means.max() <= (1 + _ALIKE) * means.min()),
            ", ".join(f"{name} {_entry(values)}" for name, values in smallest.items())
            + f"; slowest rate of direct at the end {', '.join(f'{margin:.2g}' for margin in slowest)} (negative: unstable)",
        ),
        Claim(
            f"{where}: the stable parameterisations do better at 0.005 than at 0.0005 (fails if the mean of one is worse)",
            all(losses[name][1].mean() < losses[name][0].mean() for name in stable),
            ", ".join(f"{name} {_entry(losses[name][0])} → {_entry(losses[name][1])}" for name in stable),
        ),
        Claim(
            f"{where}: at learning rate 5 nothing is learned (fails if a loss is below that of chance, {_CHANCE:.2f})",
            all(not (values < _CHANCE).any() for values in at_5.values()),
            ", ".join(f"{name} {_entry(values)}" for name, values in at_5.items()),
        ),
        Claim(
            f"{where}: exp and softplus diverge at 5, where the inverse parameterisation does not (fails if one seed of the two "
            "is finite, or one of the third is not)",
            bool(np.isnan([at_5["exp"], at_5["softplus"]]).all() and finite["inverse"][-1]),
            ", ".join(f"{name} {_entry(at_5[name])}" for name in stable) + _shown_by_euler(part),
            difference=_BORNE if _all_borne(part) and _parted_by_euler(part) else "",
        ),
    ]
    if slow := _slow_losses(part):
        # Of the rise of the loss up to the rate that is too large, the part that is there with a slow w too.
        ends = {name: values.mean(1) for name, values in losses.items()}
        left = min(
            (values.mean() - ends[name][_BEFORE]) / (ends[name][_AT_TOO_LARGE] - ends[name][_BEFORE])
            for name, values in slow.items()
        )
        claims.append(
            Claim(
                f"{where}: at 0.05 and 0.5 the inverse parameterisation has the lowest mean test loss of the stable ones (fails "
                "if another is lower at one of them)",
                all(losses["inverse"][k].mean() < np.min([losses[name][k].mean() for name in stable[:2]]) for k in (2, 3)),
                "; ".join(f"{name} {_entry(losses[name][2])}, {_entry(losses[name][3])}" for name in stable)
                + f"; with w trained at {LEARNING_RATES[0]:g} at least {left:.0%} of the rise from "
                f"{LEARNING_RATES[_BEFORE]:g} to {_TOO_LARGE:g} is left",
                difference="the rise is mostly of U, b and c, whose steps are the same for all" if left > _MOSTLY else "",
            )
        )
    if part["long"]:
        short = _losses(part, "direct")[1]
        claims.append(
            Claim(
                f"{where}: direct diverges at {LEARNING_RATES[1]:g} already, in as many steps as were published (fails if every "
                "seed stays finite)",
                any(not math.isfinite(loss[-1]) for loss in _long_losses(part)),
                f"finite epochs of {_LONG_EPOCHS}: {_lasted(part)}; loss after {_EPOCHS} of them {_entry(short)}",
            )
        )
    return claims


def _all_borne(part: Data) -> bool:
    """Whether at the largest rate all stable parameterisations end with finite losses, and with eigenvalues that are stable."""
    ends = [one for one in part["runs"] if one["parameterization"] != "direct" and one["learning_rate"] == LEARNING_RATES[-1]]
    return all(math.isfinite(one["test_loss"][-1]) and one["margin"] > 0 for one in ends)


def _by_euler(part: Data) -> dict[str, np.ndarray]:
    """(seeds,) by parameterisation: test losses at the largest rate, solved by Euler steps."""
    ends = {name: [one["test_loss"][-1] for one in part["euler"] if one["parameterization"] == name] for name in NAMES[1:]}
    return {name: np.array(losses) for name, losses in ends.items() if losses}


def _parted_by_euler(part: Data) -> bool:
    """Whether Euler steps make exp and softplus diverge at every seed, and the inverse parameterisation at none."""
    found = _by_euler(part)
    return bool(found) and bool(np.isnan([found["exp"], found["softplus"]]).all() and np.isfinite(found["inverse"]).all())


def _shown_by_euler(part: Data) -> str:
    found = _by_euler(part)
    return "; by Euler steps " + ", ".join(f"{name} {_entry(losses)}" for name, losses in found.items()) if found else ""


def _slow_losses(part: Data) -> dict[str, np.ndarray]:
    """(seeds,) by parameterisation: test losses with w at the smallest rate, and all else at the one that is too large."""
    ends = {name: [one["test_loss"][-1] for one in part["slow_w"] if one["parameterization"] == name] for name in NAMES[1:]}
    return {name: np.array(losses) for name, losses in ends.items() if losses}


def _long_losses(part: Data) -> list[list[float]]:
    return [one["test_loss"] for one in part["long"]]


def _lasted(part: Data) -> str:
    """Epochs until direct diverged, by seed."""
    ends = _long_losses(part)
    return ", ".join("all" if math.isfinite(loss[-1]) else str(int(np.isfinite(loss).sum())) for loss in ends)


def _settings(data: Data) -> str:
    parts = [f"{short_name(part['source'])}: {_held(part)}" for part in data["sets"]]
    missing = "" if len(parts) > 1 else " MNIST does not come with the project (`--data` takes a folder with its IDX files)."
    batches = " and ".join(f"{_BATCH[part['source']['name']]} ({short_name(part['source'])})" for part in data["sets"])
    return f"""The data are images as sequences of pixels, standardised. {"; ".join(parts)}.{missing}

One layer dh/dt = diag(f(w)) h + U x + b, m = {_WIDTH}, logits c^T tanh(h(T)), solved exactly. Rates -f(w) at the start
log-uniform in [{_RATES[0]:g}, {_RATES[1]:g}], those of the public code; the same W, U, c and order of images for all
parameterisations. Adam, batches of {batches}, {_EPOCHS} epochs. NaN: a loss or an output stopped being finite. The published
table comes from MNIST, 10 epochs, with more of a network around the layer (64 layers of 64 states side by side, GELU, gating,
normalisation, averages over time), so losses are not to be compared, only where training diverges is. Inverse: a = 1, b = 1/2."""


def _held(part: Data) -> str:
    steps = _STEPS[part["source"]["name"]]
    held = f", each held for {steps} units of time to make T that of MNIST" if steps > 1 else ""
    return f"{describe(part['source'])}{held}"


def _findings(data: Data) -> str:
    texts = [
        """In the public code of [StableSSM] (radarFudan/StableSSM, src/models/recurrent/stablessm.py, in the version we could
read) the direct parameterisation starts at eigenvalues with real part *+1/2*, the other three at -1/2: it grows by e^(1/2 · 0.1 ·
784) = 10^17 over a sequence at the largest step size before it has learned anything. How much of the published row is due to that
we cannot say."""
    ]
    return "\n\n".join([*texts, *(text for part in data["sets"] for text in _findings_on(part))])


def _findings_on(part: Data) -> list[str]:
    where, texts = short_name(part["source"]), []
    if part["growing"]:
        compared = []
        for k, rate in enumerate(LEARNING_RATES[:2]):
            losses = np.array([one["test_loss"][-1] for one in part["growing"] if one["learning_rate"] == rate])
            compared.append(f"{_entry(losses)} in place of {_entry(_losses(part, 'direct')[k])} at {rate:g}")
        texts.append(
            f"""On the {where}, started at growth in place of decay with the same moduli, direct comes to a loss of
{" and of ".join(compared)}: the tanh in the readout bounds what it gives out."""
        )
    if part["long"]:
        ends = _long_losses(part)
        texts.append(
            f"""With as many steps as the published runs have ({_LONG_EPOCHS} epochs of the {where}), direct at
{LEARNING_RATES[1]:g} diverged at {sum(not math.isfinite(loss[-1]) for loss in ends)} of {len(ends)} seeds (epochs until then:
{_lasted(part)})."""
        )
    if slow := _slow_losses(part):
        compared = [
            f"{name} {_entry(loss)} in place of {_entry(_losses(part, name)[_AT_TOO_LARGE])}" for name, loss in slow.items()
        ]
        texts.append(
            f"""{where}: with w trained at {LEARNING_RATES[0]:g}, and only U, b and c at {_TOO_LARGE:g}, the losses at
{_TOO_LARGE:g} are {", ".join(compared)}."""
        )
    if found := _by_euler(part):
        texts.append(
            f"""{where}: what parts exp and softplus from the inverse parameterisation at {LEARNING_RATES[-1]:g} is how fast an
eigenvalue can become. -e^w and -log(1+e^w) have no bound, -1/(w²+1/2) never falls below -2, and that an Euler step of 1 bears.
By such steps {"; ".join(f"{name} comes to {_entry(losses)}" for name, losses in found.items())}."""
        )
    return texts


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
