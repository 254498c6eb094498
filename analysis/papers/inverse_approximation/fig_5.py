"""[IA] Fig 5 and 6: the memory of sentiment classifiers, asked by one word repeated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...plotting import PALETTE, label, log_limits, picture
from ..compute import sentiment
from ..engine.figure import Claim, Data, Figure, Job, Options, Result

_WORDS = ("ha", "good", "bad")
_LONGEST, _QUICK_LONGEST = 64, 16
_NEEDED = f"""a folder with a Hugging Face sequence classifier and its tokenizer (`config.json`, weights, tokenizer files) as
`{sentiment.FOLDER}` in the folder given by `--data`, or several, one folder each in it, and
`pip install 'odernn[sentiment]'`"""
# Changes below this are rounding: float32 probabilities.
_FLOOR = 1e-7


def _jobs(options: Options) -> list[Job]:
    longest = _QUICK_LONGEST if options.quick else _LONGEST
    return [
        Job(sentiment.repetition_scores, {"source": source, "word": word, "longest": longest}, cost=20.0)
        for source in sentiment.find(options.data)
        for word in _WORDS
    ]


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    models: dict[str, dict[str, Any]] = {}
    for job, result in results:
        name = Path(job.settings["source"]["folder"]).name
        model = models.setdefault(name, {"name": name, "label": result["label"], "scores": {}})
        model["scores"][job.settings["word"]] = result["scores"]
    return {"models": list(models.values())}


def memory(scores: Sequence[float]) -> np.ndarray:
    """M(n) = |y_{n+1} - y_n|, n = 0, 1, ...: the memory function of a map ([IA] Def 3.1), for the one input of size 1."""
    return np.abs(np.diff(scores))


def _plot(data: Data, path: Path) -> None:
    if not data["models"]:
        # Of an earlier run, which had a model.
        path.unlink(missing_ok=True)
        return
    with picture(path, rows=len(data["models"]), columns=2) as (_, panels):
        for model, left, right in zip(data["models"], panels[0::2], panels[1::2]):
            for (word, scores), colour in zip(model["scores"].items(), PALETTE):
                n = np.arange(len(scores))
                left.plot(n, scores, "o-", color=colour, label=f'"{word}"')
                right.plot(n[:-1], memory(scores), "o-", color=colour, label=f'"{word}"')
            log_limits(right, [memory(scores) for scores in model["scores"].values()], _FLOOR)
            label(left, x="repetitions $n$", y=f"score $y_n$, P({model['label']})", title=model["name"])
            label(right, x="repetitions $n$", y="$M(n)=|y_{n+1}-y_n|$", title=model["name"])
            left.set_ylim(-0.05, 1.05)
            left.legend()


def _not_to_be_seen(model: dict[str, Any]) -> str:
    """Why nothing can be said of a classifier's memory; '' where its scores are enough for that."""
    memories = [memory(scores) for scores in model["scores"].values()]
    if (longest := max(map(len, memories))) < _QUICK_LONGEST:
        return f"the classifier takes {longest} repetitions, too few to see a memory decay"
    if any(M.max() < _FLOOR for M in memories):
        return "the classifier does not react to every word: there is nothing to forget"
    return ""


def _claims(data: Data) -> list[Claim]:
    claims = []
    for model in data["models"]:
        # Means over the first and the last quarter.
        parts = {}
        for word, scores in model["scores"].items():
            M = memory(scores)
            quarter = max(1, len(M) // 4)
            parts[word] = (float(M[:quarter].mean()), float(M[-quarter:].mean()))
        claims.append(
            Claim(
                f"{model['name']}: the memory decays (its last quarter lies below the first)",
                all(last < first for first, last in parts.values()),
                ", ".join(f'"{word}" {first:.2g} → {last:.2g}' for word, (first, last) in parts.items()),
                difference=_not_to_be_seen(model),
            )
        )
    return claims


def _settings(data: Data) -> str:
    if not data["models"]:
        return f"**Not computed: this figure needs a model.** It takes {_NEEDED}. No model comes with the project."
    longest = max(len(scores) for model in data["models"] for scores in model["scores"].values()) - 1
    return f"""Classifiers from local folders: {", ".join(model["name"] for model in data["models"])}. y_n is the probability
of the positive label for the word repeated n times (n up to {longest}), and M(n) = |y_(n+1) - y_n|."""


def _rows(data: Data) -> list[dict[str, Any]]:
    return [
        {"model": model["name"], "word": word, "repetitions": n, "score": score}
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
    rows=_rows,
)
