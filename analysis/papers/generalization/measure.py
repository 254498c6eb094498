"""[Gen]: the generalisation measure tau against the measured gap, the readout rescaled by tau, and tau as a penalty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...plotting import BLUE, GREEN, GREY, VERMILION, label, picture
from ..compute.few_sequences import few_sequences
from ..engine.figure import Claim, Data, Figure, Job, Options, Result, results_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# b of the inputs, and lambda.
_CORRELATIONS = (1.0, 0.1, 0.01)
_WEIGHTS = (0.0, 1e-3, 1e-2, 1e-1)
# The default of `TrainingConfig`.
_DEFAULT = 1e-2
_SEEDS = range(3)
_KERNEL, _MIDDLE = "polynomial:exponent=1.5", "middle"
# Labels -> title, noise relative to their standard deviation.
_TARGETS = {_KERNEL: (r"$\int\rho x$ with noise", 0.5), _MIDDLE: (r"$\sin x(1/2)$", 0.0)}
_SHARED = {"hidden_size": 16, "sequences": 16, "learning_rate": 0.03}
_SIZES = {"epochs": 300, "test_sequences": 1000}
_QUICK = {"epochs": 60, "test_sequences": 200}
# Spearman's coefficient that tau must reach with the gap.
_RANKED = 0.5
# tau after the rescaling is 1 up to rounding.
_ROUNDING = 1e-9
# What tells models apart that start with the same readout or a rescaled one.
_SETTINGS = ("target", "correlation", "weight", "seed")
_COUNT = len(_TARGETS) * len(_CORRELATIONS) * len(_WEIGHTS) * 2 * len(_SEEDS)
_COLOURS = dict(zip(_CORRELATIONS, (BLUE, GREEN, VERMILION)))
_MARKERS = dict(zip(_WEIGHTS, ("o", "s", "D", "v")))
# Gaps below this are drawn on a linear scale: they may be negative.
_LINEAR = 0.01

Model = dict[str, Any]


def _jobs(options: Options) -> list[Job]:
    sizes = _QUICK if options.quick else _SIZES
    return [
        Job(
            few_sequences,
            {
                **_SHARED,
                **sizes,
                "target": target,
                "noise": noise,
                "correlation": correlation,
                "weight": weight,
                "rescaled": rescaled,
                "seed": seed,
            },
            cost=sizes["epochs"] / 200,
        )
        for target, (_, noise) in _TARGETS.items()
        for seed in (_SEEDS[:1] if options.quick else _SEEDS)
        for correlation in _CORRELATIONS
        for weight in (_WEIGHTS[::2] if options.quick else _WEIGHTS)
        for rescaled in (False, True)
    ]


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    return {"models": results_of(few_sequences, results, "target", "correlation", "weight", "rescaled", "seed")}


def _chosen(data: Data, **settings: Any) -> list[Model]:
    """The models of these settings, by increasing lambda."""
    found = [one for one in data["models"] if all(one[name] == value for name, value in settings.items())]
    return sorted(found, key=lambda one: one["weight"])


def _values(data: Data, setting: str) -> list[Any]:
    return sorted({one[setting] for one in data["models"]})


def _series(data: Data, **settings: Any) -> list[list[Model]]:
    """Models that differ in lambda alone, by increasing lambda."""
    free = [name for name in ("target", "correlation", "rescaled", "seed") if name not in settings]
    groups: dict[tuple[Any, ...], list[Model]] = {}
    for one in _chosen(data, **settings):
        groups.setdefault(tuple(one[name] for name in free), []).append(one)
    return list(groups.values())


def _gap(model: Model) -> float:
    return float(model["test"] - model["training"])


def _rank(models: Sequence[Model]) -> float:
    """Spearman's coefficient of tau and the gap: the correlation of their ranks (no two are alike)."""
    taus, gaps = [one["tau"] for one in models], [_gap(one) for one in models]
    return float(np.corrcoef(np.argsort(np.argsort(taus)), np.argsort(np.argsort(gaps)))[0, 1])


def _relative_test(data: Data, target: str, correlation: float, weight: float) -> float:
    """Mean test error over seeds and starts, relative to the variance of the labels."""
    models = _chosen(data, target=target, correlation=correlation, weight=weight)
    return float(np.mean([one["test"] / one["label"] for one in models]))


def _starts(data: Data, rescaled: bool) -> np.ndarray:
    """Root mean square outputs before training, (seed, b)."""
    return np.array(
        [
            [
                _chosen(data, target=_KERNEL, seed=seed, correlation=correlation, weight=0.0, rescaled=rescaled)[0]["start"]
                for correlation in _CORRELATIONS
            ]
            for seed in _values(data, "seed")
        ]
    )


def _plot(data: Data, path: Path) -> None:
    with picture(path, rows=2, columns=2, width=8.0, height=6.6) as (_, (left, right, errors, starts)):
        for axes, target in ((left, _KERNEL), (right, _MIDDLE)):
            _draw_gaps(axes, data, target)
        for correlation, colour in _COLOURS.items():
            left.plot([], [], "o", color=colour, label=f"$b$ = {correlation:g}")
        left.legend(loc="upper left", fontsize=7)
        for weight in _values(data, "weight"):
            right.plot([], [], _MARKERS[weight], color=GREY, label=rf"$\lambda$ = {weight:g}")
        right.plot([], [], "o", color=GREY, mfc="none", label="open: readout rescaled")
        right.legend(loc="lower right", fontsize=7)
        _draw_errors(errors, data)
        _draw_starts(starts, data)


def _draw_gaps(axes: Axes, data: Data, target: str) -> None:
    models = _chosen(data, target=target)
    for one in models:
        colour = _COLOURS[one["correlation"]]
        face = "none" if one["rescaled"] else colour
        axes.plot(one["tau"], _gap(one), _MARKERS[one["weight"]], color=colour, mfc=face, ms=5)
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=_LINEAR)
    label(
        axes,
        x=r"generalisation measure $\tau$ after training",
        y="gap: test error - training error",
        title=f"label {_TARGETS[target][0]}: rank correlation {_rank(models):.2f}",
    )


def _draw_errors(axes: Axes, data: Data) -> None:
    """Errors over lambda of the first label, a thick line for the mean over seeds and starts."""
    weights = _values(data, "weight")
    places = list(range(len(weights)))
    for correlation, colour in _COLOURS.items():
        for seed in _values(data, "seed"):
            (models,) = _series(data, target=_KERNEL, correlation=correlation, seed=seed, rescaled=False)
            axes.plot(places, [one["test"] / one["label"] for one in models], color=colour, lw=0.6, alpha=0.6)
        means = [_relative_test(data, _KERNEL, correlation, weight) for weight in weights]
        axes.plot(places, means, "o-", color=colour, ms=4, label=f"$b$ = {correlation:g}")
    axes.plot([], [], color=GREY, lw=0.6, label="each seed")
    axes.set_xticks(places, [f"{weight:g}" for weight in weights])
    axes.set_ylim(bottom=0)
    label(
        axes,
        x=r"weight $\lambda$ of $\tau$ in the training loss",
        y="test error / variance of the label",
        title=f"label {_TARGETS[_KERNEL][0]}",
    )
    axes.legend(fontsize=7)


def _draw_starts(axes: Axes, data: Data) -> None:
    for rescaled, name, colour in ((False, "as drawn", BLUE), (True, r"divided by $\sqrt{\tau}$", VERMILION)):
        for k, scales in enumerate(_starts(data, rescaled)):
            axes.plot(_CORRELATIONS, scales, "o-", color=colour, ms=4, label=f"readout {name}" if k == 0 else None)
    axes.axhline(1.0, color=GREY, ls=":", label=r"bound where $\tau$ = 1")
    axes.set_xscale("log")
    axes.set_yscale("log")
    label(axes, x="correlation time $b$ of the inputs", y="output before training, rms", title="start of training")
    axes.legend(fontsize=7, loc="lower left")


def _claims(data: Data) -> list[Claim]:
    ranks = {target: _rank(_chosen(data, target=target)) for target in _TARGETS}
    series = _series(data)
    falling = [all(more["tau"] < less["tau"] for less, more in zip(models, models[1:])) for models in series]
    strongest = max(_values(data, "weight"))
    smaller = [_gap(models[-1]) < _gap(models[0]) for models in series]
    tests = {
        (target, correlation): [_relative_test(data, target, correlation, weight) for weight in (0.0, _DEFAULT)]
        for target in _TARGETS
        for correlation in _CORRELATIONS
    }
    rescaled = [one for one in data["models"] if one["rescaled"]]
    largest = max(one["start"] for one in rescaled)
    drawn, divided = ((starts.max(-1) / starts.min(-1)) for starts in (_starts(data, False), _starts(data, True)))
    return [
        Claim(
            f"Over all models of a label τ ranks the gap (fails if Spearman's coefficient is below {_RANKED:g} for one)",
            min(ranks.values()) >= _RANKED,
            "; ".join(f"{_name(target)}: {rank:.2f}" for target, rank in ranks.items()),
        ),
        Claim(
            "A larger weight λ leaves a smaller τ (fails if one does not, at one b, seed or start)",
            all(falling),
            f"{sum(falling)} of {len(falling)} series",
        ),
        Claim(
            f"The regulariser narrows the gap (fails if at λ = {strongest:g} one is not smaller than without)",
            all(smaller),
            f"{sum(smaller)} of {len(smaller)} series",
        ),
        Claim(
            f"At its default λ = {_DEFAULT:g} it lowers the test error, in the mean over seeds and starts (fails if not, at "
            "one b of one label)",
            all(after < before for before, after in tests.values()),
            "; ".join(
                f"{_name(target)}, b = {correlation:g}: {before:.2f} to {after:.2f}"
                for (target, correlation), (before, after) in tests.items()
            ),
        ),
        Claim(
            "The rescaled readout starts with τ = 1 and with outputs of at most 1 (rms, fails if one is larger)",
            all(abs(one["start_tau"] - 1) < _ROUNDING for one in rescaled) and largest <= 1,
            f"largest rms {largest:.2f} of {len(rescaled)} models",
        ),
        Claim(
            "Over b these outputs differ by less than without (fails if one seed's do not)",
            bool((divided < drawn).all()),
            "largest over smallest: "
            + "; ".join(f"{before:.1f} without, {after:.1f} with" for before, after in zip(drawn, divided)),
        ),
    ]


def _name(target: str) -> str:
    return "∫ρx" if target == _KERNEL else "sin x(1/2)"


def _rows(data: Data) -> list[Model]:
    return [{**one, "gap": _gap(one)} for one in data["models"]]


def _findings(data: Data) -> str:
    at_one_b = "; ".join(
        f"{_name(target)}, b = {correlation:g}: {_rank(_chosen(data, target=target, correlation=correlation)):.2f}"
        for target in _TARGETS
        for correlation in _CORRELATIONS
    )
    one_set = [
        _rank(_chosen(data, target=target, correlation=correlation, seed=seed))
        for target in _TARGETS
        for correlation in _CORRELATIONS
        for seed in _values(data, "seed")
    ]
    raised = [
        regularised["test"] > models[0]["test"]
        for models in _series(data)
        for regularised in models
        if regularised["weight"] == _DEFAULT
    ]
    drawn, rescaled = (
        {tuple(one[name] for name in _SETTINGS): one["test"] for one in _chosen(data, rescaled=start)} for start in (False, True)
    )
    changes = [rescaled[settings] / test - 1 for settings, test in drawn.items()]
    return f"""Among models of one b the coefficients are: {at_one_b}. Among those of one training set they lie between
{min(one_set):.2f} and {max(one_set):.2f}: how a training set happened to come out moves the gap as well, and τ does not know it.
At λ = {_DEFAULT:g} the test error of {sum(raised)} of {len(raised)} single series is larger than without.

Rescaling alone changes little once models are trained: the test error by {min(changes):+.0%} to {max(changes):+.0%}, by
{np.median(np.abs(changes)):.1%} in the median. Nor does it make outputs equal over b: it bounds them from above, E y(T)² ≤ τ,
with equality only for inputs that are one random number times a shape. As b falls the inputs become white: K(s, s) grows like
1/b and E y(T)² does not, so that the rescaled output falls, in the limit like √b."""


GEN_TAU = Figure(
    name="gen-tau",
    title="A generalisation measure ranks the gap of models trained on few sequences, and lowers it as a penalty",
    source="[Gen] Eqs 8 and 9, Table 1",
    published="""One-layer S4 models without skip connection, trained on 100 sequences of 100 samples to predict sin(x(L/2)),
and tested on 1000, for gaussian inputs of three correlation times b: rescaling C by √τ at initialisation keeps outputs of one
size over b, and λτ in the loss lowers the test error.""",
    settings=f"""Linear state-space models of {_SHARED["hidden_size"]} units, complex modes from S4D-Lin's eigenvalues -1/2 ± iπn,
input weights 1, {_SIZES["epochs"]} full-batch steps of Adam at {_SHARED["learning_rate"]:g}, nothing chosen by validation. Inputs
on [0, 1] at 101 samples, of covariance e^(-(s-t)²/b²) / (b√π). {_SHARED["sequences"]} sequences for training, few enough to be
fitted too well, {_SIZES["test_sequences"]} for the test. Two labels at time 1: ∫ρ(1-s) x(s) ds with ρ = (1+t)^-1.5 and noise of
half its standard deviation (the test error counts as much noise), and the published sin x(1/2), which no linear model has. The
readout as drawn and rescaled, {len(_SEEDS)} seeds: {_COUNT} models. τ takes mean and covariance of the training inputs. The
paper's formulas were not at hand and were derived anew: E y(T)² ≤ τ is tested against samples, τ against a fine quadrature.""",
    jobs=_jobs,
    assemble=_assemble,
    claims=_claims,
    plot=_plot,
    rows=_rows,
    findings=_findings,
)
