"""How the sensitivity of models to their weights is drawn: single modes, students of teachers, fits beside their stability.

Data are those of the figure vanishing-gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...plotting import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, label, picture
from ..engine.figure import Data

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

FITTED = ("direct", "exp", "softplus", "inverse", "lru")
BLOCKS = ("recurrent", "all")
_COLOURS = {"direct": VERMILION, "exp": BLUE, "softplus": GREEN, "inverse": ORANGE, "lru": PURPLE}
STUDENT_STYLES: dict[tuple[str, str], tuple[str, str]] = {
    ("dense", "direct"): ("dense", BLACK),
    ("complex", "direct"): ("pairs, direct", VERMILION),
    ("complex", "exp"): ("pairs, exp", BLUE),
    ("complex", "inverse"): ("pairs, inverse", ORANGE),
    ("complex", "lru"): ("pairs, exp, γ(w)", PURPLE),
    ("lru", "exp"): ("LRU: exp, γ trained", SKY),
}


def plot(data: Data, path: Path) -> None:
    """Six panels: modes, correlated inputs and a landscape; training, curvature of fits, and it beside their radius."""
    with picture(path, rows=2, columns=3, width=11.0, height=6.4) as (_, axes):
        _draw_modes(data, axes[0])
        _draw_correlated(data, axes[1])
        _draw_landscapes(data, axes[2])
        _draw_training(data, axes[3])
        _draw_fits(data, axes[4], axes[5])
        for one in axes:
            if one is not axes[2]:
                one.set_xscale("log")
                one.set_yscale("log")
        for one in (axes[0], axes[1], axes[3], axes[4]):
            one.invert_xaxis()  # longer memories to the right
        for one in axes:
            one.legend(fontsize=6.5)


def _draw_modes(data: Data, axes: Axes) -> None:
    for one in data["modes"]:
        f, scaled = one["parameterization"], one["recurrence"] == "lru"
        # exp and softplus coincide on slow modes: both should be seen
        wide = 3.2 if f == "exp" and not scaled else 1.5
        axes.plot(one["rates"], one["sensitivities"], "--" if scaled else "-", color=_COLOURS[f], lw=wide, label=mode_name(one))
        axes.plot(data["measured_rates"], one["measured"], "o", color=_COLOURS[f], mfc="white" if scaled else None)
    label(axes, x=r"rate $\varrho$", y=r"$E\,|\partial h/\partial w|^2$", title="one mode, white noise (points: measured)")


def _draw_correlated(data: Data, axes: Axes) -> None:
    shades = dict(zip(sorted({one["correlation"] for one in data["correlated"]}), (BLUE, SKY, GREEN, ORANGE, VERMILION)))
    for one in data["correlated"]:
        r, scaled = one["correlation"], one["recurrence"] == "lru"
        name = f"r = {r:g}" if scaled else None
        axes.plot(one["distances"], one["sensitivities"], color=shades[r], ls="-" if scaled else ":", label=name)
    title = r"exp, correlated inputs, with $\gamma$ (dotted: without)"
    label(axes, x=r"$1 - |\lambda|$", y=r"$E\,|\partial h/\partial w|^2$", title=title)


def _draw_landscapes(data: Data, axes: Axes) -> None:
    for one in data["landscapes"]:
        f, last = one["parameterization"], len(one["rates"]) - 1
        for k, (moves, losses) in enumerate(zip(one["moves"], one["losses"])):
            style: dict[str, Any] = {"lw": 3.0} if f == "exp" else {}
            axes.plot(moves, losses, color=_COLOURS[f], alpha=0.3 + 0.7 * k / last, label=f if k == last else None, **style)
    axes.set_xlim(-1.5, 1.5)
    slowest = min(data["landscapes"][0]["rates"])
    label(axes, x="$w - w^*$", y="loss / power", title=rf"one mode learns another: $\varrho^*$ = 1 to {slowest:g} (dark)")


def _draw_training(data: Data, axes: Axes) -> None:
    for kind, (name, colour) in STUDENT_STYLES.items():
        n0, ratios = best_losses(data, kind)
        distance = 1 - np.array(n0)
        axes.fill_between(distance, ratios.min(1), ratios.max(1), color=colour, alpha=0.12, lw=0)
        axes.plot(distance, np.median(ratios, 1), "o-", color=colour, label=name)
    label(axes, x="$1 - n_0$ of the teacher", y="loss at the end / power", title=f"learning a teacher, {ratios.shape[1]} seeds")


def _draw_fits(data: Data, by_rate: Axes, by_radius: Axes) -> None:
    for f in FITTED:
        for blocks, ls in (("recurrent", "-"), ("all", "--")):
            curvatures, radii = (along_horizons(data, f, key, blocks) for key in ("curvatures", "radii"))
            name = f if blocks == "recurrent" else None
            by_rate.plot(along_horizons(data, f, "slowest"), curvatures, f"o{ls}", color=_COLOURS[f], label=name)
            by_radius.plot(radii, curvatures, f"o{ls}", color=_COLOURS[f], label=name)
            by_radius.plot(radii[-1:], curvatures[-1:], "D", ms=6, color=_COLOURS[f])
    y, longest = "largest curvature / power", f"{horizons(data)[-1]:g}"
    label(by_rate, x="slowest rate of the fit", y=y, title="fits of $(1+t)^{-1.1}$ (dashed: all weights)")
    label(by_radius, x=f"$r$ (diamond: $T$ = {longest})", y=y, title="stable: $r$ stays; trainable: the curvature stays")


def mode_name(mode: Mapping[str, Any]) -> str:
    """exp has no factor at the input, 'lru' one that w sets, and the recurrence 'lru' one of its own."""
    f = mode["parameterization"]
    return f"{f}, γ" if mode["recurrence"] == "lru" else f"{f}, γ(w)" if f == "lru" else f


def along_horizons(data: Data, f: str, key: str, blocks: str = "") -> Array:
    """A number of the fits of one parameterisation, of some blocks where it has several, over T."""
    found = [one[key] for one in data["fits"] if one["parameterization"] == f]
    return np.array([one[blocks] if isinstance(one, dict) else one for one in found])


def horizons(data: Data) -> Array:
    """T of the fits."""
    return along_horizons(data, "exp", "horizon")


def best_losses(data: Data, kind: tuple[str, str]) -> tuple[list[float], Array]:
    """n0 and the loss over the power, (n0, seeds), at the learning rate whose median over the seeds is best for that n0."""
    found = [one for one in data["training"] if (one["recurrence"], one["parameterization"]) == kind]
    ratios = np.array([one["losses"] for one in found]) / np.array([one["power"] for one in found])
    best = np.median(ratios, 2).argmin(0)
    return found[0]["slowest"], ratios[best, np.arange(len(best))]
