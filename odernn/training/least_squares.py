"""The objective of a training as a sum of squares, with the readout c eliminated, and the derivatives that Gauss-Newton takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..ensembles import replicate
from ..fields import VectorField
from ..losses import Loss
from ..models import Response, SequenceModel
from ..paths import Interpolation
from ..solvers import Adaptive, DivergedSolve, Fused, Solver, automatic
from .data import Data

# Directions of c whose states are smaller than this part of the largest are left out: rounding decides them.
_RANK = 1e-10
# Differences of the states: relative to the typical size of a weight, so that truncation and rounding are both about 1e-8.
_STEP = math.sqrt(torch.finfo(torch.float64).eps)
# Weights smaller than this are moved as if they were of this size: a weight that starts at 0 has no size of its own.
_SMALLEST = 1e-2
# Bytes of states that one ensemble of perturbed models takes.
_CHUNK_BYTES = 2**25
Product = Callable[[Tensor], Tensor]
# In place of `Adaptive`, whose steps jump from one perturbed model to the next.
_SMOOTH = Fused("rk4", substeps=2, check=False)


@dataclass(frozen=True)
class Point:
    """The objective at one point, by member of the ensemble (E members; 1 of a model without).

    Args:
        cost: (E,); inf where the solve diverged.
        c: the readout that minimises it at these weights, (E, output, m).
        basis: orthonormal columns (zeros for what is left out) that span the weighted states, (E G, N, m), in G groups of outputs
            that miss the same targets; None where c is given.
    """

    cost: Tensor
    c: Tensor
    basis: Tensor | None


class LeastSquares:
    """The objective of a training with the best readout for all other weights theta,

        min_c  sum_n w_n |y_n - c^T z_n(theta)|^2 + weight_decay (|U|^2 + |c|^2) + penalty,

    z being the states behind the readout: a linear least squares problem, so that only theta is searched (variable projection).
    The Jacobian in theta is that of the residuals at fixed c, projected off the states (Kaufman's form), by differences of
    perturbed models, which are one ensemble solve: any model, any solver. Its error of 1e-8 changes a step and not where steps
    lead, since gradients are those of the adjoint.

    Args:
        model: its weights are the point; with an ensemble, members are problems of their own.
        loss: a weighted mean of squares, one value per member.
        penalty: a square, one value per member; None for none.

    Source: Golub and Pereyra, SIAM J. Numer. Anal. 10 (1973) [GolubPereyra1973]; Kaufman, BIT 15 (1975) [Kaufman1975].
    """

    def __init__(
        self,
        model: SequenceModel,
        data: Data,
        loss: Loss,
        *,
        solver: Solver | None,
        interpolation: Interpolation,
        weight_decay: float,
        penalty: Callable[[], Tensor] | None,
    ) -> None:
        if data.y.shape[-1] != model.output_size:
            raise ValueError(
                f"the target has {data.y.shape[-1]} channels, the model {model.output_size} outputs: build it with "
                f"output_size={data.y.shape[-1]}"
            )
        if not model.c.numel():
            raise ValueError("optimizer 'lm' needs a readout that is linear in c, got your own: take 'lbfgs' or 'adam'")
        self.model, self.data, self.interpolation = model, data, interpolation
        self.solver = None if solver is None else solver.unchecked()
        self.penalty = penalty
        self.evaluations = 0
        self.members = math.prod(model.ensemble)
        self._loss, self._weight_decay = loss, weight_decay
        described = model.raw_weights()
        named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad and weight is not model.c}
        self._names, self.weights = list(named), list(named.values())
        self._sizes = [weight.numel() // self.members for weight in self.weights]
        decays = [weight_decay if described[name].decays else 0.0 for name in self._names]
        self.decay = torch.cat([model.c.new_full((size,), decay) for size, decay in zip(self._sizes, decays)])
        # Half the gradient at residuals of 1: the weights of the squares, whatever the loss calls them.
        ones = torch.ones_like(data.y).requires_grad_()
        self._root = (torch.autograd.grad(loss(ones, torch.zeros_like(ones), data.mask), ones)[0] / 2).sqrt()
        # Missing targets weigh 0 there, and count as 0 here. (What does not weigh must not be NaN either.)
        self._y = data.y if data.mask is None else torch.where(data.mask, data.y, 0.0)
        # Readouts of outputs that miss the same targets are one problem with several right sides, else a problem each.
        self._groups = 1 if bool((self._root == self._root[..., :1]).all()) else data.y.shape[-1]

    @property
    def theta(self) -> Tensor:
        """(E, p)."""
        return torch.cat([weight.detach().reshape(self.members, -1) for weight in self.weights], -1)

    @torch.no_grad()
    def move(self, theta: Tensor, c: Tensor | None = None) -> None:
        """Sets the model's weights."""
        for weight, part in zip(self.weights, theta.split(self._sizes, -1)):
            weight.copy_(part.reshape(weight.shape))
        if c is not None:
            self.model.c.copy_(c.reshape(self.model.c.shape))

    @torch.no_grad()
    def evaluate(self) -> Point:
        """The objective at the model's theta, for the best c."""
        c = self.model.c.detach().reshape(self.members, *self.model.c.shape[-2:])
        failed = Point(c.new_full((self.members,), math.inf), c, None)
        try:
            z = self._states()
        except DivergedSolve:
            return failed
        finite = torch.isfinite(z).flatten(1).all(-1)
        if not finite.any():
            return failed
        z = torch.where(finite[:, None, None, None], z, 0.0)
        root = self._root[..., : self._groups].movedim(-1, 0).unsqueeze(-1)  # (G, batch, time, 1)
        weighted = (root * z.unsqueeze(1)).flatten(0, 1).flatten(1, 2)  # (E G, N, m)
        y = self._by_group((self._root * self._y).flatten(0, 1).expand(self.members, -1, -1))
        basis = None
        if self.model.c.requires_grad:
            m = z.shape[-1]
            ridge = math.sqrt(self._weight_decay) * torch.eye(m).to(z).expand(len(weighted), m, m)
            Q, R = torch.linalg.qr(torch.cat([weighted, ridge], -2))
            left, sizes, right = torch.linalg.svd(R)
            kept = sizes > _RANK * sizes[:, :1].clamp_min(torch.finfo(z.dtype).tiny)
            basis = (Q @ left)[:, : weighted.shape[1]] * kept.unsqueeze(-2)
            scaled = (basis.mT @ y) / torch.where(kept, sizes, 1.0).unsqueeze(-1)
            c = (right.mT @ scaled).mT.reshape(c.shape)
        residual = y - weighted @ c.reshape(len(weighted), -1, c.shape[-1]).mT
        return Point(
            torch.where(finite, self._cost(residual.unflatten(0, (self.members, -1)).flatten(1, 2), c), math.inf), c, basis
        )

    @torch.no_grad()
    def confirmed(self, point: Point) -> Tensor:
        """The objective at the model's theta and the point's c by steps half as long, or a tolerance a tenth, (E,); that of the
        point itself where the solve has no steps."""
        finer = None if self.solver is None else self.solver.finer(point.cost.dtype)
        if finer is None:
            return point.cost
        try:
            z = self._states(finer.unchecked())
        except DivergedSolve:
            return torch.full_like(point.cost, math.inf)
        residual = self._root * (self._y - (z.flatten(1, 2) @ point.c.mT).unflatten(1, z.shape[1:3]))
        return self._cost(residual.flatten(1, 2), point.c)

    def gradient(self) -> Tensor:
        """Of the objective in theta at the model's theta and c, (E, p), by the adjoint of the solve."""
        response = self._respond(self.model)
        total = self._loss(response.y, self.data.y, self.data.mask).sum()
        if self.penalty is not None:
            total = total + self.penalty().sum()
        return self._collected(torch.autograd.grad(total, self.weights, allow_unused=True)) + 2 * self.decay * self.theta

    @torch.no_grad()
    def jacobian(self, basis: Tensor | None) -> Tensor:
        """Of the weighted residuals at fixed c, projected off the states, (E, N, p); for several outputs N counts all."""
        theta = self.theta
        step = self._steps(theta)
        parts = []
        for columns in torch.arange(theta.shape[-1]).split(self._chunk()):
            directions = torch.zeros(len(columns), *theta.shape).to(theta)
            directions[torch.arange(len(columns)), :, columns] = 1.0
            parts.append(self._differences(theta, step * directions) / step[:, columns].T[..., None, None])
        return self._projected(torch.cat(parts).movedim(0, -1), basis).flatten(1, 2)

    def products(self, basis: Tensor | None) -> tuple[Product, Product]:
        """v (E, p) -> J v, (E, N, output), and u -> J^T u, with J as in `jacobian`, at the weights of this moment."""
        theta = self.theta
        step, tiny = self._steps(theta), torch.finfo(theta.dtype).tiny
        here = replicate(self.model, 1)  # the model itself moves on
        weights = self._weights_of(here)
        response = self._respond(here)
        y = (self._root * response.y).reshape(self.members, -1, self._root.shape[-1])

        @torch.no_grad()
        def forwards(v: Tensor) -> Tensor:
            length = (step / v.abs().clamp_min(tiny)).amin(-1)  # no weight moves further than in `jacobian`
            moved = self._differences(theta, (length.unsqueeze(-1) * v).unsqueeze(0)).squeeze(0)
            return self._projected((moved / length[:, None, None]).unsqueeze(-1), basis).squeeze(-1)

        def backwards(u: Tensor) -> Tensor:
            self.evaluations += self.members * (response.solution.evaluations or 0)
            u = self._projected(u.unsqueeze(-1), basis).squeeze(-1)
            return self._collected(torch.autograd.grad(y, weights, u, retain_graph=True, allow_unused=True))

        return forwards, backwards

    def penalty_row(self) -> Tensor | None:
        """The gradient of the square root of the penalty in theta, (E, p); None where there is none."""
        if self.penalty is None:
            return None
        value = self.penalty()
        # The root has no derivative at 0, where the penalty asks for nothing.
        root = torch.where(value > 0, value, 1.0).sqrt()
        return self._collected(torch.autograd.grad(root.sum(), self.weights, allow_unused=True))

    def _cost(self, residual: Tensor, c: Tensor) -> Tensor:
        cost = residual.square().sum((-2, -1)) + self._weight_decay * c.square().sum((-2, -1))
        cost = cost + (self.decay * self.theta.square()).sum(-1)
        if self.penalty is not None:
            cost = cost + self.penalty().reshape(-1)
        return torch.where(torch.isfinite(cost), cost, math.inf)

    def _states(self, solver: Solver | None = None) -> Tensor:
        """z, (E, batch, time, m), y = c^T z."""
        field = self.model.field()
        response = self._respond(self.model, solver)
        m = field.c.shape[-1]
        eye = torch.eye(m).to(field.c)
        h = response.solution.h
        z = replace(field, c=eye).readout(h.flatten(-3, -2)).reshape(self.members, *response.y.shape[-3:-1], m)
        # sigma may be finite where a state is not: a unit that overflows is no good one.
        finite = torch.isfinite(h).reshape(self.members, -1).all(-1)
        return torch.where(finite[:, None, None, None], z, torch.nan)

    def _differences(self, theta: Tensor, moves: Tensor) -> Tensor:
        """Weighted y at theta + each of the moves, (n, E, p), minus y at theta: (n, E, N, output)."""
        n = moves.shape[0] + 1
        # theta itself among them: a solver whose steps are those of all members then makes no difference of its own.
        ensemble, moved = replicate(self.model, n), torch.cat([theta.unsqueeze(0), theta + moves])
        for weight, part in zip(self._weights_of(ensemble), moved.split(self._sizes, -1)):
            weight.copy_(part.reshape(weight.shape))
        response = self._respond(ensemble, self._difference_solver(ensemble.field()))
        y = (self._root * response.y).reshape(n, self.members, -1, self._root.shape[-1])
        return y[1:] - y[:1]

    def _weights_of(self, ensemble: SequenceModel) -> list[Tensor]:
        weights = dict(ensemble.named_parameters())
        return [weights[name] for name in self._names]

    def _respond(self, model: SequenceModel, solver: Solver | None = None) -> Response:
        solver, (t, x) = solver or self.solver, (self.data.t, self.data.x)
        response = model.respond(x, t, solver=solver, interpolation=self.interpolation, check=False)
        self.evaluations += math.prod(model.ensemble) * (response.solution.evaluations or 0)
        return response

    def _difference_solver(self, field: VectorField) -> Solver | None:
        if self.model.is_map:
            return None
        solver = self.solver or automatic(field, own_times=self.data.t.ndim == 2)
        return _SMOOTH if isinstance(solver, Adaptive) else solver

    def _projected(self, columns: Tensor, basis: Tensor | None) -> Tensor:
        """Columns (E, N, output, k) off the states, output by output."""
        if basis is None:
            return columns
        E, N, outputs, k = columns.shape
        flat = self._by_group(columns.flatten(2))
        flat = flat - basis @ (basis.mT @ flat)
        return flat.unflatten(0, (E, -1)).movedim(1, 2).reshape(E, N, outputs, k)

    def _by_group(self, columns: Tensor) -> Tensor:
        """(E, N, outputs ...) as (E G, N, ...), the columns of the outputs in a group."""
        return columns.unflatten(2, (self._groups, -1)).movedim(2, 1).flatten(0, 1)

    def _steps(self, theta: Tensor) -> Tensor:
        """(E, p): for every entry of a weight the typical size of its entries."""
        parts = theta.split(self._sizes, -1)
        typical = [part.square().mean(-1, keepdim=True).sqrt().expand_as(part) for part in parts]
        return _STEP * torch.cat(typical, -1).clamp_min(_SMALLEST)

    def _chunk(self) -> int:
        states = self.data.x.shape[0] * self.data.x.shape[1] * self.model.hidden_size * self.model.num_layers * self.members
        return max(1, _CHUNK_BYTES // (8 * states))

    def _collected(self, gradients: tuple[Tensor | None, ...]) -> Tensor:
        parts = [torch.zeros_like(weight) if g is None else g for weight, g in zip(self.weights, gradients)]
        return torch.cat([part.reshape(self.members, -1) for part in parts], -1)
