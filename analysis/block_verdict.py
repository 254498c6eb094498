"""The rule for stable approximation, for one choice of perturbed blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .perturbation import PerturbationCurve
from .results import Result
from .target_memory import TargetMemory

Judgement = Literal["stable", "unstable", "not approximated", "undecided"]

# The widest model must reach this part of |H|: of a worse fit the radius says nothing about the target.
APPROXIMATED = 0.1
# A number within this factor of its cut decides nothing.
SURE = 2.0
# R = r / (slowest rate of the memory that the fit shows). Where the eigenvalues themselves are perturbed a model fails once its
# slowest mode is moved by about that rate: of power laws R is at most 3.2, in the README's table and in the linear table of the
# tests. Where they are protected it is 12 and more, but for some rotated or complex families.
RATIO = 6.5
FOLLOWS_MEMORY, IGNORES_MEMORY = RATIO / SURE, RATIO * SURE
# kappa = r T beyond which the horizon does not limit r: of modes as slow as the horizon lets them be it is about 2.
KAPPA = 10.0
# Raw weights of stable parameterisations are logarithms of rates, whatever the unit of time: perturbed by less than 0.1 they
# change little, and where the memory that is seen is faster than that, a small R says nothing. Without a measured exponent r
# must be smaller.
SMALL, VERY_SMALL = 0.1, 0.02
# r ~ (slowest rate seen)^b, or T^-a: 1 where the memory sets the radius, 0 where it does not. b is read only where the rates
# differ by at least SPREAD.
FOLLOWS, IGNORES, SPREAD = 0.5, 0.2, 2.0
# An exponent counts with so many of its standard errors.
ERRORS = 2.0
# Horizons over which a radius must have fallen before a slow fall counts as one that goes on.
FALLING_HORIZONS = 3
# Derived in `analysis.linear.all_blocks`. Of slower memories it falls with l*: a radius that stays has not met it yet.
_READOUT_BOUND = "with input and readout weights perturbed, too, r is at most sqrt(|H| l* / 2) in linear models"
# Of an exponential memory that is seen to its end no radius is expected below this part of its rate; r ~ 1/T at lT = 30 is.
LEAST_PART_OF_RATE = 0.03
# The slowest rate seen may be so many times the rate at which the memory ends.
HIDDEN = 2.0
# r that falls at every width, to less than LEVELLED in all, while E_m(0) falls to less than IMPROVED, has not levelled off: the
# better fit needed slower modes, and the next width may need slower ones again.
LEVELLED, IMPROVED = 0.75, 0.5
# The next horizon is so many times the last.
LONGER = 4
# Radii closer than this are the same. The ascent comes within 1 % of the supremum on models of one to three units
# (docs/held_out/sup_search.md), and larger ones are harder.
RADIUS_ACCURACY = 0.05
# Two horizons, and two numbers at a cut, are the same to this; kernels' rates are measured to some 1e-3.
_ROUNDING = 0.01


@dataclass(frozen=True, eq=False, repr=False)
class BlockVerdict(Result):
    """The judgement of one choice of perturbed blocks, with the numbers it rests on.

    Args:
        block: 'recurrent', 'all', or names of weights.
        judgement: 'stable', 'unstable', 'not approximated' or 'undecided'.
        beta0: the radius up to which the approximation is stable; None unless 'stable'.
        horizons: of the widest model, increasing.
        radii: its r at each of them.
        radius_bounds: for each of them '<' or '>' where it is only known from that side, else ''.
        kappa: r T at the longest.
        horizon_exponent, horizon_exponent_error: a in r ~ T^-a over the horizons, with its standard error; None for one horizon.
        memory_ratio: R = r / (slowest rate of the memory that the fit shows), at the longest horizon.
        memory_exponent, memory_exponent_error: b in r ~ (slowest rate shown)^b over the horizons, or else over the widths, with
            its standard error; None where the rates hardly differ.
        still_falling: whether r falls at every width and has not levelled off.
        sampled: whether a curve comes from sampling alone.
        reasons: the rule's steps, in words; of 'undecided' the last one says what to do.

    Example:
        >>> from analysis import judge_stable_approximation, linear_curves
        >>> from targets import kernels
        >>> rho = kernels.exponential(rate=0.1)
        >>> verdict = judge_stable_approximation(linear_curves(rho, "direct", widths=(2, 4), horizons=1), rho)
        >>> one = verdict.blocks["recurrent"]
        >>> one.judgement, one.horizons
        ('stable', (1000.0,))
    """

    block: str
    judgement: Judgement
    beta0: float | None
    horizons: tuple[float, ...]
    radii: tuple[float, ...]
    radius_bounds: tuple[str, ...]
    kappa: float
    horizon_exponent: float | None
    horizon_exponent_error: float | None
    memory_ratio: float | None
    memory_exponent: float | None
    memory_exponent_error: float | None
    still_falling: bool
    sampled: bool
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        up_to = "" if self.beta0 is None else f" up to beta0 = {self.beta0:.3g}"
        return f"{self.judgement} ({self.block}){up_to}: " + "; ".join(self.reasons)

    def exponent_text(self) -> str:
        """a in words: '0.39 +- 0.05', or '-' where there is one horizon."""
        return "-" if self.horizon_exponent is None else f"{self.horizon_exponent:.2f} +- {self.horizon_exponent_error:.2f}"


def judge_block(
    block: str, family: Sequence[PerturbationCurve], longer: Sequence[PerturbationCurve], memory: TargetMemory | None
) -> BlockVerdict:
    """The rule of `judge_stable_approximation` for one choice of blocks.

    Args:
        block: its name.
        family: curves at the first horizon, one for each width, increasing.
        longer: curves of the widest model at longer horizons, increasing.
        memory: of the target; None where it is not known.
    """
    evidence = _Evidence(block, tuple(family), (family[-1], *longer), memory)
    judgement, reasons = _decide(evidence)
    # Up to the smallest radius of any model that approximates the target at all.
    counted = [curve for curve in family if curve.relative_initial <= APPROXIMATED] + list(longer)
    a, b = evidence.horizon_exponent, evidence.memory_exponent
    return BlockVerdict(
        block=block,
        judgement=judgement,
        beta0=min(curve.tolerance_radius() for curve in counted) if judgement == "stable" else None,
        horizons=tuple(curve.horizon for curve in evidence.series),
        radii=tuple(curve.tolerance_radius() for curve in evidence.series),
        radius_bounds=tuple(curve.radius_bound() for curve in evidence.series),
        kappa=evidence.kappa,
        horizon_exponent=a.value if a else None,
        horizon_exponent_error=a.error if a else None,
        memory_ratio=evidence.ratio if memory else None,
        memory_exponent=b.value if b else None,
        memory_exponent_error=b.error if b else None,
        still_falling=evidence.falling,
        sampled=evidence.sampled,
        reasons=tuple(reasons),
    )


@dataclass(frozen=True)
class _Exponent:
    """n in r ~ x^n, with its standard error."""

    value: float
    error: float

    @staticmethod
    def fitted(points: Mapping[float, float]) -> _Exponent:
        """By least squares of log r on log x, from {x: r}. The error is that of radii known to RADIUS_ACCURACY, or what they
        scatter about the line by, if that is more. Radii that all agree within their accuracy have the exponent 0."""
        x, r = np.log(list(points)), np.array(list(points.values()))
        accuracy = math.log1p(RADIUS_ACCURACY)
        if not (r > 0).all():
            return _Exponent(math.inf if r[np.argmin(x)] == 0 < r.max() else 0.0, 0.0)
        y, x = np.log(r), x - x.mean()
        spread = float(x @ x)
        value = float(x @ (y - y.mean())) / spread
        left = y - y.mean() - value * x
        scatter = math.sqrt(float(left @ left) / (x.size - 2)) if x.size > 2 else 0.0
        error = max(accuracy, scatter) / math.sqrt(spread)
        return _Exponent(0.0 if np.ptp(y) < accuracy else value, error)

    @property
    def stays(self) -> bool:
        """Surely no more than IGNORES."""
        return self.value + ERRORS * self.error <= IGNORES + _ROUNDING

    @property
    def falls(self) -> bool:
        """Surely more than IGNORES."""
        return self.value - ERRORS * self.error > IGNORES

    def __str__(self) -> str:
        return f"{self.value:.2f} +- {self.error:.2f}"


@dataclass(frozen=True)
class _Evidence:
    """Curves at the first horizon by width; of the widest model by horizon (the first of them is the last of `family`)."""

    block: str
    family: tuple[PerturbationCurve, ...]
    series: tuple[PerturbationCurve, ...]
    memory: TargetMemory | None

    @property
    def widest(self) -> PerturbationCurve:
        return self.family[-1]

    @property
    def judged(self) -> PerturbationCurve:
        """The widest at the longest horizon."""
        return self.series[-1]

    @property
    def initial(self) -> float:
        return max(curve.relative_initial for curve in self.series)

    @property
    def kappa(self) -> float:
        return self.judged.tolerance_radius() * self.judged.horizon

    @property
    def sampled(self) -> bool:
        return any(curve.search == "sample" for curve in (*self.family, *self.series))

    @property
    def next_horizon(self) -> float:
        return LONGER * self.judged.horizon

    @property
    def falling(self) -> bool:
        return _still_falling(
            [curve.tolerance_radius() for curve in self.family], [curve.relative_initial for curve in self.family]
        )

    @property
    def horizon_exponent(self) -> _Exponent | None:
        """a in r ~ T^-a."""
        if len(self.series) < 2:
            return None
        return _Exponent.fitted({1 / curve.horizon: curve.tolerance_radius() for curve in self.series})

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
        """Whether the longest horizon shows a slower rate."""
        return self.seen(self.widest) >= SPREAD * self.seen(self.judged)

    @property
    def _points(self) -> tuple[PerturbationCurve, ...]:
        """The curves that differ in the rate they show: over the horizons, else over the widths that approximate the target."""
        if self.horizons_differ:
            return self.series
        return tuple(curve for curve in self.family if curve.relative_initial <= APPROXIMATED)

    @property
    def memory_exponent(self) -> _Exponent | None:
        """b in r ~ l*^b."""
        if self.memory is None:
            return None
        points = {self.seen(curve): curve.tolerance_radius() for curve in self._points}
        # That all radii are bounds from above (or from below) says nothing of how they change.
        sides = {curve.radius_bound() for curve in self._points}
        if len(points) < 2 or max(points) < SPREAD * min(points) or sides == {"<"}:
            return None
        return _Exponent.fitted(points)

    @property
    def stays(self) -> bool:
        """Whether r does not follow l*. Radii known from below count with that: E_m is bounded up to there at all of them."""
        b, bounds = self.memory_exponent, [curve.radius_bound() for curve in self._points]
        open_start = bounds and ">" in bounds[:-1] and bounds[-1] != ">"
        return b is not None and b.stays and self.judged.radius_bound() != "<" and not open_start

    @property
    def goes_on_falling(self) -> bool:
        """Whether r falls with l* at every one of FALLING_HORIZONS horizons or more, by an exponent above IGNORES."""
        b = self.memory_exponent
        if not self.horizons_differ or len(self.series) < FALLING_HORIZONS or b is None or not b.falls:
            return False
        steps = zip(self.series, self.series[1:])
        pairs = ({self.seen(one): one.tolerance_radius() for one in pair} for pair in steps)
        known = self.widest.radius_bound() != "<" and self.judged.radius_bound() != ">"
        return known and all(len(pair) == 2 and _Exponent.fitted(pair).value > IGNORES for pair in pairs)


def _decide(n: _Evidence) -> tuple[Judgement, list[str]]:
    """The rule of `judge_stable_approximation`, with its steps in words."""
    reasons = [f"E(0) = {n.initial:.2g} |H| at the largest width"]
    if not n.initial <= APPROXIMATED:
        return "not approximated", [reasons[0] + f" (more than {APPROXIMATED:g})"]
    judged, T = n.judged, n.judged.horizon
    reasons.append(f"kappa = r T = {judged.radius_bound()}{n.kappa:.3g} ({n.block}, T = {T:g})")
    if n.horizon_exponent is not None:
        reasons.append(f"r ~ T^-a from T = {n.widest.horizon:g} with a = {n.horizon_exponent}")
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
    if judgement == "stable" and n.block == "all" and n.memory.law != "exponential":
        meets = f"take a longer horizon, T >= {_rounded_up(n.next_horizon)}"
        return "undecided", [*reasons, f"{_READOUT_BOUND}, which these horizons do not reach: {meets}"]
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
    both = len(n.series) > 1 and n.widest.horizon >= needed * (1 - _ROUNDING)
    stays = a is not None and a.stays
    far = part >= SURE * LEAST_PART_OF_RATE and n.kappa >= SURE * KAPPA * (1 - _ROUNDING)
    if bound != "<" and not n.falling:
        if stays and (part >= LEAST_PART_OF_RATE or (both and n.kappa >= KAPPA)):
            return "stable", reasons
        if not both and far:
            return "stable", reasons
    below = part < LEAST_PART_OF_RATE / SURE and n.kappa < KAPPA / SURE and bound != ">"
    if both and a is not None and a.value - ERRORS * a.error >= FOLLOWS and below:
        return "unstable", [*reasons, "and follows the horizon, though the memory does not reach it"]
    if n.judged.within_tolerance and not stays:
        return "undecided", [*reasons, "E stays within the tolerance at every beta given: give larger betas"]
    if bound == "<":
        return "undecided", [*reasons, "r lies below the first beta: give smaller betas"]
    if n.falling:
        return "undecided", [*reasons, "add wider models, until r or E(0) stays"]
    second = f"add the widest model on a second horizon, T = {n.next_horizon:g}"
    if part < LEAST_PART_OF_RATE:
        advice = "that is the models, not the memory: train longer, or take another activation or parameterisation"
        return "undecided", [*reasons, advice + ("" if a else f", or {second}")]
    if a is None:
        least = f"kappa >= {SURE * KAPPA:g}" if n.kappa < SURE * KAPPA else f"r >= {SURE * LEAST_PART_OF_RATE:g} of the rate"
        return "undecided", [*reasons, f"by one horizon alone it is stable from {least} on: {second}"]
    return "undecided", [*reasons, f"the radii at the horizons differ: take another one, T = {n.next_horizon:g}"]


def _of_slower_memory(n: _Evidence, memory: TargetMemory) -> tuple[Judgement, list[str]]:
    r, ratio, b, bound = n.judged.tolerance_radius(), n.ratio, n.memory_exponent, n.judged.radius_bound()
    law = {"slower": "like a power, or not at all", "between": "slower than exponentially"}[memory.law]
    known = memory.law == "slower" or memory.sure
    reasons = [
        f"the target's memory falls {law}"
        if known
        else f"how the target's memory ends cannot be told up to t = {memory.end:.3g}",
        f"R = {bound}{ratio:.3g} times the slowest rate seen, {n.seen(n.judged):.2g}",
    ]
    if b is not None:
        reasons.append(f"r ~ (slowest rate seen)^b with b = {b}")
    # One horizon cannot tell that r stays: a slow fall, T^-1/3 or T^-1/2, leaves R as large as it likes.
    one = len(n.series) < 2
    told = n.horizons_differ or r > SMALL or ratio >= IGNORES_MEMORY
    if not one and n.stays and told and ratio > FOLLOWS_MEMORY:
        return "stable", reasons
    # A bound that is large enough by itself needs no larger betas, but another horizon.
    enough = ratio >= IGNORES_MEMORY or (n.stays and ratio > FOLLOWS_MEMORY)
    if n.judged.within_tolerance and not enough:
        return "undecided", [*reasons, "E stays within the tolerance at every beta given: give larger betas"]
    # Of b over widths a small r needs no more: wider models differ in more than in the rates that they show.
    follows = b is not None and b.value >= FOLLOWS and r <= SMALL
    small = bound != ">" and ratio <= FOLLOWS_MEMORY and (follows or (r <= VERY_SMALL and not n.horizons_differ))
    falls = n.goes_on_falling and r <= SMALL
    if (small or falls) and n.seen(n.judged) > SMALL:
        return "undecided", [*reasons, "the models do not show the slow part of the memory: train longer or take wider models"]
    if small or falls:
        if known:
            return "unstable", reasons
        return "undecided", [*reasons, f"horizon too short to tell, take T >= {_rounded_up(n.next_horizon)}"]
    if bound == "<":
        return "undecided", [*reasons, "r lies below the first beta: give smaller betas"]
    if one:
        return "undecided", [*reasons, f"add the widest model on a second horizon, T = {n.next_horizon:g}"]
    third = f"train longer or take wider models, or a third horizon, T = {n.next_horizon:g}"
    if b is not None and b.falls:
        return "undecided", [*reasons, f"r falls with the rates seen, and may go on: {third}"]
    return "undecided", [*reasons, third]


def _rounded_up(value: float) -> str:
    """To two digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / unit * (1 - 1e-3)) * unit:g}"


def _still_falling(radii: Sequence[float], errors: Sequence[float]) -> bool:
    """Whether r falls at every width by more than its accuracy, to less than LEVELLED of the first, as the fit improves; over the
    widths that approximate the target."""
    good = [k for k, error in enumerate(errors) if error <= APPROXIMATED]
    radii, errors = [radii[k] for k in good], [errors[k] for k in good]
    if len(good) < 2:
        return False
    steps = all(after < (1 - RADIUS_ACCURACY) * before for before, after in zip(radii, radii[1:]))
    return steps and radii[-1] < LEVELLED * radii[0] and errors[-1] < IMPROVED * errors[0]
