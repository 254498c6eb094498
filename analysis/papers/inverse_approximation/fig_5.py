"""[IA] Fig 5 and 6: the memory of sentiment classifiers, asked by one word repeated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from odernn.tables import markdown

from ...plotting import GREY, PALETTE, label, log_limits, picture
from ..compute import sentiment
from ..compute.sentiment_language import KINDS, REACH, WORDS, train_and_repeat
from ..engine.figure import Claim, Data, Figure, Job, Options, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WORDS = ("ha", "good", "bad")
_LONGEST, _QUICK_LONGEST = 64, 16
# Training of our own.
_STEPS, _QUICK_STEPS, _SEEDS = 1500, 500, range(3)
_NAMES = {"bidirectional": "bidirectional LSTM", "stacked": "stacked LSTM"}
_NEEDED = f"""a folder with a Hugging Face sequence classifier and its tokenizer (`config.json`, weights, tokenizer files) as
`{sentiment.FOLDER}` in the folder given by `--data`, or several, one folder each in it, and
`pip install 'odernn[sentiment]'`"""
# Changes below this are rounding: float32 probabilities of a local classifier, float64 ones of our own.
_FLOOR, _OWN_FLOOR = 1e-7, 1e-14
# Repetitions of which the scores are drawn; of their memory all.
_SEEN = 25
# Points of accuracy: behind the best there is at most, ahead of counting words at least.
_BEHIND, _AHEAD = 3, 5
# Part of a word's weight.
_FORGOTTEN = 0.1


def _jobs(options: Options) -> list[Job]:
    longest = _QUICK_LONGEST if options.quick else _LONGEST
    own = {"words": _WORDS, "longest": _LONGEST, "steps": _QUICK_STEPS if options.quick else _STEPS}
    seeds = _SEEDS[:1] if options.quick else _SEEDS
    jobs = [Job(train_and_repeat, {**own, "kind": kind, "seed": seed}, cost=10.0) for kind in KINDS for seed in seeds]
    for found in sentiment.find(options.data):
        asked = {"source": found.source, "longest": longest}
        jobs += [Job(sentiment.repetition_scores, {**asked, "word": word}, 20.0, found.places) for word in _WORDS]
    return jobs


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    models: dict[str, dict[str, Any]] = {}
    for job, result in results:
        if job.compute is train_and_repeat:
            name = _NAMES[job.settings["kind"]]
            scores = {word: (1 / (1 + np.exp(-np.array(logits)))).tolist() for word, logits in result["logits"].items()}
            own = {"name": name, "label": "praise", "seed": job.settings["seed"], "scores": scores, **result}
            models[f"{name} {own['seed']}"] = own
        else:
            name = job.settings["source"]["name"]
            model = models.setdefault(f"folder {name}", {"name": name, "label": result["label"], "scores": {}})
            model["scores"][job.settings["word"]] = result["scores"]
    return {"models": list(models.values())}


def memory(scores: ArrayLike) -> np.ndarray:
    """M(n) = |y_{n+1} - y_n|, n = 0, 1, ...: the memory function of a map ([IA] Def 3.1), for the one input of size 1."""
    return np.abs(np.diff(scores))


def _by_name(data: Data) -> dict[str, list[dict[str, Any]]]:
    """The seeds of every classifier; of a local one there is one."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for model in data["models"]:
        groups.setdefault(model["name"], []).append(model)
    return groups


def _is_own(model: dict[str, Any]) -> bool:
    return "logits" in model


def _plot(data: Data, path: Path) -> None:
    groups = _by_name(data)
    with picture(path, rows=len(groups), columns=3, width=9.6, height=0.4 + 2.5 * len(groups)) as (figure, panels):
        for k, (name, models) in enumerate(groups.items()):
            left, middle, right = panels[3 * k : 3 * k + 3]
            _draw(left, models, "scores", lambda values: values)
            _draw(middle, models, "scores", memory)
            label(left, x="repetitions $n$", y=f"score $y_n$, P({models[0]['label']})", title=name)
            label(middle, x="repetitions $n$", y="$M(n)=|y_{n+1}-y_n|$", title="memory of the score")
            left.set_ylim(-0.05, 1.05)
            # Later nothing moves that could be seen.
            left.set_xlim(-0.5, min(len(models[0]["scores"][_WORDS[0]]), _SEEN) - 0.5)
            floor = _OWN_FLOOR if _is_own(models[0]) else _FLOOR
            log_limits(middle, [memory(scores) for model in models for scores in model["scores"].values()], floor)
            if not _is_own(models[0]):
                right.set_visible(False)
                continue
            _draw(right, models, "logits", memory)
            label(right, x="repetitions $n$", y="change of the log-odds", title="memory of the log-odds")
            log_limits(right, [memory(logits) for model in models for logits in model["logits"].values()], _OWN_FLOOR)
            for axes in (middle, right):
                axes.minorticks_off()
            n = np.arange(len(models[0]["logits"][_WORDS[0]]))
            for word in _WORDS:
                best, style = 1 / (1 + np.exp(-WORDS[word] * n)), "--" if word == "ha" else "-"
                shown = "best there is" + (' for "ha"' if word == "ha" else "")
                for axes, values in ((left, best), (middle, memory(best)), (right, memory(WORDS[word] * n))):
                    axes.plot(n[: len(values)], values, style, color=GREY, lw=1, zorder=1, label=shown)
        handles = dict(zip(*reversed(panels[0].get_legend_handles_labels())))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))


def _draw(axes: Axes, models: Sequence[dict[str, Any]], what: str, transform: Any) -> None:
    """A line for every word and seed."""
    for model in models:
        for (word, values), colour in zip(model[what].items(), PALETTE):
            drawn = transform(np.array(values))
            axes.plot(np.arange(len(drawn)), drawn, "o-", color=colour, label=f'"{word}" repeated', ms=1.5, lw=0.8)


def _not_to_be_seen(models: Sequence[dict[str, Any]]) -> str:
    """Why nothing can be said of a classifier's memory; '' where its scores are enough for that."""
    memories = [memory(scores) for model in models for scores in model["scores"].values()]
    if (longest := max(map(len, memories))) < _QUICK_LONGEST:
        return f"the classifier takes {longest} repetitions, too few to see a memory decay"
    if any(M.max() < _FLOOR for M in memories):
        return "the classifier does not react to every word: there is nothing to forget"
    return ""


def _quarters(models: Sequence[dict[str, Any]], what: str) -> dict[str, np.ndarray]:
    """Means of the memory over the first and the last quarter, (seeds, 2) by word."""
    result: dict[str, list[tuple[float, float]]] = {}
    for model in models:
        for word, values in model[what].items():
            M = memory(values)
            quarter = max(1, len(M) // 4)
            result.setdefault(word, []).append((float(M[:quarter].mean()), float(M[-quarter:].mean())))
    return {word: np.array(values) for word, values in result.items()}


def _shown(parts: dict[str, np.ndarray]) -> str:
    """Ranges over seeds."""
    return ", ".join(f'"{word}" {_span(values[:, 0])} → {_span(values[:, 1])}' for word, values in parts.items())


def _span(values: np.ndarray) -> str:
    low, high = f"{values.min():.2g}", f"{values.max():.2g}"
    return low if low == high else f"{low} to {high}"


def _claims(data: Data) -> list[Claim]:
    claims = []
    for name, models in _by_name(data).items():
        parts = _quarters(models, "scores")
        claims.append(
            Claim(
                f"{name}: the memory decays (fails if its last quarter does not lie below the first, for a word and a seed)",
                all((values[:, 1] < values[:, 0]).all() for values in parts.values()),
                _shown(parts),
                difference=_not_to_be_seen(models),
            )
        )
        if _is_own(models[0]):
            claims += _claims_on_own(name, models)
    return claims


def _claims_on_own(name: str, models: Sequence[dict[str, Any]]) -> list[Claim]:
    mine, counts, best = (100 * _accuracies(models, what) for what in ("", "_of_counts", "_of_balance"))
    shuffled = 100 * _accuracies(models, "_shuffled")
    parts = _quarters(models, "logits")
    return [
        Claim(
            f"{name}: it has learned the language (fails if a seed is more than {_BEHIND} points behind the best there is, or "
            f"less than {_AHEAD} ahead of counting words)",
            bool((best - mine <= _BEHIND).all() and (mine - counts >= _AHEAD).all()),
            f"accuracy {_span(mine)} %; best {_span(best)} %, counting words {_span(counts)} %, words in another order "
            f"{_span(shuffled)} %",
        ),
        Claim(
            f"{name}: its log-odds forget too, where those of the language never do (fails if in the last quarter a repetition "
            f"still counts {_FORGOTTEN:g} of its word's weight, for a word and a seed)",
            all((values[:, 1] < _FORGOTTEN * abs(WORDS[word])).all() for word, values in parts.items()),
            f"change of the log-odds {_shown(parts)}; the language's own {', '.join(f'{abs(WORDS[word]):g}' for word in parts)}",
        ),
    ]


def _accuracies(models: Sequence[dict[str, Any]], what: str) -> np.ndarray:
    return np.array([model[f"accuracy{what}"] for model in models])


def _local(data: Data) -> list[str]:
    return [model["name"] for model in data["models"] if not _is_own(model)]


def _settings(data: Data) -> str:
    longest = max(len(scores) for model in data["models"] for scores in model["scores"].values()) - 1
    local = f"Further classifiers from local folders: {', '.join(_local(data))}. " if _local(data) else ""
    return f"""Neither IMDB nor trained weights come with the project. Here two LSTM classifiers of our own (embedding 16, 32
units; one layer that reads the sentence both ways, and two layers that read it forwards; a line for each seed) learn a language
made up for this: words of praise and of blame count ±1, "ha" 1/2, and "not" and "never" reverse the next of them if it is at most
{REACH} words away. A sentence of 4 to 32 words means praise with probability 1/(1 + e^-s), s the sum, so that the best score of
every sentence is known; {_STEPS} steps of Adam on 128 new sentences each. {local}y_n is the probability of the positive label for
the word repeated n times (n up to {longest}), and M(n) = |y_(n+1) - y_n|. Any other classifier is asked in the same way: it takes
{_NEEDED}."""


def _table(data: Data) -> str:
    rows = []
    for name, models in _by_name(data).items():
        if _is_own(models[0]):
            for word in models[0]["scores"]:
                ends = np.array([model["logits"][word][-1] for model in models])
                first = np.array([model["logits"][word][1] - model["logits"][word][0] for model in models])
                forgets = np.array([_half(memory(model["logits"][word]), abs(WORDS[word])) for model in models])
                rows.append((name, word, f"{WORDS[word]:g}", _span(first), _span(ends), _span(forgets)))
    names = "classifier", "word", "its weight", "change of the log-odds at n = 0", "log-odds at the end"
    return markdown((*names, "n from which on it is below half the weight"), rows)


def _half(M: np.ndarray, weight: float) -> float:
    above = np.flatnonzero(weight / 2 <= M)
    return float(above[-1] + 1 if len(above) else 0)


def _findings(data: Data) -> str:
    own = [model for model in data["models"] if _is_own(model)]
    ends = np.array([[abs(model["logits"][word][-1]) for word in model["logits"]] for model in own])
    common = np.array([model["largest_balance"] for model in own])
    return f"""A decaying memory of the score says little about forgetting. In this language the sum s of n equal words grows by
the word's weight with each of them, for ever: nothing is forgotten, and yet the score 1/(1 + e^-s), which is the best there is
(grey), has a memory that decays like e^-n, because a probability ends at 1. What a classifier forgets is seen in its log-odds.
Those of the LSTMs follow s at first, and end at ±{_span(ends)}; 99 % of the longest sentences of their training have |s| below
{_span(common)}. So the published decay of a score's memory fits a classifier that forgets and one that does not."""


def _rows(data: Data) -> list[dict[str, Any]]:
    return [
        {
            "model": model["name"],
            "seed": model.get("seed", ""),
            "word": word,
            "repetitions": n,
            "score": score,
            "log_odds": model["logits"][word][n] if _is_own(model) else "",
        }
        for model in data["models"]
        for word, scores in model["scores"].items()
        for n, score in enumerate(scores)
    ]


IA_5 = Figure(
    name="ia-5",
    title="Memory of sentiment classifiers",
    source="[IA] Fig 5, 6",
    published="""Sentiment scores of a bidirectional LSTM, a stacked one and BERT, trained on IMDB, for "ha", "good" and "bad"
repeated, and their memory, which decays.""",
    settings=_settings,
    jobs=_jobs,
    assemble=_assemble,
    plot=_plot,
    claims=_claims,
    table=_table,
    rows=_rows,
    findings=_findings,
)
