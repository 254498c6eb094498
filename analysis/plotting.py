"""One house style for every picture of the project, and the pictures of a training run and of a memory function.

Pictures are drawn on `matplotlib.figure.Figure` without pyplot: no global state, no window, the same file wherever it is drawn.
A picture of one's own:

    with picture("decay.png", columns=2) as (figure, (left, right)):
        left.plot(times, values)
        label(left, x="time t", y="M(t)")
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cycler import cycler
from numpy.typing import ArrayLike, NDArray

from odernn.runs import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .decay import DecayFit
    from .memory import MemoryFunction

Array = NDArray[np.float64]

# The colours of Okabe and Ito (2008), told apart by readers with any colour vision; their yellow is too pale for a line on white.
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, BLACK)
GREY = "#888888"

# Inches: two panels side by side fill a text width of 7 inches, so that the letters come out as large as they are set.
PANEL_WIDTH, PANEL_HEIGHT = 3.5, 2.8
STYLE: dict[str, Any] = {
    "figure.dpi": 200,
    "savefig.dpi": 200,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "mathtext.fontset": "dejavusans",
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.borderpad": 0.25,
    "legend.handlelength": 1.8,
    "image.cmap": "viridis",
    "svg.hashsalt": "odernn",
}
# The part of viridis that still stands out on white.
_SHADES = (0.0, 0.8)
# A logarithmic axis that spans more than this many decades says nothing about the upper ones.
_DECADES = 18.0
# Points at which the line of a fitted law is drawn.
_LINE_POINTS = 200
# Standard errors either side of a fitted law: 95 %.
_BAND = 1.96


@contextmanager
def house_style() -> Iterator[None]:
    """Everything drawn and saved inside is in the project's style."""
    import matplotlib as mpl  # slow to import, as all of it: only when something is drawn

    with mpl.rc_context(STYLE):  # type: ignore[arg-type, unused-ignore]
        yield


@contextmanager
def picture(
    path: str | os.PathLike[str], *, rows: int = 1, columns: int = 1, width: float | None = None, height: float | None = None
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of rows x columns panels in house style, written to `path` on leaving; nothing is written if drawing fails.

    Args:
        path: file to write; its ending gives the format (.png, .pdf, .svg). Its directory must exist.
        rows, columns: panels.
        width, height: of the whole figure, inches; by default PANEL_WIDTH x PANEL_HEIGHT a panel.

    Returns:
        The figure and its axes, row by row.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with house_style():
        figure = Figure(figsize=(width or PANEL_WIDTH * columns, height or PANEL_HEIGHT * rows))
        FigureCanvasAgg(figure)
        yield figure, list(figure.subplots(rows, columns, squeeze=False).flat)
        save(figure, path)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure atomically, in the format that the ending of the file names."""
    ending = Path(path).suffix[1:].lower() if isinstance(path, str | os.PathLike) else ""
    if ending not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"path is {path!r}, expected a file whose ending is a format of pictures; give for example 'a.png'")
    content = io.BytesIO()
    with house_style():
        figure.savefig(content, format=ending)
    replace_file(Path(path), content.getvalue())


def label(axes: Axes, *, x: str, y: str, title: str | None = None) -> None:
    """Names the axes, with units where there are any; a title only where several panels need telling apart."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if title is not None:
        axes.set_title(title)


def shades(count: int) -> list[tuple[float, float, float, float]]:
    """`count` colours of an ordered family (widths, amplitudes), from dark to light."""
    import matplotlib as mpl

    return [tuple(map(float, mpl.colormaps["viridis"](s))) for s in np.linspace(*_SHADES, max(count, 1))]  # type: ignore[misc]


def log_limits(axes: Axes, values: Sequence[ArrayLike], floor: float | None = None) -> None:
    """A logarithmic y axis that shows every positive value, but at most 18 decades below the largest, and stops below `floor`;
    a linear one where there is none."""
    finite = np.concatenate([np.ravel(np.asarray(v, dtype=float)) for v in values])
    finite = finite[np.isfinite(finite) & (finite > 0)]
    if finite.size == 0:  # nothing that a logarithm could show
        axes.set_ylim(0, 1)
        return
    axes.set_yscale("log", nonpositive="mask")
    top, bottom = float(finite.max()), float(finite.min())
    bottom = max(bottom, top * 10**-_DECADES, 0.1 * floor if floor else 0.0)
    # at least a decade, so that the axis has a labelled tick
    axes.set_ylim(min(bottom / 1.5, top / 5), top * 2)


# --- training ----------------------------------------------------------------------------------------------

_LOSS_LABELS = {"loss": "training loss", "validation_relative_l2": "validation error, relative $L_2$"}


def plot_training(history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], *, title: str | None = None) -> None:
    """The losses of a run against the epoch, on a logarithmic axis, with the best validation marked.

    Args:
        history: one row per epoch, as in metrics.csv: "epoch" (counted from 1 where left out) and what is drawn, every entry
            whose name ends in "loss" or begins with "validation". None and NaN are left out of the curve.
        path: file to write.
        title: of the picture; None for none.

    Raises:
        ValueError: no rows, or none with a loss.

    Example:
        >>> from analysis import plot_training
        >>> plot_training([{"train_loss": 1.0 / epoch} for epoch in range(1, 10)], "training.png")
    """
    if not isinstance(history, Sequence) or not all(isinstance(row, Mapping) for row in history):
        raise ValueError("history is no list of rows, expected [{'epoch': 1, 'loss': 0.5}, ...]; give metrics.csv's rows")
    names = list(dict.fromkeys(name for row in history for name in row if name.endswith("loss") or name.startswith("validation")))
    if not names:
        found = ", ".join(history[0]) if history else "no rows"
        raise ValueError(
            f"no entry of the history ends in 'loss' or begins with 'validation' (found: {found}): give rows like "
            "{'epoch': 1, 'loss': 0.5}"
        )
    from matplotlib.ticker import MaxNLocator

    epochs = np.array([float(row.get("epoch", k + 1)) for k, row in enumerate(history)])
    curves: dict[str, Array] = {}
    for name in names:
        values = (row.get(name) for row in history)
        curves[name] = np.array([np.nan if value is None else float(value) for value in values])
    with picture(path) as (_, (axes,)):
        for name, losses in curves.items():
            shown = np.isfinite(losses)
            style = "--" if name.startswith("validation") else "-"
            lone: dict[str, Any] = {"marker": "o"} if shown.sum() < 2 else {}
            axes.plot(epochs[shown], losses[shown], style, label=_LOSS_LABELS.get(name, name.replace("_", " ")), **lone)
        best = next((name for name in names if name.startswith("validation") and np.isfinite(curves[name]).any()), None)
        if best is not None:
            k = int(np.nanargmin(curves[best]))
            lowest = curves[best][k]
            axes.plot(epochs[k], lowest, "o", color=BLACK, label=f"best: {lowest:.2g} at epoch {epochs[k]:g}", zorder=3)
        log_limits(axes, list(curves.values()))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        label(axes, x="epoch", y="loss" if all(name.endswith("loss") for name in names) else "loss, error", title=title)
        axes.legend()


# --- memory ------------------------------------------------------------------------------------------------

_PROBE_LABELS = {
    "heaviside": r"$\sup_x\,|\frac{d}{dt}H_t(u^x)|\,/\,|x|_\infty$",
    "impulse": r"$\sup_x\,|H_t(i^x)|\,/\,|x|_\infty$",
    "reversed": r"$\sup_x\,|\frac{d}{dt}H_t(r^x)|\,/\,|x|_\infty$",
}


def plot_memory(
    M: MemoryFunction | Sequence[MemoryFunction],
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Axes | Sequence[Axes] | None = None,
    labels: Sequence[str] | None = None,
    target: tuple[ArrayLike, ArrayLike] | None = None,
    fit: DecayFit | Sequence[DecayFit] | None = None,
    title: str | None = None,
) -> list[Axes]:
    """Memory functions on a semilogarithmic panel, where an exponential law is straight, and a doubly logarithmic one, where a
    power law is; with the target's, and the fitted laws with their 95 % bands over the windows they hold on.

    Args:
        M: what `memory_function` gave, or several of them.
        path: file to write; its ending gives the format. Without it nothing is written.
        ax: axes of your own: one for the semilogarithmic panel, or two for both. Without them and without `path`, a new figure of
            pyplot.
        labels: one for each of M, for the legend.
        target: (times, values) of the target's memory function |rho(t)|_1.
        fit: what `fit_decay(M)` gave; of several M one for each.
        title: of the picture; None for none.

    Returns:
        The axes.

    Example:
        >>> import torch
        >>> from analysis import memory_function, plot_memory
        >>> from targets import make_target
        >>> t = torch.linspace(0, 10, 101)
        >>> M = [memory_function(make_target(name), t) for name in ("exponential", "polynomial")]
        >>> _ = plot_memory(M, "memory.png", labels=["exponential", "a power law"])
    """
    several = [M] if not isinstance(M, Sequence) else list(M)
    fits = [] if fit is None else list(fit) if isinstance(fit, Sequence) else [fit]
    _check_memories(several, labels, fits)
    curves: list[tuple[Array, Array, str, dict[str, Any]]] = []
    if target is not None:
        curves.append((_array(target[0]), _array(target[1]), "target", {"color": GREY, "lw": 3.0, "alpha": 0.6}))
    # Curves that stand on the axes already keep their colours to themselves.
    drawn = 0 if ax is None else len((ax if not isinstance(ax, Sequence | np.ndarray) else ax[0]).get_lines())
    colours: Sequence[Any] = (_CURVES * (drawn + 1))[drawn:] if len(several) <= len(_CURVES) else shades(len(several))
    for one, name, colour in zip(several, labels or _names(several), colours):
        curves.append((_array(one.times), _array(one.values), name, {"color": colour}))
    floor = max(float(one.floor) for one in several)
    times = np.unique(np.concatenate([_array(one.times) for one in several]))

    def fill(panels: Sequence[Axes]) -> None:
        for axes, logarithmic in zip(panels, (False, True)):
            for t, y, name, style in curves:
                shown = np.isfinite(y) & (y > 0) & ((t > 0) | (not logarithmic))
                axes.plot(t[shown], y[shown], label=name, **style)
            for k, (one, colour) in enumerate(zip(fits, colours)):
                if len(several) == 1:
                    draw_fit(axes, one, times, logarithmic)
                else:
                    draw_fit(axes, one, times, logarithmic, color=BLACK, band=colour, named=k == 0, lw=0.9)
            log_limits(axes, [line.get_ydata() for line in axes.get_lines()], floor)
            if floor > axes.get_ylim()[0]:
                axes.axhspan(axes.get_ylim()[0], floor, color=GREY, alpha=0.2, lw=0, label="below the numerical floor")
            if logarithmic and (times > 0).any():
                axes.set_xscale("log")
                axes.set_xlim(0.9 * times[times > 0].min(), 1.1 * times.max())
            label(axes, x="time $t$" + (" (logarithmic)" if logarithmic else ""), y="$M(t)$")
        probes = {one.probe for one in several}
        if len(probes) == 1:
            panels[0].set_ylabel("$M(t)$ = " + _PROBE_LABELS[probes.pop()])

    if ax is not None:
        panels = [ax] if not isinstance(ax, Sequence | np.ndarray) else list(ax)
        fill(panels)
        panels[0].legend()
        if title is not None:
            panels[0].set_title(title)
        if path is not None:
            save(panels[0].get_figure(), path)  # type: ignore[arg-type]
        return panels
    with _two_panels(path) as (figure, panels):
        fill(panels)
        handles, names = panels[0].get_legend_handles_labels()
        # one legend for both panels, outside, where it hides no curve
        figure.legend(handles, names, loc="outside lower center", ncols=2)
        if title is not None:
            figure.suptitle(title, fontsize=STYLE["axes.titlesize"])
    return panels


# Of several curves; a law of its own colour stands beside one alone.
_CURVES = (BLUE, GREEN, PURPLE, SKY, ORANGE)


def _check_memories(several: Sequence[Any], labels: Sequence[str] | None, fits: Sequence[Any]) -> None:
    if not several:
        raise ValueError("nothing to draw: expected at least one MemoryFunction")
    for M in several:
        for name in ("times", "values", "floor", "probe", "system"):
            if not hasattr(M, name) or isinstance(M, type):
                raise ValueError(f"M is a {type(M).__name__}, expected a MemoryFunction; give what memory_function gave")
        if M.values.ndim != 1:
            raise ValueError(f"M belongs to an ensemble of shape {tuple(M.values.shape[:-1])}; draw its members M[k] one by one")
    if labels is not None and (isinstance(labels, str) or len(labels) != len(several)):
        raise ValueError(f"labels is {labels!r}, expected a list of {len(several)}, one for each memory function")
    if fits and len(fits) != len(several):
        raise ValueError(f"{len(fits)} fits came for {len(several)} memory functions: give one for each")


def _names(several: Sequence[MemoryFunction]) -> list[str]:
    """The system and the amplitudes of its supremum, to which M of a nonlinear system belongs; numbered where they agree."""
    names = [M.system + (f", {M.amplitudes_text}" if getattr(M, "amplitudes", None) is not None else "") for M in several]
    return [name if names.count(name) == 1 else f"{k}: {name}" for k, name in enumerate(names, 1)]


@contextmanager
def _two_panels(path: str | os.PathLike[str] | None) -> Iterator[tuple[Figure, list[Axes]]]:
    if path is not None:
        with picture(path, columns=2) as panels:
            yield panels
        return
    from matplotlib import pyplot

    with house_style():
        figure, axes = pyplot.subplots(1, 2, figsize=(2 * PANEL_WIDTH, PANEL_HEIGHT))
        yield figure, list(axes)


def draw_fit(axes: Axes, fit: DecayFit, times: Array, logarithmic: bool, color: Any = VERMILION, **options: Any) -> None:
    """A fitted law, dashed, with its 95 % band, on the window that it holds on; nothing of an undecided one.

    Args:
        options: `band`, its colour, and `named`, whether it has a label; all others are of matplotlib, for the line.
    """
    first, last = fit.window
    if fit.law == "undecided" or not last > first:
        return
    if logarithmic:
        # no earlier than there are data to compare with
        first = max(first, float(times[times > 0].min(initial=last)))
    t = (np.geomspace if logarithmic else np.linspace)(first, last, _LINE_POINTS)
    low, high = fit.band(t, _BAND)
    name = f"{fit.describe()} on [{fit.window[0]:.3g}, {fit.window[1]:.3g}]"
    band, named = options.pop("band", color), options.pop("named", True)
    axes.plot(t, fit.predict(t), "--", **{"color": color, "label": name} | options)
    text = "95 % band of the law" if named else "_nolegend_"
    axes.fill_between(t, low, high, color=band, alpha=0.25, lw=0, label=text)


def _array(values: Any) -> Array:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values, dtype=np.float64)
