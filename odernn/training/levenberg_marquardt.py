"""Levenberg-Marquardt for trainings whose loss is a mean of squares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ..citations import record
from ..solvers import DivergedSolve
from .least_squares import LeastSquares, Point

# Why a member's search ended, as its state holds it; 0 while it goes on.
STOPS = ("", "optimum", "stalled", "diverged")
# A Jacobian of up to so many entries is formed; larger problems take products with it.
DENSE_ENTRIES = 2**25
# Damping relative to the diagonal of J^T J: at the start, and where no step helps any more.
_DAMPING, _MOST_DAMPING, _LEAST_DAMPING = 1e-3, 1e10, 1e-11
# A step is taken if the loss falls by this part of what the quadratic model promises.
_TAKEN = 1e-3
# A step, in units of the scale of its weights, is no longer than so many times the weights themselves.
_LONGEST = 1.0
# That scale is the curvature, and falls from step to step to no less than this part.
_KEPT = 0.2
# Gain ratios from here on say that the quadratic model holds, and longer steps are due.
_TRUSTED = 0.75
# At an optimum a step promises no more than this part of the loss.
_OPTIMUM = 1e-6
# Steps in a row that lower the loss by no more than _LITTLE make a stall: a valley so flat that its end is out of reach.
_LITTLE, _PATIENCE = 1e-3, 5
# Conjugate gradients: until the residual has fallen to this part, or so many products.
_CG_TOLERANCE, _CG_STEPS = 1e-3, 60
# Curvatures below this part of the largest count as this part.
_FLAT = 1e-14
# Random signs that estimate the diagonal of J^T J where J is not formed.
_PROBES = 8


class LevenbergMarquardt(torch.optim.Optimizer):
    """Steps (J^T J + l diag(J^T J)) d = -gradient / 2 with the damping l of every ensemble member by its own gain ratio.

    The damping falls after a step whose gain ratio, what the loss fell by over what the quadratic model promised, is near 1, and
    doubles ever faster after ones that fail (Nielsen's rule). A step takes one Jacobian and as many solves as it needs trials.

    Source: [Levenberg1944]; [Marquardt1963]; H. B. Nielsen, Damping parameter in Marquardt's method, IMM-REP-1999-05
    [Nielsen1999].
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        record(LevenbergMarquardt)
        super().__init__(list(parameters), {"lr": 1.0, "readout": "eliminated"})

    @property
    def stops(self) -> tuple[str, ...]:
        """Why each member ended; '' for those that go on."""
        reason = self._memory.get("reason")
        return ("",) if reason is None else tuple(STOPS[int(code)] for code in reason)

    @property
    def _memory(self) -> dict[str, Any]:
        return self.state[self.param_groups[0]["params"][0]]

    def begin(self, problem: LeastSquares) -> Point:
        """The objective where the search begins, with the best c for its weights.

        Raises:
            DivergedSolve: it is finite for no member.
        """
        point = problem.evaluate()
        finite = torch.isfinite(point.cost)
        if not finite.any():
            raise DivergedSolve("the loss is not finite where training begins: use a stable parameterization, or smaller weights")
        problem.move(problem.theta, point.c)
        if "damping" not in self._memory:
            one = torch.ones_like(point.cost)
            self._memory.update(damping=_DAMPING * one, growth=2 * one, little=0 * one, reason=0 * one)
        self._memory["reason"] = torch.where(finite, self._memory["reason"], float(STOPS.index("diverged")))
        return point

    def advance(self, problem: LeastSquares, point: Point) -> Point:
        """One step of every member that has not ended, from a point, at which the model stands, to the next."""
        memory = self._memory
        theta, half = problem.theta, -problem.gradient() / 2
        diagonal, solve = _curvature(problem, point, half)
        # Weights that lose their influence lose their scale step by step only: else they would run away.
        memory["scale"] = scale = torch.maximum(diagonal, _KEPT * memory.get("scale", diagonal))
        longest = _LONGEST**2 * (scale * theta.square()).sum(-1)
        # With finer steps of the solver the loss must fall, too: what their errors pretend is no fit.
        finer = torch.maximum(point.cost, problem.confirmed(point))
        reached, best = theta, point
        waiting = memory["reason"] == 0
        while waiting.any():
            damping = memory["damping"]
            move, promised = solve(damping, scale)
            length = (scale * move.square()).sum(-1)
            short = waiting & (length <= longest)
            problem.move(torch.where(short.unsqueeze(-1), theta + move, reached))
            trial = problem.evaluate() if short.any() else point
            fallen = point.cost - trial.cost
            gain = fallen / promised
            good = short & (gain > _TAKEN)
            if good.any():
                good &= problem.confirmed(trial) < finer
            failed = waiting & ~good
            reached, best = torch.where(good.unsqueeze(-1), theta + move, reached), _pick(good, trial, best)
            eased = damping * (1 - (2 * gain.clamp(max=1) - 1) ** 3).clamp_min(1 / 3)
            damping = torch.where(good, eased.clamp_min(_LEAST_DAMPING), torch.where(failed, damping * memory["growth"], damping))
            # Steps that are short because of a damping that is falling are on their way.
            little = (fallen <= _LITTLE * point.cost) & ~((gain > _TRUSTED) & (damping > _DAMPING))
            memory["little"] = torch.where(good, torch.where(little, memory["little"] + 1, 0.0), memory["little"])
            memory["growth"] = torch.where(good, 2.0, torch.where(failed, 2 * memory["growth"], memory["growth"]))
            optimum = short & (promised <= _OPTIMUM * point.cost) & (memory["damping"] <= 1)
            stalled = waiting & ((damping > _MOST_DAMPING) | (memory["little"] >= _PATIENCE))
            memory["damping"] = damping
            memory["reason"] = torch.where(optimum, 1.0, torch.where(stalled, 2.0, memory["reason"]))
            waiting = failed & (memory["reason"] == 0)
        problem.move(reached, best.c)
        return best


_Solve = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _curvature(problem: LeastSquares, point: Point, half: Tensor) -> tuple[Tensor, _Solve]:
    """The diagonal of J^T J (E, p); and damping (E,), its scale (E, p) -> the step (E, p) and the fall of the loss that the
    quadratic model promises of it (E,). `half` is -gradient / 2, (E, p)."""
    rows = point.cost.numel() * problem.data.y.numel()
    solve = _formed if rows * half.shape[-1] <= DENSE_ENTRIES else _by_products
    return solve(problem, point, half)


def _formed(problem: LeastSquares, point: Point, half: Tensor) -> tuple[Tensor, _Solve]:
    """By Cholesky factors of J^T J."""
    J = problem.jacobian(point.basis)
    A = J.mT @ J + torch.diag_embed(problem.decay.expand_as(half))
    row = problem.penalty_row()
    if row is not None:
        A = A + row.unsqueeze(-1) * row.unsqueeze(-2)

    def solve(damping: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        unit = scale.rsqrt()
        scaled = unit.unsqueeze(-1) * A * unit.unsqueeze(-2) + torch.diag_embed(damping.unsqueeze(-1).expand_as(half))
        factor, info = torch.linalg.cholesky_ex(scaled)
        move = unit * torch.cholesky_solve((unit * half).unsqueeze(-1), factor).squeeze(-1)
        # A matrix that rounding has left indefinite: no step, more damping.
        move = torch.where((info == 0).unsqueeze(-1), move, math.nan)
        return move, ((half + damping.unsqueeze(-1) * scale * move) * move).sum(-1)

    return _positive(A.diagonal(dim1=-2, dim2=-1)), solve


def _by_products(problem: LeastSquares, point: Point, half: Tensor) -> tuple[Tensor, _Solve]:
    """By preconditioned conjugate gradients."""
    forwards, backwards = problem.products(point.basis)
    row = problem.penalty_row()

    def times(v: Tensor) -> Tensor:
        result = backwards(forwards(v)) + problem.decay * v
        return result if row is None else result + row * (row * v).sum(-1, keepdim=True)

    # Of signs u: the mean of (J^T u)^2 is the diagonal.
    generator = torch.Generator().manual_seed(0)
    rows, outputs = problem.data.y.shape[:2].numel(), problem.data.y.shape[-1]
    shape = (_PROBES, half.shape[0], rows, outputs)
    signs = (2 * torch.randint(2, shape, generator=generator) - 1).to(half)
    diagonal = torch.stack([backwards(u).square() for u in signs]).mean(0) + problem.decay
    diagonal = _positive(diagonal if row is None else diagonal + row.square())

    def solve(damping: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        ridge = damping.unsqueeze(-1) * scale
        move, rest = torch.zeros_like(half), half
        direction = rest / (diagonal + ridge)
        size = first = (rest * direction).sum(-1, keepdim=True)
        for _ in range(_CG_STEPS):
            image = times(direction) + ridge * direction
            length = size / (direction * image).sum(-1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
            move, rest = move + length * direction, rest - length * image
            step = rest / (diagonal + ridge)
            size, before = (rest * step).sum(-1, keepdim=True), size
            if (size <= _CG_TOLERANCE**2 * first).all():
                break
            direction = step + size / before.clamp_min(torch.finfo(size.dtype).tiny) * direction
        # half - (A + ridge) move = rest: what the quadratic model says, wherever the iteration stopped.
        return move, ((half + rest + ridge * move) * move).sum(-1)

    return diagonal, solve


def _positive(diagonal: Tensor) -> Tensor:
    """Curvatures of weights that nothing depends on are 0: then no step is taken along them."""
    least = _FLAT * diagonal.amax(-1, keepdim=True)
    return diagonal.clamp_min(torch.finfo(diagonal.dtype).tiny).maximum(least)


def _pick(mask: Tensor, a: Point, b: Point) -> Point:
    """a where the mask of members says so, else b."""

    def pick(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(mask.reshape(-1, *(1,) * (x.ndim - 1)), x, y)

    basis = b.basis if a.basis is None else a.basis if b.basis is None else pick(a.basis, b.basis)
    return Point(pick(a.cost, b.cost), pick(a.c, b.c), basis)
