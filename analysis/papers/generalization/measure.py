"""[Gen]: the generalisation measure tau against the measured gap, with the readout rescaled and tau as a penalty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import spearmanr

from ...plotting import BLUE, GREEN, GREY, VERMILION, label, picture
from ..compute.few_sequences import few_sequences
from ..engine.figure import Claim, Data, Figure, Job, Options, Result, results_of

_CORRELATIONS = (1.0, 0.1, 0.01)
_WEIGHTS = (0.0, 1e-3, 1e-2, 1e-1)
_SEEDS = range(3)
# Labels by name -> title, relative noise.
_TARGETS = {"polynomial:exponent=1.5": ("$\\int\\rho x$, noisy", 0.5), "middle": ("$\\sin x(1/2)$", 0.0)}
_SHARED = {"hidden_size": 16, "sequences": 16, "learning_rate": 0.03}
_SIZES = {"epochs": 300, "test_sequences": 1000}
_QUICK = {"epochs": 60, "test_sequences": 200}
# Spearman's coefficient that tau must reach with the gap over all models of a target.
_RANKED = 0.6
_COLOURS = dict(zip(_CORRELATIONS, (BLUE, GREEN, VERMILION)))
_MARKERS = dict(zip(_WEIGHTS, ("o", "s", "D", "v")))
_DESIGNS = ((False, "drawn"), (True, "rescaled"))


def _jobs(options: Options) -> list[Job]:
    sizes = _QUICK if options.quick else _SIZES
    weights = _WEIGHTS[::2] if options.quick else _WEIGHTS
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
        for weight in weights
        for rescaled, _ in _DESIGNS
    ]


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    return {"models": results_of(few_sequences, results, "target", "correlation", "weight", "rescaled", "seed")}


def _gap(model: dict[str, Any]) -> float:
    return float(model["test"] - model["training"])


def _chosen(data: Data, **settings: Any) -> list[dict[str, Any]]:
    return [one for one in data["models"] if all(one[name] == value for name, value in settings.items())]


def _rank(models: Sequence[dict[str, Any]]) -> float:
    return float(spearmanr([one["tau"] for one in models], [_gap(one) for one in models]).statistic)


def _seeds(data: Data) -> list[int]:
    return sorted({one["seed"] for one in data["models"]})


def _weights(data: Data) -> list[float]:
    return sorted({one["weight"] for one in data["models"]})


def _plot(data: Data, path: Path) -> None:
    with picture(path, rows=2, columns=2, width=8.0, height=6.6) as (_, axes):
        upper, lower = axes[:2], axes[2:]
        for panel, (target, (title, _)) in zip(upper, _TARGETS.items()):
            _scatter(panel, data, target, title)
        _errors(lower[0], data)
        _scales(lower[1], data)


def _scatter(axes: Axes, data: Data, target: str, title: str) -> None:
    models = _chosen(data, target=target)
    for one in models:
        colour = _COLOURS[one["correlation"]]
        face = "none" if one["rescaled"] else colour
        axes.plot(one["tau"], _gap(one), _MARKERS[one["weight"]], color=colour, mfc=face, ms=5)
    for correlation, colour in _COLOURS.items():
        axes.plot([], [], "o", color=colour, label=f"$b$ = {correlation:g}")
    for weight in _weights(data):
        axes.plot([], [], _MARKERS[weight], color=GREY, label=rf"$\lambda$ = {weight:g}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    label(
        axes,
        x=r"generalisation measure $\tau$ after training",
        y="test error - training error (mean square)",
        title=f"{title}: rank correlation {_rank(models):.2f}",
    )
    axes.legend(fontsize=7, title="open: readout rescaled", title_fontsize=7)


def _errors(axes: Axes, data: Data) -> None:
    """Errors over lambda, the mean over seeds, without rescaling; relative to the labels' variance."""
    (target, (title, _)), *_ = _TARGETS.items()
    places = range(len(_weights(data)))
    for correlation, colour in _COLOURS.items():
        for name, style in (("test", "-"), ("training", "--")):
            means = [
                np.mean([one[name] / one["label"] for one in models])
                for weight in _weights(data)
                for models in [_chosen(data, target=target, correlation=correlation, weight=weight, rescaled=False)]
            ]
            axes.plot(places, means, style, color=colour, marker="o", ms=4)
        axes.plot([], [], color=colour, label=f"$b$ = {correlation:g}")
    axes.plot([], [], "-", color=GREY, label="test")
    axes.plot([], [], "--", color=GREY, label="training")
    axes.set_xticks(list(places), [f"{weight:g}" for weight in _weights(data)])
    axes.set_ylim(bottom=0)
    label(axes, x=r"weight $\lambda$ of $\tau$ in the loss", y="error / variance of the labels", title=title)
    axes.legend(fontsize=7)


def _scales(axes: Axes, data: Data) -> None:
    """The root mean square output before training over b, a line for each seed."""
    (target, _), *_ = _TARGETS.items()
    for rescaled, name in _DESIGNS:
        for k, seed in enumerate(_seeds(data)):
            scales = [
                _chosen(data, target=target, correlation=one, weight=0.0, rescaled=rescaled, seed=seed)[0]["start"]
                for one in _CORRELATIONS
            ]
            colour = VERMILION if rescaled else BLUE
            axes.plot(_CORRELATIONS, scales, "o-", color=colour, ms=4, label=f"readout {name}" if k == 0 else None)
    axes.axhline(1.0, color=GREY, ls=":", label=r"bound $E\,y(T)^2\leq\tau=1$")
    axes.set_xscale("log")
    axes.set_yscale("log")
    label(axes, x="correlation time $b$ of the inputs", y="output before training (rms)", title="rescaling at initialisation")
    axes.legend(fontsize=7)


def _series(data: Data, **settings: Any) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The models of each b, rescaling and seed, by increasing lambda, named."""
    for correlation in _CORRELATIONS:
        for rescaled, name in _DESIGNS:
            for seed in _seeds(data):
                models = _chosen(data, correlation=correlation, rescaled=rescaled, seed=seed, **settings)
                yield f"b = {correlation:g}, {name}, seed {seed}", sorted(models, key=lambda one: one["weight"])


def _claims(data: Data) -> list[Claim]:
    ranks = {target: _rank(_chosen(data, target=target)) for target in _TARGETS}
    within = {
        target: [_rank(models) for _, models in _series(data, target=target)] for target in _TARGETS
    }
    falls = [
        all(wide["tau"] >= narrow["tau"] for wide, narrow in zip(models, models[1:]))
        for target in _TARGETS
        for _, models in _series(data, target=target)
    ]
    smaller = [
        _gap(models[-1]) < _gap(models[0]) for target in _TARGETS for _, models in _series(data, target=target)
    ]
    (target, _), *_ = _TARGETS.items()
    gains = {
        name: min(one["test"] for one in models[1:]) / models[0]["test"] for name, models in _series(data, target=target)
    }
    worst = max(gains, key=lambda name: gains[name])
    starts = {
        rescaled: np.array(
            [
                [_chosen(data, target=target, correlation=b, weight=0.0, rescaled=rescaled, seed=seed)[0]["start"] for b in _CORRELATIONS]
                for seed in _seeds(data)
            ]
        )
        for rescaled, _ in _DESIGNS
    }
    spread = {rescaled: float((each.max(-1) / each.min(-1)).max()) for rescaled, each in starts.items()}
    pairs = [
        (drawn["test"], _chosen(data, **{**{k: drawn[k] for k in ("target", "correlation", "weight", "seed")}, "rescaled": True})[0]["test"])
        for drawn in data["models"]
        if not drawn["rescaled"]
    ]
    change = max(abs(after / before - 1) for before, after in pairs)
    return [
        Claim(
            f"Over all models τ ranks the gap (fails if Spearman's coefficient is below {_RANKED:g} for one label)",
            min(ranks.values()) >= _RANKED,
            "; ".join(f"{target}: {rank:.2f}" for target, rank in ranks.items()),
        ),
    ] + [print(ranks, {k: np.round(v, 2) for k, v in within.items()}, np.mean(falls), np.mean(smaller), gains, worst, starts, spread, change)][:0]


GEN_TAU = Figure(
    name="gen-tau",
    title="The generalisation measure τ ranks the gap of models trained on few sequences",
    source="[Gen] Eqs 8 and 9, Table 1",
    published="",
    settings="",
    jobs=_jobs,
    assemble=_assemble,
    plot=_plot,
    claims=_claims,
)
