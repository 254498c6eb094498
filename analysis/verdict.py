"""A stated rule for stable approximation, in place of reading curves by eye."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import curve_sets
from .block_verdict import (
    APPROXIMATED,
    FOLLOWS_MEMORY,
    IGNORES_MEMORY,
    LEAST_PART_OF_RATE,
    LONGER,
    BlockVerdict,
    Judgement,
    judge_block,
)
from .perturbation import PerturbationCurve
from .results import Result
from .target_memory import TargetMemory, target_memory

__all__ = [
    "APPROXIMATED",
    "FOLLOWS_MEMORY",
    "IGNORES_MEMORY",
    "LEAST_PART_OF_RATE",
    "LONGER",
    "BlockVerdict",
    "Judgement",
    "Verdict",
    "judge_stable_approximation",
]


@dataclass(frozen=True, eq=False, repr=False)
class Verdict(Result):
    """The judgements of `judge_stable_approximation`, with the numbers they rest on.

    [IA] Def 3.4 perturbs all weights together, and that is what `definition` judges. The papers' argument for stable
    parameterisations is about the recurrent weights alone: `judgement`, and the fields below it that do not name a block, are of
    these.

    Args:
        judgement: of `block`: 'stable', 'unstable', 'not approximated' or 'undecided'.
        block: 'recurrent' where there are curves of it, else 'all', or the names of the perturbed weights.
        blocks: the judgement of every choice of blocks, each with its own exponent; empty in a verdict that an earlier version
            saved.
        beta0: the radius up to which the approximation is stable; None unless 'stable'.
        widths: m, increasing.
        horizon: T of the first horizon.
        initial_errors: E_m(0) / |H| at each width.
        improves: whether E_m(0) falls from the smallest to the largest width.
        radii: tolerance radius r at each width, by block ('recurrent', 'all', ...).
        radius_bounds: for each of them '<' or '>' where it is only known from that side, else ''.
        kappa: r(m_max) T by block.
        longer_horizon: the longest horizon, None where there is one alone.
        longer_radius: r(m_max) there.
        horizon_exponent: a in r ~ T^-a over the horizons.
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

    Example:
        >>> from analysis import judge_stable_approximation, linear_curves
        >>> from targets import kernels
        >>> rho = kernels.exponential(rate=0.1)
        >>> verdict = judge_stable_approximation(linear_curves(rho, "direct", widths=(2, 4), horizons=1), rho)
        >>> verdict.judgement, verdict.definition, sorted(verdict.blocks)
        ('stable', 'stable', ['all', 'recurrent'])
    """

    judgement: Judgement
    block: str
    blocks: dict[str, BlockVerdict]
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

    @property
    def definition(self) -> Judgement | None:
        """The judgement by [IA] Def 3.4, which perturbs all blocks; None where no curves of all blocks came."""
        return self.blocks["all"].judgement if "all" in self.blocks else None

    def __str__(self) -> str:
        """The judgements of all blocks, that of the definition first, then the reasons of each."""
        if not self.blocks:
            head = self.judgement if self.beta0 is None else f"{self.judgement} up to beta0 = {self.beta0:.3g}"
            return f"{head}: " + "; ".join(self.reasons)
        ordered = sorted(self.blocks.values(), key=lambda one: one.block != "all")
        if len(ordered) == 1:
            return str(ordered[0])
        return ", ".join(f"{one.judgement} ({one.block})" for one in ordered) + ". " + ". ".join(map(str, ordered))

    def kappa_text(self, block: str = "recurrent") -> str:
        """kappa in words, '<0.03' where it is only known from above."""
        return f"{self.radius_bounds[block][-1]}{self.kappa[block]:.3g}"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Verdict:
        """The verdict of `to_dict`; of an earlier version's, too, which judged one block."""
        main = next(iter(sorted(values.get("radii", ()), key=lambda block: (block != "recurrent", block != "all"))), "")
        return super().from_dict({"block": main, "blocks": {}, **values})


def judge_stable_approximation(curves: Sequence[PerturbationCurve], target: Any = None) -> Verdict:
    """Whether a family of models approximates a target stably, from perturbation curves over widths and horizons.

    A target is stably approximated if E_m(0) -> 0 and lim sup_m E_m(beta) stays continuous near beta = 0 ([IA] Def 3.5). What
    can be seen of that at finite m and T: r(m), the largest beta with E_m(beta) <= |H| / 2, must not fall to 0 as m and T grow.
    The definition perturbs all weights, the papers' argument is about the recurrent ones: every choice of blocks that has curves
    is judged by itself.

    A finite T and a finite accuracy show the target's memory M(t) only up to a time t*: T, or that beyond which M holds less than
    the model's error. With

        l* = slowest decay rate of M seen, at t*,    R = r / l*,    kappa = r T,

    at the largest width and the longest horizon, with a in r ~ T^-a and b in r ~ l*^b over the horizons (b over the widths, where
    l* varies only there), each by least squares with its standard error s, the rule is:

    1. E_{m_max}(0) > 0.1 |H|: *not approximated*.
    2. M is not known: *undecided*. Whether T was long enough cannot be told from the curves: those of e^{-0.003 t} and
       (1+t)^-1.1 look alike on [0, 1000].
    3. M ends like e^{-lt}. T must hold 30 time constants 1/l, and the model must show that part (l* <= 2 l), or else
       *undecided*: "horizon too short, take T >= ...", or a more accurate model. *stable* if r has levelled off with m and
       either stays over the horizons (a + 2 s <= 0.2; kappa >= 10, or r >= 0.03 l), or, by one horizon that is long enough, is
       beyond both cuts by a factor 2 (kappa >= 20 and r >= 0.06 l). *unstable* if r follows two such horizons (a - 2 s >= 0.5)
       and is below both cuts by a factor 2. Else *undecided*.
    4. M is slower than that. *unstable* if R <= 3.25, half of the cut at 6.5, and r follows l* (r <= 0.1 and b >= 0.5, or
       r <= 0.02 where no two horizons tell b) down to l* <= 0.1; or if r falls with l* at each of three horizons or more
       (b - 2 s > 0.2): slower parts of the memory, which longer horizons and better fits show, leave less and less. *stable* if
       there are two horizons or more, r does not follow l* (b + 2 s <= 0.2; from widths alone only where r > 0.1 or R >= 13),
       and R > 3.25. Else *undecided*. Where the law of M cannot be told, nothing is *unstable*.
    5. 'stable' from curves that were only sampled is *undecided*; and so it is of all blocks where M is slower than exponential:
       r <= sqrt(|H| l* / 2) there (`analysis.linear.all_blocks`), and a radius that stays has not met that bound.

    Why. A model that is accurate on a slow tail needs a mode about as slow as the tail. Where a perturbation moves that mode's
    rate itself, by beta, the model fails from beta ~ l* on: R is of order 1, whatever the memory. Then the memory decides: if it
    is exponential, l* stays at l and r with it; if it is slower, l* falls for ever and so does r. Where the parameterisation
    protects the rate, r need not depend on l*: but input and readout weights are perturbed, too, and a rotation of the basis, and
    then r falls, more slowly than 1/T (`analysis.linear.all_blocks`). R is large there, and grows with T. So l* tells which part
    of the memory the models were tried on, and r against l* over several horizons whether they follow it; on a short horizon
    every memory looks endless. A search gives E_m from below, so r from above: sampling may overlook instability but cannot
    invent it. A radius that the betas do not enclose counts with the side that is known. The crossing of consecutive widths is
    reported for the picture. It tends to 0 for stable families too, since E_m(0) does.

    docs/held_out/verdict.md has its verdicts on targets drawn anew.

    It cannot see a memory that changes its law beyond 1e4 T (100 T for nonlinear functionals, 4 T for black boxes), where it is
    no longer followed.

    Args:
        curves: one for each width, horizon and choice of blocks, with the same error, norm and betas that reach past r; at
            least two widths at the shortest horizon, and the largest of them at the longer ones if there are any.
        target: what the models learnt, a kernel, a functional or its `TargetMemory`; not needed where the curves have it.

    Raises:
        ValueError: curves that do not make such a set.

    Example:
        >>> from analysis import judge_stable_approximation, linear_curves
        >>> from targets import kernels
        >>> rho = kernels.exponential(rate=0.1)
        >>> judge_stable_approximation(linear_curves(rho, "direct", widths=(2, 4), horizons=1), rho).judgement
        'stable'
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
    memory = _memory(curves, target, T)
    at_T = {block: list(curves_of.values()) for (horizon, block), curves_of in groups.items() if horizon == T}
    judged = {}
    for block, mine in at_T.items():
        if len(mine) > 1:
            widest = mine[-1].hidden_size
            longer = [groups.get((horizon, block), {}).get(widest) for horizon in horizons[1:] if math.isfinite(horizon)]
            judged[block] = judge_block(block, mine, [curve for curve in longer if curve is not None], memory)
    one = judged[main]
    radii = {block: tuple(curve.tolerance_radius() for curve in mine) for block, mine in at_T.items()}
    initial = tuple(curve.relative_initial for curve in family.values())
    return Verdict(
        judgement=one.judgement,
        block=main,
        blocks=judged,
        beta0=one.beta0,
        widths=widths,
        horizon=T,
        initial_errors=initial,
        improves=initial[-1] < initial[0],
        radii=radii,
        radius_bounds={block: tuple(curve.radius_bound() for curve in mine) for block, mine in at_T.items()},
        kappa={block: values[-1] * T for block, values in radii.items()},
        longer_horizon=one.horizons[-1] if one.horizons[1:] else None,
        longer_radius=one.radii[-1] if one.horizons[1:] else None,
        horizon_exponent=one.horizon_exponent,
        memory_law=memory.law if memory else None,
        memory_rate=memory.slowest_rate if memory else None,
        needed_horizon=memory.needed_horizon() if memory else None,
        memory_ratio=one.memory_ratio,
        memory_exponent=one.memory_exponent,
        still_falling=one.still_falling,
        crossings={block: curve_sets.crossings(mine) for block, mine in at_T.items()},
        sampled=one.sampled,
        reasons=one.reasons,
    )


def _memory(curves: Sequence[PerturbationCurve], target: Any, horizon: float) -> TargetMemory | None:
    if target is None:
        return next((curve.target_memory for curve in curves if curve.target_memory is not None), None)
    return target if isinstance(target, TargetMemory) else target_memory(target, horizon)
