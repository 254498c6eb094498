"""The pictures of `benchmark.py`: who is faster, how time and memory grow, and error against time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.plotting import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, label, picture

from .benchmark_cases import CASES, Case

OURS, PEER, FLOOR = BLUE, ORANGE, GREY
_ROLES = {OURS: "odernn", SKY: "odernn, plain or otherwise", PEER: "others", FLOOR: "matrix products alone"}
_OTHERWISE = ("fused rk4, torch", "exact, torch", "fused rk4, dense W", "model(x, t), dense W", "plain loop", "Python Euler loop")
_OURS = ("model(x, t)", "fused", "exact", "perturbation_error", "Adaptive")
_COLUMNS = 3
_HEADLINES = (
    "call-m32-b64-t200", "rnn-2-layers", "ssm-2-layers", "ssm-diagonal-2-layers", "diagonal-rnn-m256", "wide-m1024-b16-t50",
    "discrete-rnn-m64-b128-t1000", "rnn-m64-b128-t1000", "diagonal-m64-b8-t100000",
)  # fmt: skip
_GROWTH = {"m": "hidden size m", "b": "sequences B", "t": "samples T", "l": "layers"}
_LINES = {
    "Adaptive dopri5": (BLUE, "o"),
    "Adaptive tsit5": (SKY, "s"),
    "fused rk4": (GREEN, "^"),
    "torchdiffeq dopri5": (VERMILION, "o"),
    "diffrax Tsit5": (ORANGE, "s"),
    "torchode Tsit5": (PURPLE, "D"),
    "scipy RK45": (GREY, "v"),
}

Rows = Sequence[dict[str, Any]]


def colour(contender: str) -> str:
    if contender in _OTHERWISE:
        return SKY
    if contender.startswith(_OURS):
        return OURS
    return FLOOR if "floor" in contender else PEER


def barred(case: Case) -> bool:
    return not case.name.startswith(("growth", "long")) and case.kind != "precision"


def draw_headlines(rows: Rows, path: Path) -> None:
    """A panel a case, the fastest on top, with the time of every contender and how many times longer than ours it is."""
    names = _barred_in(rows)
    _draw_bars(rows, [name for name in names if name in _HEADLINES] or names, path)


def draw_others(rows: Rows, path: Path) -> None:
    """The same of the cases that are not in the first picture."""
    names = _barred_in(rows)
    if any(name in _HEADLINES for name in names):
        _draw_bars(rows, [name for name in names if name not in _HEADLINES], path)


def _barred_in(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["case"] for row in rows if "median_s" in row and barred(CASES[row["case"]])))


def _draw_bars(rows: Rows, names: Sequence[str], path: Path) -> None:
    if not names:
        return
    timed = [row for row in rows if "median_s" in row]
    panels, tallest = -(-len(names) // _COLUMNS), max(sum(row["case"] == name for row in timed) for name in names)
    height = panels * (0.8 + 0.17 * tallest)
    with picture(path, rows=panels, columns=min(_COLUMNS, len(names)), width=4.4 * min(_COLUMNS, len(names)), height=height) as (
        figure,
        axes,
    ):
        for panel, name in zip(axes, names):
            _bars(panel, CASES[name], sorted((row for row in timed if row["case"] == name), key=lambda row: -row["median_s"]))
        for panel in axes[len(names) :]:
            panel.axis("off")
        from matplotlib.patches import Patch

        handles = [Patch(color=shade, label=name) for shade, name in _ROLES.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def _bars(panel: Any, case: Case, rows: Rows) -> None:
    medians = [1e3 * row["median_s"] for row in rows]
    spread = [
        [1e3 * (row["median_s"] - row["lower_quartile_s"]) for row in rows],
        [1e3 * (row["upper_quartile_s"] - row["median_s"]) for row in rows],
    ]
    names = [row["contender"].replace("torchdiffeq", "torchdiffeq,") for row in rows]
    ours = next((1e3 * row["median_s"] for row in rows if row["contender"] == row["ours"]), None)
    colours = [colour(row["contender"]) for row in rows]
    panel.barh(names, medians, xerr=spread, color=colours, error_kw={"linewidth": 0.8}, log=True)
    low, high = 10 ** math.floor(math.log10(min(medians)) - 0.1), max(medians)
    panel.set_xlim(low, high * (high / low) ** 0.55)  # room for the words
    for place, (row, median) in enumerate(zip(rows, medians)):
        times = "" if ours is None or row["contender"] == row["ours"] else f"  ({_digits(median / ours)}x)"
        weight = "bold" if row["contender"] == row["ours"] else "normal"
        end = max(median, 1e3 * row["upper_quartile_s"])
        panel.text(end * (high / low) ** 0.02, place, f"{_digits(median)}{times}", va="center", fontsize=7, fontweight=weight)
    for text, row in zip(panel.get_yticklabels(), rows):
        if row["contender"] == row["ours"]:
            text.set_fontweight("bold")
    panel.grid(False, axis="y")
    sizes = f"m = {case.m}, B = {case.batch}, T = {case.times}"
    label(panel, x="milliseconds", y="", title=f"{case.title}\n{sizes}")


def _digits(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def draw_growth(rows: Rows, path: Path) -> None:
    """How the time of a training step grows with m, B, T and layers; and of one long sequence time and memory."""
    growth = [row for row in rows if "median_s" in row and row["case"].startswith("growth-")]
    long = [row for row in rows if "median_s" in row and row["case"].startswith("long-")]
    letters = [letter for letter in _GROWTH if any(row["case"].startswith(f"growth-{letter}") for row in growth)]
    panels = len(letters) + 2 * bool(long)
    if not panels:
        return
    columns = min(_COLUMNS, panels)
    with picture(path, rows=-(-panels // columns), columns=columns) as (_, axes):
        for panel, letter in zip(axes, letters):
            start = f"growth-{letter}"
            of_letter = [row for row in growth if row["case"].startswith(start)]
            for contender, shade in (("fused rk4", OURS), ("sgemm floor", FLOOR)):
                _line(panel, of_letter, contender, start, "median_s", 1e3, shade)
            first = CASES[of_letter[0]["case"]]
            fixed = {"m": first.m, "b": first.batch, "t": first.times}
            sizes = ", ".join(f"{name.upper() if name != 'm' else name} = {n}" for name, n in fixed.items() if name != letter)
            if letter == "l":
                counts = sorted({CASES[row["case"]].layers for row in of_letter})
                panel.set_xticks(counts, [str(count) for count in counts], minor=False)
                panel.set_xticks([], minor=True)
            label(panel, x=_GROWTH[letter], y="milliseconds", title=f"tanh RNN, {sizes}")
            panel.legend()
        for panel, (column, scale, unit) in zip(
            axes[len(letters) :], (("median_s", 1.0, "seconds"), ("peak_mib", 1 / 1024, "GiB"))
        ):
            if not long:
                break
            for contender, shade in (("fused rk4", OURS), ("model(x, t)", SKY)):
                _line(panel, long, contender, "long-t", column, scale, shade)
            if column == "peak_mib":
                panel.axhline(4.0, color=VERMILION, linewidth=0.8, label="4 GiB")
            what = "peak memory of the process" if column == "peak_mib" else "a training step"
            label(panel, x=_GROWTH["t"], y=unit, title=f"{what}, m = {CASES[long[0]['case']].m}, B = 1")
            panel.legend()
        for panel in axes[panels:]:
            panel.axis("off")


def _line(panel: Any, rows: Rows, contender: str, start: str, column: str, scale: float, shade: str) -> None:
    points = sorted((int(row["case"].removeprefix(start)), scale * row[column]) for row in rows if row["contender"] == contender)
    if points:
        panel.loglog(*zip(*points), marker="o", color=shade, label=contender)


def draw_precision(rows: Rows, path: Path) -> None:
    """Error against time: further left is faster, further down more accurate."""
    found = [row for row in rows if "points" in row]
    if not found:
        return
    case = CASES[found[0]["case"]]
    with picture(path, width=6.0, height=4.2) as (_, (panel,)):
        for row in found:
            shade, marker = _LINES[row["contender"]]
            ours = row["contender"].startswith(_OURS)
            times, errors = [1e3 * point["median_s"] for point in row["points"]], [point["error"] for point in row["points"]]
            style = "-" if ours else "--"
            panel.loglog(times, errors, style, marker=marker, color=shade, label=row["contender"], linewidth=2 if ours else 1.2)
        label(
            panel,
            x="milliseconds",
            y="error of the states, relative",
            title=f"tanh RNN, forward, float64, white noise: m = {case.m}, B = {case.batch}, T = {case.times}",
        )
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
