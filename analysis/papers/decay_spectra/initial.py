"""Initial spectra, judged by the best readout they allow: error over width and over horizon."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from odernn.spectra import SPECTRA

from ...plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, label, picture
from ..compute.initial_readouts import initial_readouts
from ..engine.figure import Claim, Data, Figure, Job, Options, Result, results_of

_KERNELS = {
    "polynomial:exponent=1.5": r"power law $(1+t)^{-1.5}$",
    "exponential:base=0.9": r"exponential $0.9^t$",
    "airy": r"oscillating $Ai(t-6)$",
    "shift": r"window $9 < t < 11$",
}
_POWER, _EXPONENTIAL, _AIRY, _WINDOW = _KERNELS
# Of the picture, name -> title, colour: real modes in full lines, pairs in broken ones.
_DRAWN = {
    "geometric": ("geometric", BLUE),
    "log_uniform": ("log-uniform, drawn", SKY),
    "linear": ("linear", GREEN),
    "s4d_real": ("S4D-Real = HiPPO-LegS", BLACK),
    "s4d_lin": ("S4D-Lin", VERMILION),
    "s4d_inv": ("S4D-Inv", ORANGE),
    "s4d_legs": ("S4D-LegS = LegS, normal part", PURPLE),
    "lru": ("LRU ring, drawn", GREY),
}
_OF_PAIRS = ("s4d_lin", "s4d_inv", "s4d_legs", "lru")
# Real modes with one full matrix or another, and the same modes without it.
_TWINS = {"hippo_legs": "s4d_real", "hippo_legs_normal": "s4d_legs"}
_SIZES, _HORIZONS = (2, 4, 8, 16, 32, 64), (10.0, 100.0, 1e3, 1e4)
_SIZE, _HORIZON = 16, 100.0
# Over which the rates of the theorem are read, and the sizes between which.
_RATES = {"geometric": ((1e3, 1e4), (16, 24)), "linear": ((100.0, 1e3), (24, 32))}
_LAWS: dict[str, tuple[str, Callable[[float], float]]] = {"geometric": ("log T", math.log), "linear": ("√T", math.sqrt)}
_FACTORS = [2.0**k for k in (-4, -2, -1, 1, 2, 3, 4, 6)]
# The norm of `fit_kernel`: it bounds the L1 norm up to a logarithm.
_WEIGHT = 1.0
_SEEDS = list(range(5))
_LAW_TOLERANCE, _SAME_SPAN, _NEAR, _APART, _CANCELLATION = 0.25, 1e-4, 2.0, 3.0, 100.0
# Beyond this width S4D-Inv is too close to dependent for a certain error.
_SURE = 32
# Readouts in double precision that come so near the best one have a full point.
_HELD = 2.0


def _jobs(options: Options) -> list[Job]:
    sizes, horizons = (_SIZES[1:5], _HORIZONS[:3]) if options.quick else (_SIZES, _HORIZONS)
    seeds, factors = (_SEEDS[:3], _FACTORS[::4]) if options.quick else (_SEEDS, _FACTORS)
    wanted = {(name, m, _HORIZON) for name in SPECTRA for m in sizes} | {(name, _SIZE, T) for name in SPECTRA for T in horizons}
    wanted |= {(name, m, T) for name, (horizons, sizes) in _RATES.items() for T in horizons for m in sizes}
    return [
        Job(
            initial_readouts,
            {
                "name": name,
                "m": m,
                "horizon": T,
                "kernels": list(_KERNELS),
                "weight": _WEIGHT,
                "factors": factors if m == _SIZE and T == _HORIZON else [],
                "seeds": seeds if SPECTRA[name].drawn else [0],
            },
            cost=0.02 * m,
        )
        for name, m, T in sorted(wanted)
    ]


def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
    return {"readouts": results_of(initial_readouts, results, "name", "m", "horizon", "seeds")}


def _fits(data: Data, name: str, m: int, horizon: float, kernel: str) -> list[dict[str, float]]:
    """The fits of all seeds, as initialised."""
    index = list(_KERNELS).index(kernel)
    (one,) = (one for one in data["readouts"] if (one["name"], one["m"], one["horizon"]) == (name, m, horizon))
    return [fits[index] for fits in one["own"]]


def _error(data: Data, name: str, m: int, horizon: float, kernel: str, key: str = "error") -> float:
    """The median over the seeds."""
    return float(np.median([fit[key] for fit in _fits(data, name, m, horizon, kernel)]))


def _tuned(data: Data, name: str, kernel: str) -> tuple[float, float]:
    """The median error at the best common factor, and the median of these factors, at m = 16 and T = 100."""
    index = list(_KERNELS).index(kernel)
    (one,) = (one for one in data["readouts"] if (one["name"], one["m"], one["horizon"]) == (name, _SIZE, _HORIZON))
    error, factor = np.median([fits[index] for fits in one["tuned"]], axis=0)
    return float(error), float(factor)


def _sizes(data: Data) -> list[int]:
    """Of the first row."""
    return sorted({one["m"] for one in data["readouts"] if one["name"] == "lru" and one["horizon"] == _HORIZON})


def _horizons(data: Data) -> list[float]:
    """Of the second row."""
    return sorted({one["horizon"] for one in data["readouts"] if one["name"] == "lru" and one["m"] == _SIZE})


def _plot(data: Data, path: Path) -> None:
    sizes, horizons = _sizes(data), _horizons(data)
    rows: list[tuple[str, list[Any], Callable[[Any], tuple[int, float]]]] = [
        ("states m", sizes, lambda m: (m, _HORIZON)),
        ("horizon T (time)", horizons, lambda T: (_SIZE, T)),
    ]
    with picture(path, rows=2, columns=len(_KERNELS), width=11.0, height=6.2) as (figure, axes):
        for row, (x, values, place) in enumerate(rows):
            for column, (kernel, title) in enumerate(_KERNELS.items()):
                panel = axes[row * len(_KERNELS) + column]
                for name, (_, colour) in _DRAWN.items():
                    found = [_fits(data, name, *place(value), kernel) for value in values]
                    errors = np.array([[fit["error"] for fit in fits] for fits in found])
                    held = [np.median([fit["attained"] / max(fit["error"], 1e-300) for fit in fits]) <= _HELD for fits in found]
                    middle, broken = np.median(errors, 1), name in _OF_PAIRS
                    panel.plot(values, middle, color=colour, ls="--" if broken else "-", marker="s" if broken else "o")
                    for value, error, full in zip(values, middle, held):
                        if not full:
                            panel.plot(value, error, "s" if broken else "o", color=colour, markerfacecolor="white")
                    if errors.shape[1] > 1:
                        panel.fill_between(values, errors.min(1), errors.max(1), color=colour, alpha=0.15, lw=0)
                panel.set_xscale("log", base=2 if row == 0 else 10)
                panel.set_yscale("log")
                # Below these no picture tells one fit from another.
                panel.set_ylim(*((1e-15, 2.0) if kernel == _EXPONENTIAL else (1e-6, 2.0) if kernel != _WINDOW else (0.2, 1.2)))
                y = ("relative error, T = 100" if row == 0 else "relative error, m = 16") if column == 0 else ""
                label(panel, x=x, y=y, title=title if row == 0 else None)
        for name, (title, colour) in _DRAWN.items():
            broken = name in _OF_PAIRS
            axes[0].plot([], [], color=colour, ls="--" if broken else "-", marker="s" if broken else "o", label=title)
        axes[0].plot([], [], "o", color=GREY, markerfacecolor="white", label="not attained in double precision")
        figure.legend(loc="outside lower center", ncols=5)


def _law(data: Data, name: str) -> dict[float, float]:
    """T -> the rate per mode at which the error on the power law falls, times log T or the root of T."""
    horizons, (m, more) = _RATES[name]
    _, scale = _LAWS[name]
    return {
        T: math.log(_error(data, name, m, T, _POWER) / _error(data, name, more, T, _POWER)) / (more - m) * scale(T)
        for T in horizons
    }


def _claims(data: Data) -> list[Claim]:
    claims = []
    for name, (scale, _) in _LAWS.items():
        found = _law(data, name)
        apart = max(found.values()) / min(found.values()) - 1
        (m, more), horizons = _RATES[name][1], _RATES[name][0]
        claims.append(
            Claim(
                f"On the power law the error of {name} rates falls as exp(-c m / {scale}) (fails if c, from m = {m} to {more}, "
                f"differs by more than {_LAW_TOLERANCE:.0%} between T = {horizons[0]:g} and {horizons[1]:g})",
                min(found.values()) > 0 and apart <= _LAW_TOLERANCE,
                ", ".join(f"T = {T:g}: c = {c:.3f}" for T, c in found.items()),
            )
        )
    sizes = [m for m in _sizes(data) if 4 <= m <= _SIZE]
    pairs = {m: [_error(data, name, m, _HORIZON, _POWER) for name in ("geometric", "log_uniform")] for m in sizes}
    claims.append(
        Claim(
            f"On the power law drawn log-uniform rates are worse than geometric ones (fails if their median error is smaller "
            f"at one m from 4 to {_SIZE}, T = {_HORIZON:g})",
            all(spread < drawn for spread, drawn in pairs.values()),
            "; ".join(f"m = {m}: {drawn:.2g}, geometric {spread:.2g}" for m, (spread, drawn) in pairs.items()),
        )
    )
    one_rate = {name: _tuned(data, name, _POWER)[0] for name in ("s4d_lin", "s4d_inv", "s4d_legs")}
    geometric = _error(data, "geometric", _SIZE, _HORIZON, _POWER)
    claims.append(
        Claim(
            f"Modes of one decay rate do worse on the power law than geometric rates, at whatever speed (fails if S4D-Lin, -Inv "
            f"or -LegS at its best factor has less than {_APART:g} times their error, m = {_SIZE}, T = {_HORIZON:g})",
            min(one_rate.values()) > _APART * geometric,
            ", ".join(f"{_DRAWN[name][0].partition(' =')[0]} {error:.2g}" for name, error in one_rate.items())
            + f"; geometric {geometric:.2g} without tuning",
        )
    )
    widest = _sizes(data)[-1]
    names = ("s4d_inv", "s4d_lin", "s4d_legs")
    errors = {m: [_error(data, name, m, _HORIZON, _POWER) for name in names] for m in _sizes(data)}
    ratios = {m: (inv / legs, lin / legs) for m, (inv, lin, legs) in errors.items()}
    claims.append(
        Claim(
            f"S4D-Inv stands for S4D-LegS on the power law, S4D-Lin does not (fails if at one m up to {_SURE} the errors of the "
            f"first two are over {_NEAR:g} times apart, or at m = {widest} that of the third is under {_NEAR:g} times as large)",
            all(1 / _NEAR <= inv <= _NEAR for m, (inv, _) in ratios.items() if m <= _SURE) and ratios[widest][1] >= _NEAR,
            "; ".join(f"m = {m}: Inv {inv:.2f}, Lin {lin:.2f} times LegS" for m, (inv, lin) in ratios.items()),
        )
    )
    far = max(_horizons(data)[:3])
    ring, spread = (_error(data, name, _SIZE, far, _POWER) for name in ("lru", "geometric"))
    claims.append(
        Claim(
            f"The ring has no modes for a long horizon (fails if at T = {far:g} its error on the power law is less than "
            f"{_APART:g} times that of geometric rates, m = {_SIZE})",
            ring > _APART * spread,
            f"{ring:.2g}, geometric {spread:.2g}",
        )
    )
    return [*claims, _twins(data), _cancellation(data)]


def _twins(data: Data) -> Claim:
    def at(name: str, kernel: str) -> dict[str, float]:
        (fit,) = _fits(data, name, _SIZE, _HORIZON, kernel)
        return fit

    pairs = [(at(full, kernel), at(diagonal, kernel)) for full, diagonal in _TWINS.items() for kernel in _KERNELS]
    apart = max(abs(a["error"] - b["error"]) for a, b in pairs)
    buys = at("s4d_real", _POWER)["size"] / at("hippo_legs", _POWER)["size"]
    return Claim(
        f"HiPPO-LegS spans what S4D-Real spans, its normal part what S4D-LegS spans, and the full matrix of the former keeps "
        f"readouts small (fails if one error differs by more than {_SAME_SPAN:g}, or if on the power law S4D-Real's readout is "
        f"less than {_CANCELLATION:g} times as large; m = {_SIZE}, T = {_HORIZON:g})",
        apart <= _SAME_SPAN and buys >= _CANCELLATION,
        f"errors at most {apart:.1g} apart; readout {buys:.1g} times as large",
    )


def _cancellation(data: Data) -> Claim:
    sizes = {name: _error(data, name, _SIZE, _HORIZON, _AIRY, "size") for name in _DRAWN}
    real = min(size for name, size in sizes.items() if name not in _OF_PAIRS)
    turning = max(size for name, size in sizes.items() if name in _OF_PAIRS)
    return Claim(
        f"Real modes fit an oscillation by cancellation (fails if one real spectrum's readout is less than {_CANCELLATION:g} "
        f"times as large as that of one of pairs, m = {_SIZE}, T = {_HORIZON:g})",
        real >= _CANCELLATION * turning,
        f"Σ|c||φ| / |ρ| from {real:.1g} for real modes, up to {turning:.1g} for pairs",
    )


def _rows(data: Data) -> list[dict[str, Any]]:
    return [
        {"spectrum": one["name"], "m": one["m"], "horizon": one["horizon"], "seed": seed, "kernel": kernel, **fit}
        for one in data["readouts"]
        for seed, fits in zip(one["seeds"], one["own"])
        for kernel, fit in zip(_KERNELS, fits)
    ]


def _table(data: Data) -> str:
    head = ["spectrum, m = 16, T = 100", *(kernel.partition(":")[0] for kernel in _KERNELS), "readout (power law)"]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for name in SPECTRA:
        cells = [name]
        for kernel in _KERNELS:
            best, factor = _tuned(data, name, kernel)
            cells.append(f"{_error(data, name, _SIZE, _HORIZON, kernel):.1e}, {best:.1e} at {factor:g}")
        cells.append(f"{_error(data, name, _SIZE, _HORIZON, _POWER, 'size'):.0e}")
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def _findings(data: Data) -> str:
    tuned = {name: _tuned(data, name, _POWER) for name in ("geometric", "s4d_real")}
    own = {name: _error(data, name, _SIZE, _HORIZON, _POWER) for name in tuned}
    return f"""Errors are distances from the span of the modes, in exact arithmetic: at hollow points no readout in double
precision comes within a factor of {_HELD:g} of them, because it would have to cancel. What the unit of time is worth: on the
power law one common factor takes geometric rates from {own["geometric"]:.1e} to {tuned["geometric"][0]:.1e} (at
{tuned["geometric"][1]:g}: rates up to 1 are too slow for it), S4D-Real from {own["s4d_real"]:.1e} to {tuned["s4d_real"][0]:.1e}
(at {tuned["s4d_real"][1]:g}). The published theorem bounds random rates by exp(-c m / log m), because their smallest gaps close
up; in the best readout that shows at small widths alone, and in the scatter over the seeds. Linear rates are better than
geometric ones at short horizons, and fall behind as T grows."""


POST_INITIAL = Figure(
    name="post-initial",
    title="Initial spectra: what the best readout on them can hold",
    source="[PoST] the table of rates; [S4D], [HiPPO], [LRU] the spectra",
    published="""Best readouts of m decay channels over a context T: random rates exp(-Ω(m / log m)), linear ones
exp(-O(m / √T)), geometric ones O(exp(-c m / log T)), which is optimal (the target class and norm were not at hand). S4D-Inv is
the asymptote of S4D-LegS; S4D-Real has the eigenvalues of HiPPO-LegS.""",
    settings=f"""Every named spectrum of this project as it is initialised for the horizon T (the slowest mode of the S4D family
decays at 1/T; geometric, linear and log-uniform rates lie in [1/T, 1]; the ring has samples one time unit apart), and the least
squares fit of each kernel on [0, T] in the norm with weight 1 + t, computed in an orthonormal basis of the modes. Drawn spectra:
median and range of at most {len(_SEEDS)} seeds. In the table: the error as initialised, and at the best of at most
{len(_FACTORS) + 1} factors common to all eigenvalues.""",
    jobs=_jobs,
    assemble=_assemble,
    plot=_plot,
    claims=_claims,
    table=_table,
    rows=_rows,
    findings=_findings,
)
