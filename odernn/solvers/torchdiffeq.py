"""The reference solver: every method of the installed torchdiffeq."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torchdiffeq
from torch import Tensor
from torchdiffeq._impl.odeint import SOLVERS as _SOLVERS  # the library publishes no list of its methods

from ..fields import VectorField
from ..paths import Path
from .base import Solution, Solver, diverged, merged_grid

METHODS: tuple[str, ...] = tuple(_SOLVERS)
_FIXED_STEP = frozenset({"euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams", "fixed_adams"})
_SCIPY = "scipy_solver"
# Steps per output interval after which an adaptive solve counts as failed: a stiff W otherwise runs for hours.
MAX_STEPS = 10_000


@dataclass(frozen=True)
class TorchDiffEq(Solver):
    """torchdiffeq's `odeint` and `odeint_adjoint`.

    No step straddles a breakpoint of the input. Fixed-step methods take one step per interval of the union of output times
    and breakpoints, or equal steps of at most `step_size` in each. Adaptive methods keep to `rtol` and `atol`.

    Args:
        method: one of `odernn.solvers.METHODS`.
        rtol, atol: tolerances of the adaptive methods (and of the corrector of implicit_adams).
        adjoint: gradients by the continuous adjoint equation, integrated backwards from one output time to the one before
            (the state is reset to the forward solution there, because a stable system is unstable backwards); False:
            backpropagation through the solver's steps, exact for the discrete solution. 'scipy_solver' has only the adjoint.
        step_size: largest step of the fixed-step methods; None for the output grid itself.

    Source: Chen et al., Neural ordinary differential equations, NeurIPS 2018.
    """

    method: str = "dopri5"
    rtol: float = 1e-6
    atol: float = 1e-8
    adjoint: bool = True
    step_size: float | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"unknown torchdiffeq method {self.method!r}: choose one of {', '.join(METHODS)}")
        if not (self.rtol > 0 and self.atol > 0):
            raise ValueError(f"rtol and atol must be positive, got rtol={self.rtol}, atol={self.atol}")
        if self.step_size is not None:
            if not 0 < self.step_size < math.inf:
                raise ValueError(f"step_size must be positive and finite, got {self.step_size}")
            if self.method not in _FIXED_STEP:
                raise ValueError(
                    f"step_size is for the fixed-step methods, got method {self.method!r}: set rtol and atol instead"
                )
        if self.method == _SCIPY and not self.adjoint:
            raise ValueError("method 'scipy_solver' runs outside autograd: use adjoint=True")

    def solve(self, field: VectorField, path: Path, t: Tensor, h0: Tensor) -> Solution:
        path, grid, positions = merged_grid(path, t)
        evaluations = 0
        reached, last_state = float(t[0]), h0

        def rate(s: Tensor, h: Tensor, path: Path = path) -> Tensor:
            nonlocal evaluations, reached, last_state
            evaluations += 1
            reached, last_state = s.item(), h.detach()
            return field(h, path(s))

        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", "Functional iteration did not converge", UserWarning)
                h = self._integrate(rate, path, grid, h0, field.tensors)
        except (AssertionError, ValueError, UserWarning) as error:
            # torchdiffeq asserts on an underflowing step and on non-finite states; SciPy's solvers raise ValueError; and of a
            # corrector of implicit_adams that did not converge torchdiffeq only warns.
            raise diverged(field, reached, last_state, str(error).split(":")[0] or type(error).__name__) from error
        return Solution(t, h[positions].movedim(0, -2), evaluations)

    def _integrate(
        self, rate: Callable[..., Tensor], path: Path, grid: Tensor, h0: Tensor, weights: tuple[Tensor, ...]
    ) -> Tensor:
        """h on the grid, (time, ..., batch, state)."""
        parameters = (*weights, path.start, path.end)
        if self.method in _FIXED_STEP:
            options = {"grid_constructor": self._grid_constructor, "perturb": not path.continuous}
            return self._odeint(rate, h0, grid, options, parameters)
        if self.method != _SCIPY and path.continuous:
            return self._odeint(rate, h0, grid, _adaptive_options(grid), parameters)
        # One solve per interval, for methods that cannot be told of jumps of the input in both directions of time.
        states = [h0]
        for k in range(grid.numel() - 1):
            piece = Path(grid[k : k + 2], path.start[..., k : k + 1, :], path.end[..., k : k + 1, :], True)
            options = {} if self.method == _SCIPY else _adaptive_options(piece.times)
            parameters = (*weights, piece.start, piece.end)
            states.append(self._odeint(partial(rate, path=piece), states[-1], piece.times, options, parameters)[-1])
        return torch.stack(states)

    def _odeint(
        self,
        rate: Callable[[Tensor, Tensor], Tensor],
        h0: Tensor,
        times: Tensor,
        options: dict[str, Any],
        parameters: tuple[Tensor, ...],
    ) -> Tensor:
        arguments: dict[str, Any] = {"rtol": self.rtol, "atol": self.atol, "method": self.method, "options": options}
        if not self.adjoint:
            return torchdiffeq.odeint(rate, h0, times, **arguments)
        arguments["adjoint_params"] = tuple(tensor for tensor in parameters if tensor.requires_grad)
        if self.method != _SCIPY:
            return torchdiffeq.odeint_adjoint(rate, h0, times, **arguments)
        # torchdiffeq hands SciPy's times back as tensors of the default dtype: in float32 they are too coarse for a tight
        # tolerance and the step size collapses. Its backward pass runs out of our reach, so that one takes dopri5.
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            return torchdiffeq.odeint_adjoint(
                rate, h0, times, **arguments, adjoint_method="dopri5", adjoint_options=_adaptive_options(times)
            )
        finally:
            torch.set_default_dtype(default)

    def _grid_constructor(self, _rate: object, _h0: Tensor, times: Tensor) -> Tensor:
        """Cuts each interval between the given times into equal steps of at most `step_size`."""
        if self.step_size is None:
            return times
        pieces = []
        for left, right in zip(times[:-1], times[1:]):
            # The tolerance keeps an interval of exactly n steps from being cut in n + 1 by rounding.
            steps = max(1, math.ceil(float((right - left).abs()) / self.step_size - 1e-6))
            pieces.append(left + (right - left) / steps * torch.arange(steps, dtype=times.dtype, device=times.device))
        return torch.cat([*pieces, times[-1:]])


def _adaptive_options(times: Tensor) -> dict[str, Any]:
    # Every output time ends a step: no step straddles a kink, and dopri8's dense output is far less accurate than its steps.
    return {"max_num_steps": MAX_STEPS, "step_t": times.double()}
