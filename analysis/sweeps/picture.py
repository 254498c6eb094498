"""The picture of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..plotting import GREY, PALETTE, PANEL_HEIGHT, PANEL_WIDTH, label, log_limits, picture
from .axes import is_number
from .trained import is_good

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .results import Sweep

_WORDS = {"hidden_size": "width m", "lr": "learning rate", "horizon": "horizon T", "epochs": "epochs", "points": "points"}
_MARKERS, _DASHES = "osD^v", ("-", "--", ":", "-.")
# A legend of more lines would hide the picture.
_MOST_LINES = 28
# Inches of a line of the legend.
_LINE = 0.17
# Values that span more than this factor stand on a logarithmic axis.
_LOG_FROM = 8.0


def write(sweep: Sweep, path: Path) -> None:
    """sweep.png; its legend stands beside the axes."""
    height = max(PANEL_HEIGHT, _LINE * min(len(_lines(sweep, _first(sweep))), _MOST_LINES) + 0.6)
    with picture(path, width=2 * PANEL_WIDTH, height=height) as (_, (axes,)):
        draw(sweep, axes)


def draw(sweep: Sweep, axes: Axes) -> None:
    """Validation error over the first axis of numbers (the first axis where there is none): a line for each combination of the
    others, the median over the seeds, and a band from the least to the largest of them. Runs without a result are left out, and
    counted in the title."""
    first = _first(sweep)
    lines = _lines(sweep, first)
    xs = list(dict.fromkeys(row[first] for row in sweep.rows))
    numeric = is_number(xs)
    place = {x: x if numeric else index for index, x in enumerate(xs)}
    for index, (name, points) in enumerate(list(lines.items())[:_MOST_LINES]):
        by_x = sorted((place[x], errors) for x, errors in points.items())
        at = [x for x, _ in by_x]
        medians, lows, highs = (np.array([f(errors) for _, errors in by_x]) for f in (np.median, min, max))
        colour, turn = PALETTE[index % len(PALETTE)], index // len(PALETTE)
        style: dict[str, Any] = {"marker": _MARKERS[turn % len(_MARKERS)], "linestyle": _DASHES[turn % len(_DASHES)]}
        axes.plot(at, medians, color=colour, label=name or "validation error", **style)
        if len(at) > 1:
            axes.fill_between(at, lows, highs, color=colour, alpha=0.15, linewidth=0)
        axes.vlines(at, lows, highs, color=colour, linewidth=0.8)
    if numeric and min(xs) > 0 and max(xs) / min(xs) >= _LOG_FROM:
        axes.set_xscale("log")
    if numeric and len(xs) <= len(PALETTE):
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
        axes.set_xticks([], minor=True)
    elif not numeric:
        axes.set_xticks(range(len(xs)), [str(x) for x in xs], rotation=20 if max(len(str(x)) for x in xs) > 12 else 0)
    every = [errors for points in lines.values() for errors in points.values()]
    if every:
        log_limits(axes, [np.concatenate([np.asarray(errors) for errors in every])])
    else:
        axes.text(0.5, 0.5, "no run ended well", transform=axes.transAxes, ha="center", color=GREY)
    seeds = len({row["seed"] for row in sweep.rows}) if "seed" in sweep.axes and first != "seed" else 1
    lost = sum(not is_good(row) for row in sweep.rows)
    notes = [f"median and range of {seeds} seeds"] * (seeds > 1)
    notes += [f"{lost} of {len(sweep.rows)} runs without a result"] * (lost > 0)
    notes += [f"{_MOST_LINES} of {len(lines)} lines"] * (len(lines) > _MOST_LINES)
    name = _WORDS.get(first, first.replace("_", " "))
    label(axes, x=name, y="validation error, relative $L_2$", title="; ".join(notes) or None)
    if len(lines) > 1 or any(lines):
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0.0)


def _first(sweep: Sweep) -> str:
    """The axis to draw over: the first of numbers, the seed last of all."""

    def values(name: str) -> list[Any]:
        return list(dict.fromkeys(row[name] for row in sweep.rows))

    numbers = [name for name in sweep.axes if is_number(values(name)) and name != "seed"]
    several = [name for name in numbers if len(values(name)) > 1]
    others = [name for name in sweep.axes if name != "seed"]
    return next(iter((*several, *numbers, *others, *sweep.axes)))


def _lines(sweep: Sweep, first: str) -> dict[str, dict[Any, list[float]]]:
    """Line -> value of the first axis -> errors over the seeds."""
    lines: dict[str, dict[Any, list[float]]] = {}
    rows: list[Mapping[str, Any]] = [row for row in sweep.rows if is_good(row)]
    others = [name for name in sweep.axes if name not in (first, "seed")]
    for row in rows:
        name = ", ".join(f"{other.replace('_', ' ')} {_shown(row[other])}" for other in others)
        lines.setdefault(name, {}).setdefault(row[first], []).append(row["validation_error"])
    return lines


def _shown(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 32 else f"...{text[-29:]}"
