"""The picture of each kind of result, on axes of one's own: what `result.plot(ax)` draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .capacity import MemoryCapacity
from .decay.fit import DecayFit
from .influence import BackgroundMemory, EffectiveStateSize
from .influence.picture import draw_background
from .lyapunov import LyapunovExponents
from .memory import MemoryFunction
from .perturbation.curve import PerturbationCurve
from .perturbation.picture import draw_perturbation, marks_of
from .plotting import GREY, draw_fit, label, log_limits, plot_memory
from .results import draw
from .sensitivity.measured import Sensitivity
from .sensitivity.weight_matrix import WeightMatrix
from .target_memory import TargetMemory
from .verdict import BlockVerdict, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@draw.register(MemoryFunction)
def _(M: MemoryFunction, axes: Axes, **options: Any) -> None:
    """Semilogarithmic, see `plot_memory`, whose options it takes; `label` names the curve."""
    if "label" in options:
        options["labels"] = [options.pop("label")]
    plot_memory(M, ax=axes, **options)


@draw.register(BackgroundMemory)
def _(M: BackgroundMemory, axes: Axes, **options: Any) -> None:
    """Semilogarithmic, see `plot_background`; options are of the geometric mean."""
    draw_background(axes, M, **options)


@draw.register(EffectiveStateSize)
def _(found: EffectiveStateSize, axes: Axes, **options: Any) -> None:
    """Means over all sequences against the time."""
    for name, values, style in (("rank", found.rank, "s:"), ("entropy", found.entropy, "o-")):
        mean = values.double().flatten(0, -2).mean(0)
        axes.plot(found.times.cpu(), mean.cpu(), style, **{"label": name} | options)
    axes.set_ylim(bottom=0)
    label(axes, x="time $t_i$ between past and future", y="effective state size")
    axes.legend()


@draw.register(DecayFit)
def _(fit: DecayFit, axes: Axes, **options: Any) -> None:
    """The law with its 95 % band on its window, and for an undecided fit the two laws that come closest."""
    first, last = fit.window
    if fit.law == "undecided":
        t = np.linspace(first, last, 200)
        for rival in fit.rivals:
            axes.plot(t, np.exp(rival.log_values(t)), "--", label=f"undecided, close: {rival.describe()}", **options)
    else:
        draw_fit(axes, fit, np.array([first, last]), logarithmic=False, **options)
    if axes.get_lines():
        log_limits(axes, [one.get_ydata() for one in axes.get_lines()])
        axes.legend()
    label(axes, x="time $t$", y="$M(t)$")


@draw.register(PerturbationCurve)
def _(curve: PerturbationCurve, axes: Axes) -> None:
    draw_perturbation(axes, [curve])
    (handles, names), marks = axes.get_legend_handles_labels(), marks_of([axes])
    axes.legend([*handles, *marks.values()], [*names, *marks])


@draw.register(MemoryCapacity)
def _(found: MemoryCapacity, axes: Axes, **options: Any) -> None:
    axes.plot(found.delays.cpu(), found.values.cpu(), **{"label": f"total {found.total:.4g}, rank {found.rank}"} | options)
    label(axes, x="delay", y="linear memory capacity")
    axes.legend()


@draw.register(LyapunovExponents)
def _(found: LyapunovExponents, axes: Axes, **options: Any) -> None:
    """The running means, which show whether the exponents have settled."""
    for k, (value, error) in enumerate(zip(found.exponents.tolist(), found.stderr.tolist())):
        axes.plot(found.times.cpu(), found.running[:, k].cpu(), **{"label": rf"{value:.3g} $\pm$ {error:.1g}"} | options)
    axes.axhline(0, color=GREY, lw=0.8)
    label(axes, x="averaged up to time $t$", y="Lyapunov exponents, 1/time")
    if len(found.exponents) <= 8:
        axes.legend()


@draw.register(TargetMemory)
def _(M: TargetMemory, axes: Axes, **options: Any) -> None:
    shown = (M.times > 0) & (M.values > 0)
    axes.plot(M.times[shown], M.values[shown], **{"label": f"target: {M.law}"} | options)
    axes.set_xscale("log")
    log_limits(axes, [M.values[shown]], M.floor)
    label(axes, x="time $t$ (logarithmic)", y="$M(t)$")
    axes.legend()


@draw.register(BlockVerdict)
def _(found: BlockVerdict, axes: Axes, **options: Any) -> None:
    """The radius against the horizon."""
    exponent = "" if found.horizon_exponent is None else rf", $r \sim T^{{-{found.horizon_exponent:.2f}}}$"
    axes.plot(found.horizons, found.radii, "o-", **{"label": f"{found.block}: {found.judgement}{exponent}"} | options)
    _logarithmic(axes, found.horizons, found.radii)
    label(axes, x="horizon $T$", y="tolerance radius $r$")
    axes.legend()


@draw.register(Verdict)
def _(found: Verdict, axes: Axes, **options: Any) -> None:
    """The radius against the width, for each choice of blocks."""
    for block, radii in found.radii.items():
        judged = found.blocks[block].judgement if block in found.blocks else found.judgement
        axes.plot(found.widths, radii, "o-", **{"label": f"{block}: {judged}"} | options)
    _logarithmic(axes, found.widths, [r for radii in found.radii.values() for r in radii])
    label(axes, x="width $m$", y="tolerance radius $r$")
    axes.legend()


@draw.register(Sensitivity)
def _(found: Sensitivity, axes: Axes, **options: Any) -> None:
    """The largest entry of each weight, along time."""
    for name, values in found.values.items():
        axes.plot(found.times.cpu(), values.reshape(len(values), -1).amax(-1).cpu(), **{"label": name} | options)
    axes.set_yscale("log")
    label(axes, x="time $t$", y=r"$E\,|\partial y_t/\partial\theta|^2$, largest entry")
    axes.legend()


@draw.register(WeightMatrix)
def _(found: WeightMatrix, axes: Axes, **options: Any) -> None:
    """The positive eigenvalues, the largest first."""
    positive = found.eigenvalues[found.eigenvalues > 0].cpu()
    rank = np.arange(1, len(positive) + 1)
    axes.plot(rank, positive, "o", **{"label": f"{len(found.matrix)} weights, trace {found.trace:.3g}"} | options)
    axes.set_yscale("log")
    label(axes, x="number", y="eigenvalue")
    axes.legend()


def _logarithmic(axes: Axes, x: Any, y: Any) -> None:
    """Ticks where the points are, and whole decades of y."""
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{one:g}" for one in x])
    axes.minorticks_off()
    axes.set_xlim(min(x) / 1.5, max(x) * 1.5)
    log_limits(axes, [y])
    positive = np.array([one for one in y if 0 < one < np.inf])
    if positive.size:
        axes.set_ylim(10 ** np.floor(np.log10(positive.min() / 1.01)), 10 ** np.ceil(np.log10(positive.max() * 1.01)))
