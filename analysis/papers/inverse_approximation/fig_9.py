"""[IA] Fig 9 and Table 1: sequence classification by nonlinear RNNs, with and without stable parameterisations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from odernn.tables import markdown

from ...plotting import label, picture
from ..compute import images
from ..compute.image_classification import train_rnn
from ..engine.figure import Claim, Data, Figure, Job, Options, Result
from ..panels.classification import PIXELS, by_data_set, describe, short_name, spread, with_spread
from ..panels.parameterizations import COLOURS, LABELS, NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# [IA] Table 1: test loss and accuracy (%).
PUBLISHED = {"direct": (0.9177, 68.47), "exp": (0.9028, 70.55), "inverse": (0.9082, 70.77), "softplus": (0.8903, 71.36)}
_WIDTH, _EPOCHS = 32, 10


class _Variant(NamedTuple):
    """A learning rate, the steps for which a pixel is held, and the slowest rate of W at the start, 1/T by default."""

    rate: float
    steps: int
    slowest: float

    @staticmethod
    def on(name: str, rate: float, steps: int = 1, slowest: float | None = None) -> _Variant:
        return _Variant(rate, steps, 1 / (steps * PIXELS[name]) if slowest is None else slowest)


# By data set, with the number of seeds. The first is the one of the figure ([IA] Fig 2 has that rate too), the others tell how
# much depends on it.
_VARIANTS = {
    "digits": {
        _Variant.on("digits", 0.005, 12): 5,
        _Variant.on("digits", 0.001, 12): 5,
        _Variant.on("digits", 0.005, 1): 5,
        _Variant.on("digits", 0.005, 12, slowest=0.05): 5,
    },
    "mnist-10k": {_Variant.on("mnist-10k", 0.005): 5, _Variant.on("mnist-10k", 0.001): 5},
    "mnist": {_Variant.on("mnist", 0.005): 5, _Variant.on("mnist", 0.001): 5},
}
# Batch size, seconds of a run.
_BATCH = {"digits": 32, "mnist-10k": 32, "mnist": 128}
_COST = {"digits": 2.5, "mnist-10k": 17.0, "mnist": 120.0}
# Accuracies in %.
_CHANCE, _LEARNED, _ALIKE = 10, 20, 5
# Standard errors by which a difference is clear, and seeds that can show one.
_SURE, _FEW = 2, 3
# Runs of direct whose w has a learning rate of its own.
_SLOW_W = "slow w"
_TOO_FAST = (
    "direct learns w at {rate:g}, {ratio:.0f} times its slowest rate 1/T, and loses the slow modes; with w at {rate:g}/T its "
    "accuracy is {slow:.1f} %, that of the best stable one {best:.1f} %"
)
_NOTHING_TO_LOSE = (
    "here direct loses no slow modes that the others keep, and without a loss of memory there is no deficit to make up"
)
_LOSS_TICKS = (0.1, 0.2, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0)


def _jobs(options: Options) -> list[Job]:
    return [job for found in images.find(options.data) for job in _jobs_on(found, options.quick)]


def _jobs_on(found: images.DataSet, quick: bool) -> list[Job]:
    name, result = found.name, []
    shared = {"source": found.source, "hidden_size": _WIDTH, "epochs": _EPOCHS, "batch_size": _BATCH[name]}

    def add(variant: _Variant, settings: Mapping[str, Any]) -> None:
        own = {"rates": [variant.slowest, 1.0], "learning_rate": variant.rate, "steps_per_pixel": variant.steps}
        result.append(Job(train_rnn, {**shared, **own, **settings}, cost=_COST[name], places=found.places))

    variants = list(_VARIANTS[name].items())
    for variant, seeds in variants[:1] if quick else variants:
        for seed in range(1 if quick else seeds):
            for f in NAMES:
                add(variant, {"parameterization": f, "seed": seed})
    variant, seeds = variants[0]
    for seed in range(1 if quick else seeds):
        # The step that a slowest rate e^w makes, whose w is at the common learning rate.
        own = variant.rate / (variant.steps * PIXELS[name])
        add(variant, {"parameterization": "direct", "seed": seed, "recurrent_learning_rate": own})
    return result


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    kept = ("parameterization", "learning_rate", "steps_per_pixel", "seed")
    sets = []
    for source, mine in by_data_set(results):
        part: Data = {"source": source, "runs": [], "slow_w": []}
        for job, result in mine:
            runs = part["slow_w" if "recurrent_learning_rate" in job.settings else "runs"]
            runs.append({**{name: job.settings[name] for name in kept}, "slowest": job.settings["rates"][0], **result})
        sets.append(part)
    return {"sets": sets}


def _variants(part: Data) -> list[_Variant]:
    """Those of a data set, the figure's own first."""
    return list(dict.fromkeys(map(_variant, part["runs"])))


def _variant(run: Data) -> _Variant:
    return _Variant(run["learning_rate"], run["steps_per_pixel"], run["slowest"])


def _values(part: Data, name: str, what: str, variant: _Variant | None = None) -> np.ndarray:
    """(seeds, ...), of the figure's own variant by default; `_SLOW_W` in place of a name: direct with a slow w."""
    chosen = variant or _variants(part)[0]
    runs = part["slow_w"] if name == _SLOW_W else [one for one in part["runs"] if one["parameterization"] == name]
    return np.array([one[what] for one in runs if _variant(one) == chosen])


def _final(part: Data, name: str, what: str, variant: _Variant | None = None) -> np.ndarray:
    """(seeds,), after the last epoch; accuracies in %."""
    return _values(part, name, what, variant)[:, -1] * (100 if what == "test_accuracy" else 1)


def _duration(part: Data, variant: _Variant | None = None) -> int:
    return (variant or _variants(part)[0]).steps * PIXELS[part["source"]["name"]]


def _is_mnist(part: Data) -> bool:
    return bool(part["source"]["name"] != "digits")


def _plot(data: Data, path: Path) -> None:
    sets = data["sets"]
    with picture(path, rows=len(sets), columns=2, height=0.7 + 2.5 * len(sets)) as (figure, panels):
        for part, left, right in zip(sets, panels[0::2], panels[1::2]):
            _draw(left, part, "test_loss", "test loss, cross entropy (nats)")
            _draw(right, part, "test_accuracy", "test accuracy (%)")
        handles = dict(zip(*reversed(panels[-1].get_legend_handles_labels())))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)


def _draw(axes: Axes, part: Data, what: str, text: str) -> None:
    from matplotlib.ticker import NullLocator

    for k, name in enumerate((*NAMES, _SLOW_W)):
        values = _values(part, name, what) * (100 if what == "test_accuracy" else 1)
        mean, epochs = values.mean(0), np.arange(1, values.shape[1] + 1)
        error = values.std(0, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else np.zeros_like(mean)
        style, colour = ("s--", COLOURS["direct"]) if name == _SLOW_W else ("o-", COLOURS[name])
        shown = "direct, $w$ learned at $\\eta/T$" if name == _SLOW_W else LABELS[name]
        axes.plot(epochs, mean, style, color=colour, label=shown, ms=3.5, mfc="white" if name == _SLOW_W else colour)
        axes.fill_between(epochs, mean - error, mean + error, color=colour, alpha=0.2, lw=0)
        if _is_mnist(part) and name in PUBLISHED:
            # Side by side.
            at, published = _EPOCHS + 0.5 + 0.3 * k, PUBLISHED[name][what == "test_accuracy"]
            axes.plot(at, published, "*", color=colour, ms=8, mec="black", mew=0.4, zorder=4)
    if _is_mnist(part):
        axes.plot([], [], "*", color="white", mec="black", ms=8, label="published, from 60,000 images")
    axes.set_xticks(range(1, _EPOCHS + 1))
    seeds = len(_values(part, NAMES[0], "test_loss"))
    label(axes, x="epoch", y=text, title=f"{short_name(part['source'])}: {seeds} seed{'s' * (seeds > 1)}")
    if what == "test_loss":
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
        low, high = axes.get_ylim()
        axes.set_yticks(_LOSS_TICKS, [f"{tick:g}" for tick in _LOSS_TICKS])
        axes.set_ylim(low, high)


def _table(data: Data) -> str:
    rows = []
    for part in data["sets"]:
        variants = _variants(part)
        for variant in variants:
            for name in (*NAMES, _SLOW_W):
                loss, accuracy = (_values(part, name, what, variant) for what in ("test_loss", "test_accuracy"))
                if not len(loss):
                    continue
                # Beside our MNIST, or all that there is.
                beside = variant == variants[0] and part is data["sets"][-1] and name in PUBLISHED
                published = tuple(map(str, PUBLISHED[name])) if beside else ("", "")
                ours = with_spread(loss[:, -1]), with_spread(100 * accuracy[:, -1], 1)
                shown = f"direct, w at {variant.rate / _duration(part, variant):.1e}" if name == _SLOW_W else name
                setting = f"{variant.rate:g}", str(_duration(part, variant)), f"{variant.slowest:.2g}", shown
                rows.append((short_name(part["source"]), *setting, *ours, *published))
    setting = "learning rate", "T", "slowest rate at the start", "parameterisation"
    return markdown(("data", *setting, "test loss", "accuracy (%)", "published loss (MNIST)", "published accuracy"), rows)


def _gains(part: Data, what: str, variant: _Variant | None = None) -> dict[str, np.ndarray]:
    """(seeds,) by stable parameterisation: how much better than direct, paired by seed."""
    sign = 1 if what == "test_loss" else -1
    direct = _final(part, "direct", what, variant)
    return {name: sign * (direct - _final(part, name, what, variant)) for name in NAMES[1:]}


def _deficit(part: Data, variant: _Variant | None = None) -> float:
    """Points of accuracy by which direct is behind the best, in the mean over seeds."""
    return float(max(gain.mean() for gain in _gains(part, "test_accuracy", variant).values()))


def _best(part: Data) -> float:
    """Accuracy of the best stable parameterisation, %."""
    return float(max(_final(part, name, "test_accuracy").mean() for name in NAMES[1:]))


def _cured(part: Data) -> bool:
    """Whether less than half of the deficit is left with a slow w."""
    return bool(_best(part) - _slow(part).mean() < _deficit(part) / 2)


def _clear(gain: np.ndarray) -> bool:
    return bool(gain.mean() > _SURE * spread(gain))


def _shown(gains: Mapping[str, np.ndarray], digits: int) -> str:
    return ", ".join(f"{name} {with_spread(gain, digits)}" for name, gain in gains.items())


def _claims(data: Data) -> list[Claim]:
    return [claim for part in data["sets"] for claim in _claims_on(part)]


def _claims_on(part: Data) -> list[Claim]:
    where, rate = short_name(part["source"]), _variants(part)[0].rate
    accuracy = {name: _final(part, name, "test_accuracy") for name in NAMES}
    claims = [
        Claim(
            f"{where}: every run learns (fails if a test accuracy is below {_LEARNED} %; chance: {_CHANCE} %)",
            all((values >= _LEARNED).all() for values in accuracy.values()),
            "lowest of the seeds: " + ", ".join(f"{name} {values.min():.1f} %" for name, values in accuracy.items()),
        )
    ]
    if len(accuracy["direct"]) < _FEW:
        # So few seeds say nothing of differences as small as these.
        return claims
    losses, gains = _gains(part, "test_loss"), _gains(part, "test_accuracy")
    for which, found, digits in (("a lower test loss", losses, 3), ("a higher test accuracy", gains, 1)):
        claims.append(
            Claim(
                f"{where}: every stable parameterisation ends with {which} than the direct one (fails if the mean gain of one is "
                f"below {_SURE} standard errors)",
                all(map(_clear, found.values())),
                f"gain over direct, paired by seed: {_shown(found, digits)}{'' if found is losses else ' points'}",
            )
        )
    largest, cured, slow, best = _deficit(part), _cured(part), _slow(part), _best(part)
    theirs = [PUBLISHED[name][1] - PUBLISHED["direct"][1] for name in NAMES[1:]]
    claims += [
        Claim(
            f"{where}: direct falls behind no further than published, {min(theirs):.1f} to {max(theirs):.1f} points (fails if a "
            f"stable one gains {_ALIKE} or more)",
            largest < _ALIKE,
            f"gains {_shown(gains, 1)} points",
            difference=_TOO_FAST.format(rate=rate, ratio=rate * _duration(part), slow=slow.mean(), best=best) if cured else "",
        ),
        Claim(
            f"{where}: that is the learning rate of w, not the parameterisation. With w, and nothing else, at {rate:g}/T direct "
            "is as good (fails if half of its deficit in accuracy is left)",
            cured,
            f"direct {with_spread(accuracy['direct'], 1)} → {with_spread(slow, 1)} %, the best stable one {best:.1f} %; "
            "slowest rate at the end: direct "
            f"{_slowest(part, 'direct'):.2g} → {_slowest(part, _SLOW_W):.2g}, exp {_slowest(part, 'exp'):.2g}",
        ),
    ]
    claims += [_claim_about(part, variant) for variant in _variants(part)[1:]]
    return claims + [_claim_that_the_sign_turns(part, one) for one in _variants(part)[1:] if _is_short(part, one)]


def _is_short(part: Data, variant: _Variant) -> bool:
    """Whether sequences are shorter than those of the figure."""
    return _duration(part, variant) < _duration(part)


def _claim_that_the_sign_turns(part: Data, variant: _Variant) -> Claim:
    """That over few steps direct has the lower loss."""
    gains = _gains(part, "test_loss", variant)
    return Claim(
        f"{short_name(part['source'])}: over {_duration(part, variant)} steps the sign turns, and direct "
        "ends with the lower test loss (fails if the mean gain of a stable one is above 0)",
        all(gain.mean() <= 0 for gain in gains.values()),
        f"gain in loss {_shown(gains, 3)}, where it is {_shown(_gains(part, 'test_loss'), 3)} over {_duration(part)} steps",
    )


def _claim_about(part: Data, variant: _Variant) -> Claim:
    """That another learning rate or duration changes nothing."""
    losses, gains = _gains(part, "test_loss", variant), _gains(part, "test_accuracy", variant)
    direct, stable = (_slowest(part, name, variant) for name in ("direct", "exp"))
    return Claim(
        f"{short_name(part['source'])}: the order is the same {_at(part, variant)} (fails if a mean gain, in loss or "
        f"accuracy, is below {_SURE} standard errors)",
        all(map(_clear, (*losses.values(), *gains.values()))),
        f"gain in loss {_shown(losses, 3)}; in accuracy {_shown(gains, 1)} points; slowest rate at the end: direct {direct:.2g}, "
        f"exp {stable:.2g}",
        difference=_NOTHING_TO_LOSE if direct <= 2 * stable and _deficit(part, variant) < _deficit(part) / 2 else "",
    )


def _at(part: Data, variant: _Variant) -> str:
    return f"at learning rate {variant.rate:g}, T = {_duration(part, variant)}, rates from {variant.slowest:.2g}"


def _slow(part: Data) -> np.ndarray:
    """Accuracies of direct with a slow w, %."""
    return _final(part, _SLOW_W, "test_accuracy")


def _slowest(part: Data, name: str, variant: _Variant | None = None) -> float:
    """Slowest rate of W at the end of training, in the mean over seeds; negative: unstable."""
    return float(_values(part, name, "margin", variant).mean())


def _settings(data: Data) -> str:
    parts = [f"{short_name(part['source'])}: {_held(part)}" for part in data["sets"]]
    missing = "" if len(parts) > 1 else " MNIST does not come with the project (`--data` takes a folder with its IDX files)."
    rate = _variants(data["sets"][0])[0].rate
    batches = " and ".join(f"{_BATCH[part['source']['name']]} ({short_name(part['source'])})" for part in data["sets"])
    return f"""The data are images as sequences of pixels, standardised. {"; ".join(parts)}.{missing}

h_{{k+1}} = h_k + tanh(W h_k + U x_k + b), logits c^T h(T), W = P^T diag(f(w)) P with P = expm(A - A^T) P₀ trained too,
m = {_WIDTH}; rates -f(w) log-uniform in [1/T, 1] at the start. W, U, c and the order of the images are decided by the seed alone,
and so are the same for all parameterisations. Adam at η = {rate:g}, batches of {batches}, cross entropy, {_EPOCHS} epochs, no
early stopping. Dashed: direct with w, and nothing else, learned at η/T, which is the step of the slowest rate e^w whose w is
learned at η. Means and standard errors of the seeds. Sequence order, width, learning rate, batch and initial W are not published,
and where the data are not its 60,000 images the losses are not to be compared with the published ones, only their order is."""


def _held(part: Data) -> str:
    steps = _variants(part)[0].steps
    held = f", each pixel held for {steps} steps, so that the sequence is as long as one of MNIST's" if steps > 1 else ""
    return f"{describe(part['source'])}{held}"


def _findings(data: Data) -> str:
    texts = []
    for part in data["sets"]:
        if len(_slow(part)) < _FEW:  # a quick run
            continue
        for variant in _variants(part):
            # The same for all at the start: 1/T.
            ends = ", ".join(f"{name} {_slowest(part, name, variant):.2g}" for name in NAMES)
            texts.append(
                f"- {short_name(part['source'])}, {_at(part, variant)}: direct is {_deficit(part, variant):.1f} points behind "
                f"the best; the slowest rate of W ends at {ends} (means; negative: unstable)."
            )
            if _is_short(part, variant):
                texts.append(
                    f"""- There the sign turns: the gain in test loss of the stable ones over direct is
{_shown(_gains(part, "test_loss", variant), 3)}. What [IA] Fig 9 shows is a matter of long sequences."""
                )
    judged = [part for part in data["sets"] if len(_slow(part)) >= _FEW]
    if not judged or not all(map(_cured, judged)):
        return "\n".join(texts)
    why = """So the deficit of direct is one of the learning rate that w shares with the other weights. Adam moves every weight by
about η a step, whatever its gradient. To direct that is a step of the rate itself, several times the slowest rates, which W loses
in the first epochs, and with them what came early in the sequence. To e^w it is a step of the size η in the logarithm of the
rate. What the parameterisation can represent costs it nothing: with w at η/T direct does as well as the others from the same W.
An unstable W alone does a tanh RNN little harm, whose state grows no faster than t."""
    # Variants without slow modes at the start.
    quick = [_deficit(part, one) for part in judged for one in _variants(part) if one.slowest > 10 / _duration(part, one)]
    if quick and max(quick) < _ALIKE:
        why += f"""
And where W starts without slow modes there are none to lose: direct is {max(quick):.1f} points behind. The published deficits, 2
to 3 points, fit a W that starts so, or a smaller learning rate; neither is given."""
    return "\n".join([*texts, "", why])


IA_9 = Figure(
    name="ia-9",
    title="Image classification from identical initial W: stable parameterisations",
    source="[IA] Fig 9, Table 1",
    published="""MNIST as sequences, nonlinear RNN, 10 epochs, identical initial W. Test loss and accuracy: """
    + "; ".join(f"{name} {loss} / {accuracy} %" for name, (loss, accuracy) in PUBLISHED.items())
    + ".",
    settings=_settings,
    jobs=_jobs,
    assemble=_assemble,
    plot=_plot,
    claims=_claims,
    table=_table,
    findings=_findings,
)
