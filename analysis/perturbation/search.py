"""The search for the worst perturbation of a model, by ascent or by sampling ([IA] Def 3.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from odernn.citations import record
from odernn.ensembles import member, replicate
from odernn.models import SequenceModel
from odernn.norms import column
from odernn.paths import Interpolation
from odernn.progress import Progress
from odernn.solvers import DivergedSolve, Solver, own_default
from targets import arguments

from .balls import Ball, Point, concatenate, slowest_corner, take, where
from .curve import Array, PerturbationCurve
from .errors import ERRORS, Objective, Target, objective

Search = Literal["ascent", "sample"]
Norm = Literal["spectral", "max"]

# The radii of the published runs of trained models: 0 and 1e-3 2^{i/2}, i = 0 .. 20.
PUBLISHED_BETAS = (0.0, *(1e-3 * 2 ** (i / 2) for i in range(21)))
# Draws of the original protocol ([IA]), and restarts beside the slowest corner and the best draw.
DRAWS, RESTARTS = 30, 3
# Steps of one ascent, at most; most starts stop improving earlier.
STEPS = 20
# A step along which the error did not rise is halved so often before its start counts as finished.
_HALVINGS = 6
# Draws from which an ascent starts, beside the random restarts: the worst few seen at each beta.
_TOP_DRAWS = 2
# A start whose log-error rises by less than this in a step is finished.
_LEAST_GAIN = 1e-3


def perturbation_error(
    model: SequenceModel,
    target: Target,
    x: Tensor | None,
    t: Tensor | None,
    betas: Sequence[float] | Array | Tensor,
    *,
    search: Search = "ascent",
    blocks: str | Sequence[str] = "all",
    norm: Norm = "spectral",
    error: str = "mse",
    draws: int = DRAWS,
    restarts: int = RESTARTS,
    steps: int = STEPS,
    seed: int = 0,
    solver: Solver | str | None = None,
    interpolation: Interpolation = "linear",
    horizon: float | None = None,
    running_maximum: bool = True,
    mask: Tensor | None = None,
    progress: bool = True,
) -> PerturbationCurve:
    """The perturbation error of a model, from below:

        E_m(beta) = sup { |H - H_hat(.; theta~)| : |theta~ - theta|_2 <= beta },    |theta|_2 = max over blocks of their norms,

    over the trainable parameters (the raw w where l = f(w)). The norm of a block is the one that its weight declares
    (`SequenceModel.raw_weights`): the spectral norm of a matrix (W, P, A, U, c), the 2-norm of a vector (b), and the max-norm of
    the raw entries of a diagonal (w, omega), which is the spectral norm of diag(w).

    search='ascent' maximises log E over the product of balls by the linear-maximisation oracle of its gradient G,

        theta~ <- theta + beta LMO(G),   LMO = V_1 V_2^T (matrix G = V_1 S V_2^T), G / |G| (vector), sign G (diagonal),

    halving the way to the new point where the error did not rise, from several starts: the slowest corner (W + beta I, or the raw
    weights moved towards slower decay), the opposite one, `restarts` random points of the sphere, the worst of `draws` random
    draws, and at the end the worst points found at the neighbouring betas. All betas and starts are one ensemble. A maximum
    over what was tried is a lower bound of the supremum.

    search='sample' is the original protocol: gaussian noise on every block, scaled to norm beta, the largest error of `draws`.

    A model that diverges counts as inf. Perturbed models start, at t[0], from the rest state of the unperturbed one: the
    perturbation sets in with the input. (Their own rest state -W^-1 b has a pole where W is singular, and is none that h(-inf)
    = 0 leads to where W is unstable; on [0, T] both say more about b than about memory.)

    Args:
        model: one model (no ensemble axis).
        target: H: a functional or any function (x, t) -> y, or its values y (batch, time, output) for this x, NaN where one is
            missing.
        x: inputs, (batch, time, input); None for errors of kernels.
        t: times, (time,), or (batch, time) where every sequence has times of its own.
        betas: radii >= 0, increasing.
        search: 'ascent' or 'sample'.
        blocks: 'all', 'recurrent' (raw weights of the recurrent matrices), or names of parameters ("W", "c", "layers.0.U").
        norm: 'spectral' for the balls above; 'max' for the max-norm of every block, as the original code has it.
        error: 'mse'; 'relative_l2' |y - y_hat| / |y|; 'time_weighted' (the mse of w_k y_k); 'sup', the largest
            |y - y_hat| / |x|_inf over sequences and times; 'kernel_l1', the L1 distance of the kernels of a linear functional and
            a linear model, exact for all inputs at once; 'kernel_sobolev', that and sup |d/dt (H - H_hat)|, the norm of
            [IA] Def 3.7.
        draws, restarts, steps, seed: of the search. The same seed gives the same curve.
        solver: for all ensembles. None or 'auto': `Exact` where it applies, else rk4 (`Fused` where it takes the model) with
            steps short enough for the fastest perturbed rate and for E_m(0), which is that of a solve to tight tolerances, to
            1e-4 |H|.
        interpolation: of x between its samples, 'linear' or 'hold' (models in continuous time).
        horizon: for errors of kernels, T in place of t[-1]; may be inf.
        progress: whether a bar is shown, on a terminal and where it takes more than two seconds.
        running_maximum: report the maximum over beta' <= beta. E_m is non-decreasing by definition, a search need not be.
        mask: bool, (batch, time) or (batch, time, output): errors are over the targets where it is True.

    Raises:
        ValueError: betas that are negative or not increasing; weights, inputs or shapes that do not fit; unknown names.
        DivergedSolve: the unperturbed model diverges.

    Example:
        >>> from analysis import fit_kernel, perturbation_error
        >>> from targets import kernels
        >>> rho = kernels.exponential()
        >>> model = fit_kernel(rho, 2, horizon=30)
        >>> E = perturbation_error(model, rho, None, None, [0, 0.1, 0.5], error="kernel_l1", horizon=30)
        >>> bool((E.errors[1:] > E.errors[:-1]).all())
        True

    Source: [IA] Def 3.4; the oracle is the step of Frank and Wolfe (1956) [FrankWolfe1956] at full length.
    """
    record(perturbation_error)
    betas = _checked_betas(betas)
    _check_choices(model, search, norm, error)
    draws = arguments.count("draws", draws, least=1 if search == "sample" else 0)
    restarts, steps = arguments.count("restarts", restarts, least=0), arguments.count("steps", steps)
    generator = arguments.generator(seed)
    measured = objective(model, target, x, t, error, horizon, own_default(solver), interpolation, betas, mask)
    problem = _Problem(model, Ball.build(model, blocks, norm), measured)
    initial = measured.initial
    if initial is None:
        with torch.no_grad():
            initial = float(problem.values(*problem.centre()))
    best = _Best.at(problem, betas, initial)
    positive = torch.from_numpy(np.flatnonzero(betas > 0))
    rounds = 1 + 2 * (steps + 1) * (search == "ascent")
    with Progress("perturbation error", rounds, "rounds at most", shown=progress) as problem.bar:
        if len(positive):
            top = _sample(problem, best, positive, draws, generator)
            problem.bar.advance()
            if search == "ascent":
                _climb_from_starts(problem, best, positive, top, restarts, steps, generator)
    return _curve(problem, best, initial, search, running_maximum)


def _checked_betas(betas: Sequence[float] | Array | Tensor) -> Array:
    radii = np.atleast_1d(arguments.real_tensor("betas", betas, finite=False).detach().double().cpu().numpy())
    if radii.ndim != 1 or radii.size == 0:
        raise ValueError(f"betas must be a list of radii, got shape {radii.shape}")
    if not (np.isfinite(radii) & (radii >= 0)).all():
        bad = radii[~(np.isfinite(radii) & (radii >= 0))][0]
        raise ValueError(f"betas must be finite and >= 0, got {bad:g}: they are radii of balls of parameters")
    if (np.diff(radii) <= 0).any():
        k = int(np.argmax(np.diff(radii) <= 0))
        raise ValueError(f"betas must increase, got {radii[k]:g} before {radii[k + 1]:g}: sort them and drop repetitions")
    return radii


def _check_choices(model: SequenceModel, search: str, norm: str, error: str) -> None:
    arguments.choice("search", search, get_args(Search))
    arguments.choice("norm", norm, get_args(Norm))
    arguments.choice("error", error, ERRORS)
    arguments.instance("model", model, SequenceModel, "give a model of odernn")
    if model.ensemble:
        raise ValueError(f"perturbation_error takes one model, got an ensemble {model.ensemble}: take its members one by one")
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise ValueError(f"weight {name} holds {int((~torch.isfinite(weight)).sum())} NaN or infinite entries: train again")


class _Problem:
    """E at theta + beta d, for ensembles of directions d in the unit ball and betas."""

    def __init__(self, model: SequenceModel, ball: Ball, objective: Objective) -> None:
        self.model, self.ball, self.objective = model, ball, objective
        self.evaluations = 0
        self.bar = Progress("perturbation error", 1, "rounds")
        self._ensemble: SequenceModel | None = None

    def centre(self) -> tuple[Point, Tensor]:
        """One member at theta itself."""
        return {name: self.model.c.new_zeros(1, *shape) for name, shape in self.ball.shapes.items()}, self.model.c.new_zeros(1)

    def corner(self) -> Point:
        """The slowest corner, one member."""
        corner = slowest_corner(self.model, self.ball.norm)
        return {name: corner[name].unsqueeze(0) for name in self.ball.norms}

    def values(self, directions: Point, betas: Tensor) -> Tensor:
        """E, (n,), inf where it diverges; without gradients."""
        chunks = self._chunks(directions, betas, gradient=False)
        return torch.cat([self._solve(part, beta, gradient=False)[0] for part, beta in chunks])

    def ascend(self, directions: Point, betas: Tensor) -> tuple[Tensor, Point]:
        """E, (n,), and the maximiser over the unit ball of the gradient of log E, for every member."""
        return _joined([self._solve(part, beta, gradient=True) for part, beta in self._chunks(directions, betas, gradient=True)])

    def perturbed(self, directions: Point, betas: Tensor) -> SequenceModel:
        """The ensemble of models at theta + beta d."""
        n = len(betas)
        if self._ensemble is None or self._ensemble.ensemble != (n,):
            self._ensemble = replicate(self.model, n)
            for name, weight in self._ensemble.named_parameters():
                weight.requires_grad_(name in self.ball.norms)
        ensemble, theta = self._ensemble, dict(self.model.named_parameters())
        with torch.no_grad():
            for name, weight in ensemble.named_parameters():
                if name in directions:
                    weight.copy_(theta[name] + column(betas, weight) * directions[name])
        return ensemble

    def _chunks(self, directions: Point, betas: Tensor, gradient: bool) -> list[tuple[Point, Tensor]]:
        n, most = len(betas), self.objective.chunk(gradient)
        # Even chunks, so that the ensemble is rebuilt as seldom as can be.
        size = math.ceil(n / math.ceil(n / most))
        return [(take(directions, slice(k, k + size)), betas[k : k + size]) for k in range(0, n, size)]

    def _solve(self, directions: Point, betas: Tensor, gradient: bool) -> tuple[Tensor, Point]:
        """E, (n,), and what `ascend` gives beside it, or no block of that without `gradient`."""
        self.evaluations += len(betas)
        ensemble = self.perturbed(directions, betas)
        weights = {name: weight for name, weight in ensemble.named_parameters() if gradient and name in self.ball.norms}
        try:
            with torch.set_grad_enabled(gradient):
                error = self.objective.evaluate(ensemble)
                # Members do not touch one another, so the gradient of the sum holds each member's own.
                logs = error.clamp_min(torch.finfo(error.dtype).tiny).log().sum()
                gradients = torch.autograd.grad(logs, list(weights.values()), allow_unused=True) if gradient else ()
        except DivergedSolve:
            # An adaptive solver gives the whole ensemble up for one member: find it by halves.
            if len(betas) == 1:
                return torch.full_like(betas, math.inf), {name: torch.zeros_like(directions[name]) for name in weights}
            half = len(betas) // 2
            self.evaluations -= len(betas)
            halves = (slice(half), slice(half, None))
            return _joined([self._solve(take(directions, part), betas[part], gradient) for part in halves])
        named = {name: torch.zeros_like(weights[name]) if g is None else g for name, g in zip(weights, gradients)}
        error = error.detach()
        return torch.where(torch.isfinite(error), error, math.inf), self.ball.maximizer(named) if gradient else {}


def _joined(parts: Sequence[tuple[Tensor, Point]]) -> tuple[Tensor, Point]:
    return torch.cat([values for values, _ in parts]), concatenate([points for _, points in parts])


@dataclass
class _Best:
    """The worst case found so far for each beta.

    Args:
        betas: (K,).
        values: (K,).
        directions: (K, ...) in the unit ball.
    """

    betas: Tensor
    values: Tensor
    directions: Point

    @staticmethod
    def at(problem: _Problem, betas: Array, initial: float) -> _Best:
        centre, _ = problem.centre()
        like = problem.model.c
        values = torch.full((betas.size,), initial, dtype=like.dtype, device=like.device)
        directions = {name: part.repeat(betas.size, *(1,) * (part.ndim - 1)) for name, part in centre.items()}
        return _Best(torch.from_numpy(betas).to(like), values, directions)

    def offer(self, index: Tensor, values: Tensor, directions: Point) -> None:
        """Takes up candidates, (n,), for the betas of that index."""
        for k in index.unique().tolist():
            candidates = torch.nonzero(index == k).squeeze(-1)
            top = candidates[values[candidates].argmax()]
            if values[top] > self.values[k]:
                self.values[k] = values[top]
                for name, part in self.directions.items():
                    part[k] = directions[name][top]


def _sample(
    problem: _Problem, best: _Best, positive: Tensor, draws: int, generator: torch.Generator
) -> list[tuple[Tensor, Point]]:
    """Offers `draws` random points of the sphere at every beta > 0; the worst few of each, with the index of their beta."""
    if draws == 0:
        return []
    top = []
    index = positive.repeat_interleave(draws)
    most = max(1, problem.objective.chunk(gradient=False) // draws) * draws
    # Whole betas at a time, because the noise of all of them at once may not fit, but drawn one by one: the numbers must not
    # depend on how many fit.
    for part in index.split(most):
        directions = concatenate([problem.ball.draw(draws, problem.model.c, generator) for _ in range(len(part) // draws)])
        values = problem.values(directions, best.betas[part])
        best.offer(part, values, directions)
        ranks = values.reshape(-1, draws).argsort(dim=-1, descending=True)[:, :_TOP_DRAWS]
        chosen = (ranks + draws * torch.arange(len(ranks), device=ranks.device).unsqueeze(-1)).flatten()
        top.append((part[chosen.cpu()], take(directions, chosen)))
    return top


def _climb_from_starts(
    problem: _Problem,
    best: _Best,
    positive: Tensor,
    top: list[tuple[Tensor, Point]],
    restarts: int,
    steps: int,
    generator: torch.Generator,
) -> None:
    count = len(positive)
    corner = {name: part.expand(count, *part.shape[1:]) for name, part in problem.corner().items()}
    restart = problem.ball.draw(count * restarts, problem.model.c, generator)
    # A fit that hedges against its slowest corner may be worst at the fastest one.
    opposite = {name: -part for name, part in corner.items()}
    indices, starts = [positive, positive, positive.repeat(restarts)], [corner, opposite, restart]
    for index, directions in top:
        indices.append(index)
        starts.append(directions)
    _climb(problem, best, torch.cat(indices), concatenate(starts), steps)
    if count > 1:
        # What is worst in one ball is a good start in the next: the same direction at the next beta.
        neighbours = [take(best.directions, positive[:-1]), take(best.directions, positive[1:])]
        _climb(problem, best, torch.cat([positive[1:], positive[:-1]]), concatenate(neighbours), steps)


def _climb(problem: _Problem, best: _Best, index: Tensor, directions: Point, steps: int) -> None:
    """Ascends from every start until it stops rising, and offers the points seen.

    Args:
        index: the beta of each start, (n,).
        directions: (n, ...) in the unit ball.
    """
    values, oracles = problem.ascend(directions, best.betas[index])
    problem.bar.advance()
    best.offer(index, values, directions)
    fraction = torch.ones_like(values)
    for _ in range(steps):
        # A start that diverged has its answer, and so has every other start at that beta.
        going = (fraction > 2.0**-_HALVINGS) & torch.isfinite(best.values[index])
        if not going.any():
            return
        index, values, fraction = index[going], values[going], fraction[going]
        directions, oracles = take(directions, going), take(oracles, going)
        # Convex combinations stay in the ball.
        trial = {name: part + column(fraction, part) * (oracles[name] - part) for name, part in directions.items()}
        trial_values, trial_oracles = problem.ascend(trial, best.betas[index])
        problem.bar.advance(remark=f"{len(index)} starts still rise")
        best.offer(index, trial_values, trial)
        risen = trial_values > values
        small = trial_values < values * (1 + _LEAST_GAIN)
        directions, oracles = where(risen, trial, directions), where(risen, trial_oracles, oracles)
        # After a rise the next step is full again, unless the rise was too small to go on.
        fraction = torch.where(risen, torch.where(small, torch.zeros_like(fraction), torch.ones_like(fraction)), fraction / 2)
        values = torch.where(risen, trial_values, values)


def _curve(problem: _Problem, best: _Best, initial: float, search: str, running_maximum: bool) -> PerturbationCurve:
    model, objective = problem.model, problem.objective
    searched = best.values.double().cpu().numpy()
    errors, directions, betas = searched, best.directions, best.betas
    if running_maximum:
        errors = np.maximum.accumulate(searched)
        source = torch.from_numpy(np.maximum.accumulate(np.where(searched >= errors, np.arange(searched.size), 0)))
        # The worst case within beta may lie in a smaller ball.
        directions, betas = take(directions, source), betas[source]
    worst = member(replicate(problem.perturbed(directions, betas), 1), 0)
    for weight in worst.parameters():
        weight.requires_grad_(False)
    return PerturbationCurve(
        betas=best.betas.double().cpu().numpy(),
        errors=errors,
        searched=searched,
        initial=initial,
        scale=objective.scale,
        power=ERRORS[objective.error],
        hidden_size=model.hidden_size,
        horizon=objective.horizon,
        error=objective.error,
        search=search,
        norm=problem.ball.norm,
        blocks=tuple(problem.ball.norms),
        block_choice=problem.ball.choice,
        worst_case=worst,
        evaluations=problem.evaluations,
        model=model.config(),
    )
