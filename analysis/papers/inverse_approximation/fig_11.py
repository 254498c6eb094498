"""[IA] Fig 11: tanh RNNs with memory that does not decay (a), and the phase plane of one of them (b)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...decay import EXPONENTIAL_END
from ...plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PALETTE, PURPLE, VERMILION, label, picture
from ..compute.lasting_memory import plane_memory, random_memory
from ..compute.phase_plane import equilibria, leaving_the_edge, periodic_orbit, trajectories
from ..engine.figure import Claim, Data, Figure, Job, Options, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

W = [[1.0, 1.0], [-4.0, -3.0]]
# --- a ---
FAMILIES = ("unstable", "antisymmetric")
SIZE, HORIZON, SAMPLES = 16, 100.0, 401
SEEDS, QUICK_SEEDS = range(6), range(2)
# |x| as a multiple of the input that starts on the orbit.
SCALES = {0.8: "inside the orbit", 1.0: "on the orbit", 1.5: "outside", 3.0: "further outside"}
# Of the largest M, what must be left in the second half of the window.
_LASTS = 0.3
# --- b ---
# From the published text.
PUBLISHED_ATTRACTORS = ((0.0, 0.0), (1.0, 1.0), (-1.0, -1.0))
PERIOD, _PERIOD_TO = 26.32, 0.01
# Start outside of the orbit, (v_1, v_2); by symmetry -v is one as well.
_OUTSIDE = ((0.95, 0.95), (0.98, 0.2))
_INSIDE = ((0.6, 0.6), (-0.2, 0.9))
_LONG, _PATH_POINTS = 300.0, 600
# The check at the edge v_2 = 1: start, distance to it, time, steps of Runge-Kutta.
_EDGE = {"v1": 0.9, "distance": 1e-30, "horizon": 8.0, "steps": 3200}


# --- a: memory that does not decay --------------------------------------------------------------------------


def _jobs_a(options: Options) -> list[Job]:
    window = {"horizon": HORIZON, "samples": SAMPLES}
    seeds = list(QUICK_SEEDS if options.quick else SEEDS)
    random = [
        Job(random_memory, {"family": family, "size": SIZE, "seeds": seeds, **window}, cost=2.0 * len(seeds))
        for family in FAMILIES
    ]
    return [*random, Job(plane_memory, {"W": W, "scales": list(SCALES), **window}, cost=3.0)]


def _assemble_a(results: Sequence[tuple[Job, Result]]) -> Data:
    return {job.settings.get("family", "plane"): result["curves"] for job, result in results}


def _left(curve: Mapping[str, Any]) -> float:
    """Smallest M of the second half of the window over the largest of all."""
    t, values = np.asarray(curve["times"]), np.asarray(curve["values"])
    return float(values[t >= HORIZON / 2].min(initial=np.inf) / values.max()) if t[-1] >= HORIZON / 2 else 0.0


def _claims_a(data: Data) -> list[Claim]:
    claims = []
    for family, statement in (
        ("unstable", "W has eigenvalues in the right half plane"),
        ("antisymmetric", "W is antisymmetric"),
        ("plane", "W is stable and the input starts on or outside of the periodic orbit"),
    ):
        curves = [curve for curve in data[family] if curve.get("scale", 1.0) >= 1.0]
        laws, left = [curve["law"] for curve in curves], min(map(_left, curves))
        claims.append(
            Claim(
                f"The memory does not decay where {statement} (fails if a law is named, or in the second half less than "
                f"{_LASTS:.0%} of its largest value is left)",
                all(law == "none" for law in laws) and left >= _LASTS,
                f"{laws.count('none')} of {len(laws)} named 'does not decay' by `fit_decay`; at least {left:.0%} of the largest "
                f"M is left at all times in [{HORIZON / 2:g}, {HORIZON:g}]; max Re λ(W) from "
                f"{min(curve['abscissa'] for curve in curves):.2g} to {max(curve['abscissa'] for curve in curves):.2g}",
            )
        )
    inside = next(curve for curve in data["plane"] if curve["scale"] < 1)
    claims.append(
        Claim(
            "The same network forgets exponentially what starts inside the orbit (fails if its law does not end exponentially)",
            inside["law"] in EXPONENTIAL_END,
            f"{inside['law']} at {inside['scale']:g} of the input that starts on the orbit",
        )
    )
    return claims


def _plot_a(data: Data, path: Path) -> None:
    titles = {
        "unstable": f"random unstable $W$, $m$ = {SIZE}",
        "antisymmetric": f"antisymmetric $W$, $m$ = {SIZE}",
        "plane": "stable $W$ = [[1, 1], [-4, -3]]",
    }
    with picture(path, columns=3, width=10.5, height=3.2) as (_, panels):
        for axes, (family, title) in zip(panels, titles.items()):
            colours = (BLUE, VERMILION, GREEN, PURPLE) if family == "plane" else PALETTE
            for curve, colour in zip(data[family], colours):
                named = f"{SCALES[curve['scale']]}, $|x|$ = {curve['scale']:g}" if family == "plane" else f"seed {curve['seed']}"
                axes.semilogy(curve["times"], curve["values"], color=colour, label=named, lw=1.2)
            label(axes, x="time $t$", y=r"$M(t) = |\frac{d}{dt}H_t(u^x)|\,/\,|x|$", title=title)
            axes.set_xlim(0, HORIZON)
            if family == "plane":
                axes.set_ylim(1e-13, 1e2)
                axes.legend(loc="center right")
            else:
                axes.set_ylim(1e-1, 1e1)
                axes.legend(loc="lower left", ncols=3)


def _rows_a(data: Data) -> list[dict[str, Any]]:
    return [
        {"W": family, "seed": curve.get("seed"), "amplitude": curve.get("scale", 1.0), "t": t, "M": M}
        for family, curves in data.items()
        for curve in curves
        for t, M in zip(curve["times"], curve["values"])
    ]


# --- b: the phase plane -------------------------------------------------------------------------------------


def _jobs_b(options: Options) -> list[Job]:
    starts = [[sign * v for v in start] for start in (*_OUTSIDE, *_INSIDE) for sign in (1, -1)]
    return [
        Job(equilibria, {"W": W}, cost=0.2),
        Job(periodic_orbit, {"W": W, "points": 800}, cost=1.0),
        Job(trajectories, {"W": W, "starts": starts, "horizon": _LONG, "points": _PATH_POINTS}, cost=0.3),
        Job(leaving_the_edge, {"W": W, **_EDGE}, cost=0.3),
    ]


def _assemble_b(results: Sequence[tuple[Job, Result]]) -> Data:
    return {job.compute.__name__: result for job, result in results}


def _point(data: Data, v: Sequence[float]) -> dict[str, Any]:
    return next(point for point in data["equilibria"]["points"] if np.allclose(point["v"], v, atol=1e-4))


def _spectrum(point: Mapping[str, Any]) -> str:
    return f"({', '.join(f'{x:g}' for x in point['v'])}): {', '.join(f'{x:.3g}' for x in point['eigenvalues'])}"


def _residence(u: Sequence[float]) -> float:
    """How long a trajectory stays at a corner (±1, ∓1), from u there.

    On the edge v_2 = -1 the distance w = 1 - v_1 to the corner follows dw/dt = 2 w^2 - w^3, so that leaving takes 1 / (2 w).
    """
    w = 2 / (1 + np.exp(2 * abs(u[0])))
    return float(1 / (2 * w))


_ON_THE_EDGE = "they attract only what is exactly on the edges v_2 = ±1, as rounding can put it; see below"


def _claims_b(data: Data) -> list[Claim]:
    origin, orbit, edge = _point(data, (0, 0)), data["periodic_orbit"], data["leaving_the_edge"]
    corners = [_point(data, v) for v in PUBLISHED_ATTRACTORS[1:]]
    saddles = all(min(corner["eigenvalues"]) < 0 < max(corner["eigenvalues"]) for corner in corners)
    by_div, by_return = orbit["multiplier_divergence"], orbit["multiplier_return"]
    left = {route: edge[route]["left"] for route in ("digits", "u", "v")}
    stays = left["v"] is None and left["digits"] is not None
    paths = data["trajectories"]["paths"]
    inner, outer = paths[2 * len(_OUTSIDE) :], paths[: 2 * len(_OUTSIDE)]
    died = max(float(np.abs(path["v"][-1]).max()) for path in inner)
    ends = [np.sign(path["v"][-1]).tolist() for path in outer]
    near = min(float(np.abs(path["v"][-1]).min()) for path in outer)
    return [
        Claim(
            "(0, 0) attracts (fails if an eigenvalue is not negative)",
            origin["stability"] == "stable",
            f"eigenvalues at {_spectrum(origin)}",
        ),
        Claim(
            "(1, 1) and (-1, -1) attract (fails if one has an eigenvalue that is not negative)",
            all(corner["stability"] == "stable" for corner in corners),
            f"eigenvalues at {'; '.join(map(_spectrum, corners))}" + (": saddles" if saddles else ""),
            difference=_ON_THE_EDGE if saddles and stays else "",
        ),
        Claim(
            f"Between the attractors there is a periodic orbit (fails if its period is farther than {_PERIOD_TO:g} from "
            f"{PERIOD:g})",
            abs(orbit["period"] - PERIOD) < _PERIOD_TO,
            f"period {orbit['period']:.4f}, through v = (0, {np.tanh(orbit['crossing']):.6f})",
        ),
        Claim(
            "The periodic orbit repels (fails if its multiplier is below 1, or two routes to it differ by more than 1e-4)",
            by_div > 1 and abs(by_div / by_return - 1) < 1e-4,
            f"{by_div:.5f} by the integral of the divergence, {by_return:.5f} by the return map",
        ),
        Claim(
            "What starts inside the orbit ends at (0, 0), what starts outside stays at a corner (±1, ∓1) (fails if one is "
            f"farther from it at t = {_LONG:g} than 1e-9 and 0.1)",
            died < 1e-9 and near > 0.9 and all(one == -other for one, other in ends),
            f"|v| at t = {_LONG:g}: at most {died:.1g} inside, at least {near:.6f} outside",
        ),
        Claim(
            "A trajectory at 1e-30 from the edge v_2 = 1 leaves it at the rate 14 in 60 digits and in coordinates without "
            "rounding alike, and in float64 never (fails if the rate is off by more than 1 %, the two leave at different times, "
            "or float64 leaves)",
            stays and left["digits"] == left["u"] and abs(_rate(data) / 14 - 1) < 0.01,
            f"half way across at t = {left['digits']} (60 digits), {left['u']} (u = artanh v), {left['v']} (v in float64); "
            f"rate {_rate(data):.4f}",
        ),
    ]


def _rate(data: Data) -> float:
    """Rate at which 1 - v_2 grows once v_1 has come to 1, in 60 digits."""
    edge = data["leaving_the_edge"]
    t, distance = np.asarray(edge["times"]), np.asarray(edge["digits"]["distance"])
    middle = (distance > 1e-20) & (distance < 1e-5)
    return float(np.polyfit(t[middle], np.log(distance[middle]), 1)[0])


def _plot_b(data: Data, path: Path) -> None:
    with picture(path, columns=2, width=8.4, height=4.2) as (_, (plane, edge)):
        _draw_plane(plane, data)
        routes = data["leaving_the_edge"]
        styles = {
            "digits": ("60 decimal digits", "-", BLUE, 4.0),
            "u": ("float64 in $u$ = artanh $v$", "--", ORANGE, 1.5),
            "v": ("float64 in $v$: 0, since 1 − 10$^{-30}$ is rounded", "-", VERMILION, 1.5),
        }
        # What is exactly 0 has no place on a logarithmic axis: at its lower end.
        lowest = 1e-34
        for route, (name, style, colour, width) in styles.items():
            distance = np.maximum(routes[route]["distance"], lowest)
            edge.semilogy(routes["times"], distance, style, color=colour, lw=width, label=name, clip_on=False)
        edge.set_ylim(lowest, 1e2)
        edge.set_xlim(0, _EDGE["horizon"])
        edge.legend(loc="lower right", bbox_to_anchor=(1.0, 0.06))
        label(edge, x="time $t$", y="distance from the edge, $1 - v_2$", title="Rounding puts a trajectory on the edge for ever")


def _draw_plane(axes: Axes, data: Data) -> None:
    grid = np.linspace(-1, 1, 41)
    v = np.stack(np.meshgrid(grid, grid), -1)
    velocity = (1 - v**2) * (v @ np.array(W).T)
    axes.streamplot(grid, grid, velocity[..., 0], velocity[..., 1], color=GREY, linewidth=0.5, density=1.1, arrowsize=0.6)
    paths = data["trajectories"]["paths"]
    for k, curve in enumerate(paths):
        outside = k < 2 * len(_OUTSIDE)
        xy = np.asarray(curve["v"])
        name = "_" if k not in (0, 2 * len(_OUTSIDE)) else "starts outside" if outside else "starts inside"
        axes.plot(*xy.T, color=ORANGE if outside else BLUE, lw=1.2, label=name, clip_on=False)
        axes.plot(*xy[0], ".", color=ORANGE if outside else BLUE, ms=5)
    axes.plot(*np.asarray(data["periodic_orbit"]["v"]).T, color=VERMILION, lw=2.2, label="periodic orbit", clip_on=False)
    markers = {
        "stable": ("o", BLACK, "attractor"),
        "unstable": ("X", "white", "saddle"),
        "marginal": ("s", "white", "slow corner"),
    }
    for point in data["equilibria"]["points"]:
        marker, face, name = markers[point["stability"]]
        # One entry in the legend for each kind.
        name = "_" if any(line.get_label() == name for line in axes.get_lines()) else name
        axes.plot(*point["v"], marker, color=face, mec=BLACK, ms=8, label=name, clip_on=False, zorder=5)
    axes.set_xlim(-1, 1)
    axes.set_ylim(-1, 1)
    axes.set_aspect("equal")
    axes.grid(False)
    label(axes, x="$v_1$", y="$v_2$", title="$v = dh/dt$, $W$ = [[1, 1], [-4, -3]]")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)


def _findings_b(data: Data) -> str:
    edge, orbit = data["leaving_the_edge"], data["periodic_orbit"]
    stay = min(_residence(path["u"]) for path in data["trajectories"]["paths"][: 2 * len(_OUTSIDE)])
    return f"""The paper names (0, 0), (1, 1) and (-1, -1) as attractors. Of these only (0, 0) is one. With u = W h the dynamics
are dv/dt = (1 - v²)·(W v), and linearisation at ±(1, 1) gives -4 along the edge v_2 = ±1 and +14 across it: saddles. The edge
is invariant, and all of it runs into ±(1, 1), but no trajectory from inside the square reaches it, unless by rounding: in
float64 a v_2 closer to 1 than 1e-16 *is* 1, and stays. Right, the check: from 1e-30 off the edge, 60-digit arithmetic and the
coordinates u = artanh v, which do not round the distance away, both leave at t = {edge["digits"]["left"]} with the rate
{_rate(data):.3f}; the same Runge-Kutta steps in float64 end at (1, 1). What trajectories outside of the orbit come to are the
two other corners, (1, -1) and (-1, 1), with eigenvalues 0 and -2. They attract across the edge v_2 = ±1 and repel along it, but
slower than any exponential: w = 1 - |v_1| grows as dw/dt = 2 w², which takes 1/(2w), from where the trajectories drawn stand at
t = {_LONG:g} at least {stay:.1g}. For W = [[1, -1], [4, -3]], the same system with h_2 reflected, these corners are (1, 1) and
(-1, -1): a sign lost in print would explain the published picture as well. The orbit repels (a displacement grows
{orbit["multiplier_return"]:.2f} times a turn), and is found by integrating backwards in time."""


IA_11A = Figure(
    name="ia-11a",
    title="Tanh RNNs with memory that does not decay",
    source="[IA] Fig 11a",
    published="Memory functions of tanh RNNs that do not decay; which weights is not said.",
    settings=f"""dh/dt = tanh(W h + U x), y = h, the whole state, Heaviside input, dopri5 at 1e-10 on t in [0, {HORIZON:g}].
Left: gaussian W with eigenvalues in a disc of radius 2; middle: W = (G - Gᵀ)/√m, for which the sum of log cosh u_i, u = W h + U
x, is constant, so that dh/dt = tanh(u) cannot vanish; {SIZE} units, gaussian U, |x| = 1. Right: the W of ia-11b, which is
stable (double eigenvalue -1), with U such that |x| = 1 starts on its periodic orbit.""",
    jobs=_jobs_a,
    assemble=_assemble_a,
    claims=_claims_a,
    plot=_plot_a,
    rows=_rows_a,
    findings="""A stable W is not enough for a tanh RNN to forget: at the right the linearisation at rest has the rate 1, and
small inputs are forgotten so, but an input beyond the periodic orbit is not. Whether such a memory decays depends on the size
of x, and the supremum over all x of [IA] Def 3.1 does not decay.""",
)
IA_11B = Figure(
    name="ia-11b",
    title="Phase plane of v = dh/dt with a periodic orbit",
    source="[IA] Fig 11b",
    published="The phase plane of v = dh/dt for W = [[1, 1], [-4, -3]]: attractors (0, 0), (1, 1) and (-1, -1), and a periodic "
    "orbit between them.",
    settings="""The fixed points by Newton's method, their eigenvalues by automatic differentiation; trajectories in u = W h, in
which nothing is rounded near the edges of the square, by DOP853 at 1e-12; the orbit by integration backwards in time. Squares:
corners with eigenvalues 0 and -2.""",
    jobs=_jobs_b,
    assemble=_assemble_b,
    claims=_claims_b,
    plot=_plot_b,
    findings=_findings_b,
)
