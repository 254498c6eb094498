"""Probes of the continuous models of odernn."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from odernn import SequenceModel, Solver
from odernn.paths import heaviside
from odernn.readouts import readout_along
from odernn.solvers import automatic
from odernn.solvers.base import check_finite

from .base import MAX_DOUBLINGS, Probe, ProbedSystem, ProbeResponse, with_zero_input

# Tolerances (rtol, atol) that leave some 25 e-foldings of a memory function above the solver's error in float64, and are the
# tightest that dopri5's step control bears in float32.
TIGHT = {torch.float64: (1e-10, 1e-12), torch.float32: (1e-5, 1e-7)}
# For the search of the maximiser only; its result is computed again at the tolerances above.
LOOSE = {torch.float64: (1e-5, 1e-7), torch.float32: (1e-4, 1e-6)}
# A state under a held input counts as settled when dh/dt has fallen by this factor.
_SETTLED = 1e-9
# A settled state this close to the solution of W h + U x + b = 0 (relative to its size) is that solution.
_SNAP = 1e-4


class ContinuousSystem(ProbedSystem):
    """dh/dt = F(h, x): time derivatives from the right-hand side, without finite differences.

    The state at t = 0 is the zero-input rest state W h + b = 0 (0 where there is none), after `warmup` units of time without
    input.

    heaviside: dy/dt at (h(t), F(h(t), x)); at t = 0 the derivative right after the jump of the input.
    impulse: the state jumps by one unit of time of the derivative that x sets in at rest,

            h(0+) = h_rest + F(h_rest, x) - F(h_rest, 0),

        and runs on without input. This is U x, the Dirac impulse, where F is linear in x. A Dirac impulse itself would not move
        an RNN whose sigma is bounded; the papers' impulse "x at the first step only" of the Euler-stepped model with Dt = 1
        makes this jump.
    reversed: from the state settled under x; then no input. If F is linear, that state solves W h + U x + b = 0; otherwise x is
        held until dh/dt has fallen 1e9-fold, or for the time `hold`. What is left of dy/dt counts as numerical error.
    """

    def __init__(self, model: SequenceModel, times: Tensor, warmup: float, hold: float | None, solver: Solver | None) -> None:
        self.name = type(model).__name__
        self.input_size, self.ensemble = model.input_size, model.ensemble
        self.dtype, self.device = model.c.dtype, model.c.device
        # of a copy without gradients: backpropagation reaches the inputs only
        self._field = copy.deepcopy(model).requires_grad_(False).eval().field()
        self.linear = self._field.affine
        self._hold, self._warmup = hold, warmup
        # in double precision whatever the model's: the steps between large times are differences of close numbers
        self._times = times.to(self.device, torch.float64)
        # the step is at t = 0, whatever the first time; a solve needs two times
        after = self._times[self._times >= 0]
        origin = self._times.new_zeros(1)
        self._grid = torch.cat([origin, after]).unique()
        if self._grid.numel() < 2:
            self._grid = torch.cat([origin, origin + 1])
        self._positions = torch.searchsorted(self._grid, after)
        self._solver = solver
        if warmup and not self._field.autonomous:
            raise ValueError("warmup runs the model before t = 0, and its field depends on t: leave it out")
        self._start = self._rest()

    def respond(self, x: Tensor, probe: Probe, *, fast: bool = False) -> ProbeResponse:
        if probe == "reversed" and not self._field.autonomous:
            raise ValueError("the reversed probe holds x before t = 0, and the field depends on t: take 'heaviside' or 'impulse'")
        solver = self._solver or self._default_solver(LOOSE if fast else TIGHT)
        x = with_zero_input(x)
        h0 = self._start.unsqueeze(-2).expand(*self.ensemble, x.shape[-2], -1)
        driving, unsettled = torch.zeros_like(x), x.new_zeros(x.shape[:-1])
        if probe == "heaviside":
            driving = x
        elif probe == "impulse":
            h0 = h0 + self._field(h0, x) - self._field(h0, torch.zeros_like(x))
        else:
            h0, unsettled = self._settle(h0, x, solver)
        h = self._states(h0, driving, self._grid, solver)
        if probe == "impulse":
            y = readout_along(self._field, h)
        else:
            flat = h.flatten(-3, -2)
            y = self._field.readout_derivative(flat, self._along(h, driving)).unflatten(-2, h.shape[-3:-1])
        values = (y[..., :-1, :, :] - y[..., -1:, :, :])[..., self._positions, :]
        before = self._times.numel() - values.shape[-2]
        values = nn.functional.pad(values, (0, 0, before, 0))
        error = self._error(h[..., :-1, :, :].detach(), driving[..., :-1, :].detach(), solver, probe) + unsettled[..., :-1]
        return ProbeResponse(values, error, math.prod(x.shape[:-1]))

    def _along(self, h: Tensor, x: Tensor) -> Tensor:
        """dh/dt along the grid under the constant input x, (*ensemble, batch * time, state)."""
        if not self._field.autonomous:
            slopes = [self._field.at(s)(state, x) for s, state in zip(self._grid, h.unbind(-2))]
            return torch.stack(slopes, -2).flatten(-3, -2)
        along = x.unsqueeze(-2).expand(*x.shape[:-1], h.shape[-2], -1).flatten(-3, -2)
        return self._field(h.flatten(-3, -2), along)

    def _default_solver(self, tolerances: dict[torch.dtype, tuple[float, float]]) -> Solver:
        return automatic(self._field, *tolerances.get(self.dtype, tolerances[torch.float32])).unchecked()

    def _states(self, h0: Tensor, x: Tensor, grid: Tensor, solver: Solver) -> Tensor:
        """h along the grid under the constant input x, (*ensemble, batch, time, state)."""
        solution = solver.solve(self._field, heaviside(grid, x), grid, h0)
        if solution.failure:
            check_finite(solution, self._field)  # a state that overflows is not refused: its memory is infinite
        return solution.h

    def _rest(self) -> Tensor:
        h = self._field.rest_state()
        h = h.expand(*self.ensemble, h.shape[-1])
        if not torch.isfinite(h).all():
            if any(layer.b is not None and layer.b.any() for layer in self._field.layers) and not self._warmup:
                raise ValueError(
                    "the model has no rest state (W is singular and b is not 0): give warmup, the time for which it runs without "
                    "input from h = 0 before the probe sets in"
                )
            h = torch.zeros_like(h)
        if not self._warmup:
            return h
        x = h.new_zeros(*self.ensemble, 1, self.input_size)
        grid = self._times.new_tensor([0.0, self._warmup])
        return self._states(h.unsqueeze(-2), x, grid, self._solver or self._default_solver(TIGHT))[..., 0, -1, :]

    def _settle(self, h: Tensor, x: Tensor, solver: Solver) -> tuple[Tensor, Tensor]:
        """The state that x, held long before t = 0, leads to, and the size of dy/dt left there, (*ensemble, batch)."""
        steady = self._field.steady_state(x)
        if self.linear and torch.isfinite(steady).all():
            return steady, x.new_zeros(x.shape[:-1])
        h, near, left = self._held(h, x, steady, solver)
        # a state that was integrated, and not solved for, counts as fixed in the search for a maximiser
        return torch.where(near.unsqueeze(-1), steady.nan_to_num(), h), left

    @torch.no_grad()
    def _held(self, h: Tensor, x: Tensor, steady: Tensor, solver: Solver) -> tuple[Tensor, Tensor, Tensor]:
        """The state after x was held, whether it is `steady`, and the size of dy/dt left (0 there)."""
        first = torch.linalg.vector_norm(self._field(h, x), dim=-1)
        hold = float(self._grid[-1]) if self._hold is None else self._hold
        for _ in range(1 + (MAX_DOUBLINGS if self._hold is None else 0)):
            h = self._states(h, x, self._grid.new_tensor([0.0, hold]), solver)[..., -1, :]
            derivative = self._field(h, x)
            near = torch.linalg.vector_norm(h - steady, dim=-1) <= _SNAP * (1 + torch.linalg.vector_norm(steady, dim=-1))
            still = torch.linalg.vector_norm(derivative, dim=-1) <= _SETTLED * first
            if (near | still).all():
                break
            hold *= 2
        left = torch.linalg.vector_norm(self._field.readout_derivative(h, derivative), dim=-1)
        return h, near, torch.where(near, torch.zeros_like(left), left)

    def _error(self, h: Tensor, x: Tensor, solver: Solver, probe: Probe) -> Tensor:
        """Rounding of dy/dt, or of y for the impulse, and the solver's tolerance carried through them."""
        rtol, absolute = solver.tolerances
        relative = torch.finfo(self.dtype).eps + rtol
        if probe == "impulse":
            error = self._field.readout_error(h, relative, absolute)
        else:
            error = self._field.derivative_error(h, x, relative, absolute)
        return torch.linalg.vector_norm(error, dim=-1)
