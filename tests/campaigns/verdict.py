"""Verdicts on stable approximation of targets drawn anew: right, undecided or wrong.

The rule's cuts were tuned on four of these kinds (e^-lt, tempered power, power, stretched), with other parameters and seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.families import Family, judge_family
from analysis.linear.curves import linear_curves
from analysis.verdict import LONGER, BlockVerdict, judge_stable_approximation
from odernn.solvers import DivergedSolve
from targets import ConvolutionalFunctional, Kernel, kernels

from .campaign import Outcomes

# Words that tell what to do; every 'undecided' must have one of them.
ADVICE = ("take T >= ", "add ", "train longer", "give larger betas", "give smaller betas", "take another", "or a third horizon")
PARAMETERIZATIONS = ("direct", "exp", "softplus", "inverse")
LINEAR_HORIZONS = (400.0, 1000.0, 2000.0)


@dataclass(frozen=True)
class Target:
    """A kernel and what the theory says of it: exponentially decaying memory is stably approximated by every parameterisation;
    slower memory by stable ones alone when the recurrent block is perturbed ([IA] Thm 3.9), and by none when all blocks are
    (`analysis.linear.all_blocks`)."""

    kernel: Kernel
    label: str
    exponential: bool

    def truth(self, parameterization: str, block: str = "recurrent") -> str:
        return "stable" if self.exponential or (block == "recurrent" and parameterization != "direct") else "unstable"


def _target(label: str, exponential: bool, rho: Callable[[np.ndarray], np.ndarray]) -> Target:
    return Target(kernels.from_callable(rho, name=label), label, exponential)


def draw_target(kind: str, generator: np.random.Generator, horizon: float) -> Target:
    """A random target of a kind; rates from 3/T to 1000/T."""
    rate = float(np.exp(generator.uniform(np.log(3 / horizon), np.log(min(1000 / horizon, 2.0)))))
    if kind == "e^-lt":
        return _target(f"e^-{rate:.3g}t", True, lambda t: np.exp(-rate * t))
    if kind == "t^k e^-lt":
        k = int(generator.integers(1, 4))
        return _target(f"t^{k} e^-{rate:.3g}t", True, lambda t: t**k * np.exp(-rate * t))
    if kind == "sum of exponentials":
        weight = float(np.exp(generator.uniform(np.log(1e-3), np.log(0.5))))
        return _target(f"e^-t + {weight:.2g} e^-{rate:.3g}t", True, lambda t: np.exp(-t) + weight * np.exp(-rate * t))
    p = float(generator.uniform(0.6, 3.0))
    if kind == "tempered power":
        return _target(f"(1+t)^-{p:.2f} e^-{rate:.3g}t", True, lambda t: (1 + t) ** -p * np.exp(-rate * t))
    if kind == "power":
        scale = float(np.exp(generator.uniform(np.log(0.3), np.log(5.0))))
        return _target(f"(1+t/{scale:.2g})^-{p:.2f}", False, lambda t: (1 + t / scale) ** -p)
    power = float(generator.uniform(0.3, 0.8))
    return _target(f"e^-t^{power:.2f}", False, lambda t: np.exp(-(t**power)))


KINDS = ("e^-lt", "t^k e^-lt", "sum of exponentials", "tempered power", "power", "stretched")


def count(outcomes: Outcomes, row: str, verdict: BlockVerdict, truth: str, what: str) -> None:
    """One verdict against the theory."""
    said = verdict.judgement
    if said in ("undecided", "not approximated"):
        helpful = said != "undecided" or any(words in verdict.reasons[-1] for words in ADVICE)
        outcomes.count(row, said, None if helpful else f"{what}: without advice: {verdict}")
    else:
        outcomes.count(row, "right" if said == truth else "wrong", None if said == truth else f"{what}: {verdict}")


class Linear:
    """Linear models, four parameterisations, T = 400, 1000 or 2000: the recurrent block judged by one horizon and by two, all
    blocks by three."""

    name, full, short = "verdict", 40, 1

    def run(self, seed: int, size: int) -> Outcomes:
        outcomes = Outcomes()
        for kind in KINDS:
            generator = np.random.default_rng([seed, KINDS.index(kind)])
            for k in range(size):
                horizon = LINEAR_HORIZONS[k % len(LINEAR_HORIZONS)]
                target = draw_target(kind, generator, horizon)
                parameterization = PARAMETERIZATIONS[k % 2 and 1 + k // 2 % 3]
                curves = linear_curves(target.kernel, parameterization, widths=(2, 4, 8), horizon=horizon, horizons=3, seed=k)
                kept = "direct" if parameterization == "direct" else "stable parameterisations"
                for block, horizons in (("recurrent", 1), ("recurrent", 2), ("all", 3)):
                    part = [curve for curve in curves if curve.horizon < horizon * LONGER**horizons]
                    verdict = judge_stable_approximation(part).blocks[block]
                    what = f"{target.label}, {parameterization}, T = {horizon:g}, seed {k}"
                    row = f"{kind}, {kept}, {block}, {horizons} horizon{'s' * (horizons > 1)}"
                    count(outcomes, row, verdict, target.truth(parameterization, block), what)
        return outcomes


# The trained families, cheapest first; seeds are the size of the campaign.
TRAINED_TARGETS: tuple[Target, ...] = (
    Target(kernels.exponential(rate=0.05), "e^-0.05t", True),
    Target(kernels.polynomial(1.3), "(1+t)^-1.3", False),
    Target(kernels.exponential(rate=0.01), "e^-0.01t", True),
    Target(kernels.polynomial(2.0), "(1+t)^-2", False),
    _target("(1+t)^-1.1 e^-0.01t", True, lambda t: (1 + t) ** -1.1 * np.exp(-0.01 * t)),
    Target(kernels.from_callable(lambda t: t * np.exp(-t), name="t e^-t"), "t e^-t", True),
)
TRAINED: dict[str, dict[str, Any]] = {
    "dense": {"recurrence": "dense", "parameterization": "direct"},
    "symmetric softplus": {"recurrence": "symmetric", "parameterization": "softplus"},
}
FAMILY: dict[str, Any] = {"widths": (2, 4, 8), "steps": 100, "sequences": 12}
SEARCH: dict[str, Any] = {"betas": [0.0, *np.geomspace(3e-4, 0.5, 9).tolist()], "draws": 4, "restarts": 1, "steps": 5}


@dataclass(frozen=True)
class Trained:
    """Families trained on [0, T] and [0, 4T]; minutes each, so that the size counts families."""

    name: str
    full: int
    targets: tuple[Target, ...] = TRAINED_TARGETS
    kinds: tuple[str, ...] = tuple(TRAINED)
    activations: tuple[str, ...] = ("tanh", "hardtanh")
    horizon: float = 400.0
    short: int = 0

    def run(self, seed: int, size: int) -> Outcomes:
        outcomes = Outcomes()
        if size == 0:
            outcomes.skipped.append(f"trained families take minutes each: python -m tests.campaigns {self.name}")
        every = product(itertools.count(seed), self.targets, self.kinds, self.activations)
        for k, target, name, activation in itertools.islice(every, size):
            what, kind = f"{target.label}, {name}, {activation}, seed {k}", TRAINED[name]
            points = round(self.horizon) + 1
            family = Family(activation=activation, seed=k, horizon=self.horizon, points=points, **kind, **FAMILY)
            try:
                verdict = judge_family(family, ConvolutionalFunctional(target.kernel), **SEARCH)
            except DivergedSolve as error:
                outcomes.skipped.append(f"{what}: {error}")
                continue
            print(f"{what}: {verdict}", flush=True)
            for block, one in verdict.blocks.items():
                count(outcomes, f"{target.label}, {name}, {block}", one, target.truth(kind["parameterization"], block), what)
        return outcomes


def product(seeds: Iterator[int], *choices: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """All choices for one seed after another."""
    for seed in seeds:
        yield from ((seed, *rest) for rest in itertools.product(*choices))


# Targets that a cut at kappa = r T alone gets wrong there.
HARD = (
    Target(kernels.exponential(rate=0.02), "e^-0.02t", True),
    Target(kernels.polynomial(2.0), "(1+t)^-2", False),
    TRAINED_TARGETS[4],
)
CAMPAIGNS = (
    Linear(),
    Trained("verdict_trained", 24),
    Trained("verdict_trained_800", 9, HARD, ("dense",), ("tanh",), 800.0),
)
