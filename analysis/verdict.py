"""A stated rule for stable approximation, in place of reading curves by eye."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import curve_sets
from .perturbation import PerturbationCurve
from .results import Result
from .target_memory import TargetMemory, target_memory

Judgement = Literal["stable", "unstable", "not approximated", "undecided"]

# The widest model must reach this part of |H|: of a worse fit the radius says nothing about the target.
APPROXIMATED = 0.1
# R = r / (slowest rate of the memory that the fit shows). Where the eigenvalues themselves are perturbed a model fails once its
# slowest mode is moved by about that rate: of power laws R is at most 3.2, in the README's table and in the linear table of the
# tests. Where they are protected it is 12 and more, but for some rotated or complex families, which stay undecided. The cut is
# between, at 6.5, and within a factor of nearly 2 of it R alone is not sure.
FOLLOWS_MEMORY, IGNORES_MEMORY = 3.5, 12.0
# kappa = r T beyond which the horizon does not limit r: of modes as slow as the horizon lets them be it is about 2.
KAPPA = 10.0
# The same with every block perturbed, which costs part of it.
KAPPA_ALL = 6.0
# Raw weights of stable parameterisations are logarithms of rates, whatever the unit of time: perturbed by less than 0.1 they
# change little, and where the memory that is seen is faster than that, a small R says nothing. Without a measured exponent r
# must be smaller.
SMALL, VERY_SMALL = 0.1, 0.02
# r ~ (slowest rate seen)^b, or T^-a: 1 where the memory sets the radius, 0 where it does not. They are read only where the rates
# (horizons) differ by at least SPREAD.
FOLLOWS, IGNORES, SPREAD = 0.5, 0.2, 2.0
# Of an exponential memory that is seen to its end no radius is expected below this part of its rate; r ~ 1/T at lT = 30 is.
LEAST_PART_OF_RATE = 0.03
# The slowest rate seen may be so many times the rate at which the memory ends.
HIDDEN = 2.0
# r that falls at every width, to less than LEVELLED in all, while E_m(0) falls to less than IMPROVED, has not levelled off: the
# better fit needed slower modes, and the next width may need slower ones again.
LEVELLED, IMPROVED = 0.75, 0.5
# A second horizon is so many times the first.
LONGER = 4
# Radii closer than this are the same. The ascent comes within 1 % of the supremum on models of one to three units
# (docs/held_out/sup_search.md), and larger ones are harder.
RADIUS_ACCURACY = 0.05


@dataclass(frozen=True, eq=False, repr=False)
class Verdict(Result):
    """The judgement of `judge_stable_approximation`, with the numbers it rests on.

    Args:
        judgement: 'stable', 'unstable', 'not approximated' or 'undecided'.
        beta0: the radius up to which the approximation is stable; None unless 'stable'.
        widths: m, increasing.
        horizon: T of the first horizon.
        initial_errors: E_m(0) / |H| at each width.
        improves: whether E_m(0) falls from the smallest to the largest width.
        radii: tolerance radius r at each width, by block ('recurrent', 'all', ...).
        radius_bounds: for each of them '<' or '>' where it is only known from that side, else ''.
        kappa: r(m_max) T by block.
        longer_horizon: the second horizon, None where there is none.
        longer_radius: r(m_max) of the recurrent block there.
        horizon_exponent: a in r ~ T^-a between the two.
        memory_law: of the target, see `TargetMemory`; None where its memory is not known.
        memory_rate: l of an exponential memory e^-lt; None otherwise.
        needed_horizon: the T that holds enough time constants 1/l; None where there is no l.
        memory_ratio: R = r(m_max) / (slowest rate of the memory that the fit shows), at the longest horizon.
        memory_exponent: b in r ~ (slowest rate shown)^b over the horizons, or else over the widths; None where the rates hardly
            differ.
        still_falling: whether r falls at every width and has not levelled off.
        crossings: beta at which each curve crosses the one of the width before, by block; for the picture only.
        sampled: whether a curve comes from sampling alone.
        reasons: the rule's steps, in words; of 'undecided' the last one says what to do.
    """

    judgement: Judgement
    beta0: float | None
    widths: tuple[int, ...]
    horizon: float
    initial_errors: tuple[float, ...]
    improves: bool
    radii: dict[str, tuple[float, ...]]
    radius_bounds: dict[str, tuple[str, ...]]
    kappa: dict[str, float]
    longer_horizon: float | None
    longer_radius: float | None
    horizon_exponent: float | None
    memory_law: str | None
    memory_rate: float | None
    needed_horizon: float | None
    memory_ratio: float | None
    memory_exponent: float | None
    still_falling: bool
    crossings: dict[str, tuple[float | None, ...]]
    sampled: bool
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        head = self.judgement if self.beta0 is None else f"{self.judgement} up to beta0 = {self.beta0:.3g}"
        return f"{head}: " + "; ".join(self.reasons)

    def kappa_text(self, block: str = "recurrent") -> str:
        """kappa in words, '<0.03' where it is only known from above."""
        return f"{self.radius_bounds[block][-1]}{self.kappa[block]:.3g}"


def judge_stable_approximation(curves: Sequence[PerturbationCurve], target: Any = None) -> Verdict:
    """Whether a family of models approximates a target stably, from perturbation curves over widths (and horizons).

    A target is stably approximated if E_m(0) -> 0 and lim sup_m E_m(beta) stays continuous near beta = 0 ([IA] Def 3.5). What
    can be seen of that at finite m and T: r(m), the largest beta with E_m(beta) <= |H| / 2, must not fall to 0 as m and T grow.

    A finite T and a finite accuracy show the target's memory M(t) only up to a time t*: T, or that beyond which M holds less than
    the model's error. With

        l* = slowest decay rate of M seen, at t*,    R = r / l*,    kappa = r T,

    at the largest width and the longest horizon, and with b in r ~ l*^b over the horizons (over the widths, where l* varies
    only there), the rule for the recurrent block (for 'all' where there are no other curves) is:

    1. E_{m_max}(0) > 0.1 |H|: *not approximated*.
    2. M is not known: *undecided*. Whether T was long enough cannot be told from the curves: those of e^{-0.003 t} and
       (1+t)^-1.1 look alike on [0, 1000].
    3. M ends like e^{-lt}. T must hold 30 time constants 1/l, and the model must show that part (l* <= 2 l), or else
       *undecided*: "horizon too short, take T >= ...", or a more accurate model. *stable* if r has levelled off with m, is not
       limited by the horizon (kappa >= 10, or r ~ T^-a with a <= 0.2), and is at least 0.03 l or shows both at two such
       horizons. *unstable* if r follows two such horizons (a >= 0.5) and is far below l. Else *undecided*.
    4. M is slower than that. *unstable* if R <= 3.5 and r follows l* (r <= 0.1 and b >= 0.5, or r <= 0.02 where no two
       horizons tell b) down to l* <= 0.1: slower parts of the memory, which longer horizons and better fits show, leave less
       and less. *stable* if r does not follow it (b <= 0.2, from widths alone only where r > 0.1) and R > 3.5, or if R >= 12
       and b, where it can be read, is at most 0.2. Else *undecided*. Where the law of M cannot be told, R <= 3.5 is
       *undecided*, too.
    5. 'stable' from curves that were only sampled, or for 'all' by one horizon alone, is *undecided*, and so it is by one
       horizon where 'all' has kappa < 6.

    Why. A model that is accurate on a slow tail needs a mode about as slow as the tail. Where a perturbation moves that mode's
    rate itself, by beta, the model fails from beta ~ l* on: R is of order 1, whatever the memory. Then the memory decides: if it
    is exponential, l* stays at l and r with it; if it is slower, l* falls for ever and so does r. Where the parameterisation
    protects the rate, r does not depend on l*. So l* tells which part of the memory the models were tried on, and r against l*
    whether they follow it; on a short horizon every memory looks endless. A search gives E_m from below, so r from above:
    sampling may overlook instability but cannot invent it. A radius that the betas do not enclose counts with the side that is
    known. The crossing of consecutive widths is reported for the picture. It tends to 0 for stable families too, since E_m(0)
    does.

    docs/held_out/verdict.md has its verdicts on targets drawn anew.

    It cannot see a memory that changes its law beyond 1e4 T (100 T for nonlinear functionals, 4 T for black boxes), where it is
    no longer followed. And it is about the perturbed block alone: with every block perturbed stable parameterisations are less
    stable, too.

    Args:
        curves: one for each width, horizon and choice of blocks, with the same error, norm and betas that reach past r; at
            least two widths at the shortest horizon, and the largest of them at the longer one if there is one.
        target: what the models learnt, a kernel, a functional or its `TargetMemory`; not needed where the curves have it.

    Raises:
        ValueError: curves that do not make such a set.
    """
    groups = curve_sets.group(curves)
    horizons = sorted({horizon for horizon, _ in groups})
    T = horizons[0]
    main = "recurrent" if (T, "recurrent") in groups else "all" if (T, "all") in groups else curve_sets.only_choice(groups, T)
    family = groups[T, main]
    widths = tuple(family)
    if len(widths) < 2:
        raise ValueError(
            f"a verdict needs curves of at least two widths at one horizon, got only width {widths[0]} at T = {T:g}: "
            "add runs of other widths"
        )
    if not math.isfinite(T):
        raise ValueError("a verdict needs a finite horizon T, because it rests on r T: compute the curves with horizon=T")
    widest = widths[-1]
    at_T = {block: curves_of for (horizon, block), curves_of in groups.items() if horizon == T}
    radii = {block: tuple(curve.tolerance_radius() for curve in curves_of.values()) for block, curves_of in at_T.items()}
    bounds = {block: tuple(curve.radius_bound() for curve in curves_of.values()) for block, curves_of in at_T.items()}
    initial = tuple(curve.relative_initial for curve in family.values())
    longer = [horizon for horizon in horizons[1:] if math.isfinite(horizon) and widest in groups.get((horizon, main), {})]
    longer_horizon = longer[-1] if longer else None
    longer_curve = groups[longer_horizon, main][widest] if longer_horizon is not None else None
    memory = _memory(curves, target, T)
    evidence = _Evidence(
        main=main,
        family=tuple(family.values()),
        longer=longer_curve,
        all_blocks=at_T["all"].get(widest) if main != "all" and "all" in at_T else None,
        memory=memory,
        falling=_still_falling(radii[main], initial),
    )
    judgement, reasons = _decide(evidence)
    # Up to the smallest radius of any model that approximates the target at all.
    accurate = [r for r, error in zip(radii[main], initial) if error <= APPROXIMATED]
    accurate += [longer_curve.tolerance_radius()] if longer_curve else []
    return Verdict(
        judgement=judgement,
        beta0=min(accurate) if judgement == "stable" else None,
        widths=widths,
        horizon=T,
        initial_errors=initial,
        improves=initial[-1] < initial[0],
        radii=radii,
        radius_bounds=bounds,
        kappa={block: values[-1] * T for block, values in radii.items()},
        longer_horizon=longer_horizon,
        longer_radius=longer_curve.tolerance_radius() if longer_curve else None,
        horizon_exponent=evidence.horizon_exponent,
        memory_law=memory.law if memory else None,
        memory_rate=memory.slowest_rate if memory else None,
        needed_horizon=memory.needed_horizon() if memory else None,
        memory_ratio=evidence.ratio if memory else None,
        memory_exponent=evidence.memory_exponent,
        still_falling=evidence.falling,
        crossings={block: curve_sets.crossings(list(curves_of.values())) for block, curves_of in at_T.items()},
        sampled=evidence.sampled,
        reasons=tuple(reasons),
    )


@dataclass(frozen=True)
class _Evidence:
    """Curves of the judged block at the first horizon, by width; of the widest model at the longer one; the target's memory."""

    main: str
    family: tuple[PerturbationCurve, ...]
    longer: PerturbationCurve | None
    all_blocks: PerturbationCurve | None
    memory: TargetMemory | None
    falling: bool

    @property
    def widest(self) -> PerturbationCurve:
        return self.family[-1]

    @property
    def judged(self) -> PerturbationCurve:
        """The widest at the longest horizon."""
        return self.longer or self.widest

    @property
    def initial(self) -> float:
        return max(self.widest.relative_initial, self.judged.relative_initial)

    @property
    def kappa(self) -> float:
        return self.judged.tolerance_radius() * self.judged.horizon

    @property
    def sampled(self) -> bool:
        return any(curve.search == "sample" for curve in (*self.family, self.judged))

    @property
    def horizon_exponent(self) -> float | None:
        """a in r ~ T^-a."""
        if self.longer is None:
            return None
        return -_exponent((self.widest.horizon, self.widest), (self.longer.horizon, self.longer))

    def seen(self, curve: PerturbationCurve) -> float:
        """l*, the slowest rate that a curve's model shows."""
        assert self.memory is not None
        return self.memory.slowest_seen(curve.horizon, curve.relative_initial)

    @property
    def ratio(self) -> float:
        """R = r / l*."""
        return self.judged.tolerance_radius() / self.seen(self.judged)

    @property
    def horizons_differ(self) -> bool:
        """Whether the longer horizon shows a slower rate."""
        return self.seen(self.widest) >= SPREAD * self.seen(self.judged)

    @property
    def memory_exponent(self) -> float | None:
        """b in r ~ l*^b: between the horizons where l* differs there, else between the widths that approximate the target."""
        if self.memory is None:
            return None
        others = [curve for curve in self.family[:-1] if curve.relative_initial <= APPROXIMATED]
        if self.horizons_differ:
            others = []
        for other, curve in [(self.widest, self.judged)] + [(other, self.widest) for other in others]:
            known = other.radius_bound() != "<" and curve.radius_bound() != ">"
            if known and self.seen(other) >= SPREAD * self.seen(curve):
                return _exponent((self.seen(other), other), (self.seen(curve), curve))
        return None


def _decide(n: _Evidence) -> tuple[Judgement, list[str]]:
    """The rule of `judge_stable_approximation`, with its steps in words."""
    reasons = [f"E(0) = {n.initial:.2g} |H| at the largest width"]
    if not n.initial <= APPROXIMATED:
        return "not approximated", [reasons[0] + f" (more than {APPROXIMATED:g})"]
    judged, T = n.judged, n.judged.horizon
    reasons.append(f"kappa = r T = {judged.radius_bound()}{n.kappa:.3g} ({n.main}, T = {T:g})")
    if n.horizon_exponent is not None:
        reasons.append(f"r ~ T^-a from T = {n.widest.horizon:g} with a = {n.horizon_exponent:.2f}")
    if n.falling:
        reasons.append("r falls at every width as the fit improves, and has not levelled off")
    if n.memory is None:
        unknown = "the target's memory is not known, so that no horizon can be called long enough: pass target="
        return "undecided", [*reasons, unknown]
    decide = _of_exponential_memory if n.memory.law == "exponential" else _of_slower_memory
    judgement, more = decide(n, n.memory)
    reasons += more
    if judgement == "stable" and n.sampled:
        return "undecided", [*reasons, "sampled curves may overlook instability: use search='ascent'"]
    if judgement == "stable" and n.all_blocks is not None and n.longer is None:
        other = n.all_blocks.tolerance_radius() * T
        if other < KAPPA_ALL:
            weak = f"but kappa = {other:.2g} with every block perturbed"
            return "undecided", [*reasons, f"{weak}: add the widest model on a second horizon, T = {LONGER * T:g}"]
    return judgement, reasons


def _of_exponential_memory(n: _Evidence, memory: TargetMemory) -> tuple[Judgement, list[str]]:
    rate, needed, T = memory.slowest_rate, memory.needed_horizon(), n.judged.horizon
    assert rate is not None
    assert needed is not None
    reasons = [f"the target's memory ends like e^(-{rate:.3g} t)"]
    if needed * (1 - _ROUNDING) > T:
        return "undecided", [*reasons, f"horizon too short, take T >= {_rounded_up(needed)}"]
    if n.seen(n.judged) > HIDDEN * rate:
        hidden = f"the models are accurate to {n.initial:.2g}, which shows rates down to {n.seen(n.judged):.3g} only"
        return "undecided", [*reasons, hidden + ": train longer or take wider models"]
    part, a, bound = n.judged.tolerance_radius() / rate, n.horizon_exponent, n.judged.radius_bound()
    reasons.append(f"r is {bound}{part:.2g} of that rate")
    # The first horizon may have been too short; then r may differ.
    both = n.longer is not None and n.widest.horizon >= needed * (1 - _ROUNDING)
    same = a is not None and a <= IGNORES
    levelled = bound != "<" and not n.falling and (same or not both)
    if levelled and ((n.kappa >= KAPPA and both) or (part >= LEAST_PART_OF_RATE and (n.kappa >= KAPPA or same))):
        return "stable", reasons
    if both and a is not None and a >= FOLLOWS and part < LEAST_PART_OF_RATE and bound != ">" and n.kappa < KAPPA / 2:
        return "unstable", [*reasons, "and follows the horizon, though the memory does not reach it"]
    if n.judged.within_tolerance:
        return "undecided", [*reasons, "E stays within the tolerance at every beta given: give larger betas"]
    if bound == "<":
        return "undecided", [*reasons, "r lies below the first beta: give smaller betas"]
    if n.falling:
        return "undecided", [*reasons, "add wider models, until r or E(0) stays"]
    if part < LEAST_PART_OF_RATE:
        advice = "that is the models, not the memory: train longer, or take another activation or parameterisation"
        return "undecided", [*reasons, advice + ("" if n.longer else f", or add a second horizon, T = {LONGER * T:g}")]
    if n.longer is None:
        return "undecided", [*reasons, f"add the widest model on a second horizon, T = {LONGER * T:g}"]
    return "undecided", [*reasons, f"the radii at the two horizons differ: take a third, T = {LONGER * T:g}"]


def _of_slower_memory(n: _Evidence, memory: TargetMemory) -> tuple[Judgement, list[str]]:
    T, r, ratio, b, bound = n.judged.horizon, n.judged.tolerance_radius(), n.ratio, n.memory_exponent, n.judged.radius_bound()
    law = {"slower": "like a power, or not at all", "between": "slower than exponentially"}[memory.law]
    known = memory.law == "slower" or memory.sure
    reasons = [
        f"the target's memory falls {law}"
        if known
        else f"how the target's memory ends cannot be told up to t = {memory.end:.3g}",
        f"R = {bound}{ratio:.3g} times the slowest rate seen, {n.seen(n.judged):.2g}",
    ]
    if b is not None:
        reasons.append(f"r ~ (slowest rate seen)^b with b = {b:.2f}")
    if bound != "<" and n.main != "all" and ratio >= IGNORES_MEMORY and (b is None or b <= IGNORES):
        return "stable", reasons
    ignores = b is not None and b <= IGNORES and (n.horizons_differ or r > SMALL)
    if bound != "<" and ratio > FOLLOWS_MEMORY and ignores and (n.main != "all" or n.longer is not None):
        return "stable", reasons
    if n.judged.within_tolerance:
        return "undecided", [*reasons, "E stays within the tolerance at every beta given: give larger betas"]
    # Of b over widths a small r needs no more: wider models differ in more than in the rates that they show.
    follows = b is not None and b >= FOLLOWS and r <= SMALL
    small = bound != ">" and ratio <= FOLLOWS_MEMORY and (follows or (r <= VERY_SMALL and not n.horizons_differ))
    if small and n.seen(n.judged) > SMALL:
        return "undecided", [*reasons, "the models do not show the slow part of the memory: train longer or take wider models"]
    if small:
        if known:
            return "unstable", reasons
        return "undecided", [*reasons, f"horizon too short to tell, take T >= {_rounded_up(LONGER * T)}"]
    if n.longer is None:
        return "undecided", [*reasons, f"add the widest model on a second horizon, T = {LONGER * T:g}"]
    return "undecided", [*reasons, f"train longer or take wider models, or a third horizon, T = {LONGER * T:g}"]


# Two horizons are the same to this; kernels' rates are measured to some 1e-3.
_ROUNDING = 0.01


def _rounded_up(value: float) -> str:
    """To two digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / unit * (1 - 1e-3)) * unit:g}"


def _memory(curves: Sequence[PerturbationCurve], target: Any, horizon: float) -> TargetMemory | None:
    if target is None:
        return next((curve.target_memory for curve in curves if curve.target_memory is not None), None)
    return target if isinstance(target, TargetMemory) else target_memory(target, horizon)


def _exponent(first: tuple[float, PerturbationCurve], second: tuple[float, PerturbationCurve]) -> float:
    """n in r ~ x^n between two curves at x; radii that differ by less than their accuracy are the same."""
    before, after = first[1].tolerance_radius(), second[1].tolerance_radius()
    if not (before > 0 and after > 0):
        return math.inf if before > after else 0.0
    ratio = math.log(after / before)
    return 0.0 if abs(ratio) < math.log1p(RADIUS_ACCURACY) else ratio / math.log(second[0] / first[0])


def _still_falling(radii: Sequence[float], errors: Sequence[float]) -> bool:
    """Whether r falls at every width by more than its accuracy, to less than LEVELLED of the first, as the fit improves; over the
    widths that approximate the target."""
    good = [k for k, error in enumerate(errors) if error <= APPROXIMATED]
    radii, errors = [radii[k] for k in good], [errors[k] for k in good]
    if len(good) < 2:
        return False
    steps = all(after < (1 - RADIUS_ACCURACY) * before for before, after in zip(radii, radii[1:]))
    return steps and radii[-1] < LEVELLED * radii[0] and errors[-1] < IMPROVED * errors[0]
