"""The reference solver: every method of the installed torchdiffeq."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from targets import arguments

from ..fields import VectorField
from ..paths import Path
from .base import TIGHTEST, Grid, Solution, Solver, check_arguments, check_tolerances, diverged, empty_solution, solve_grid
from .comparison import compare_with_small_steps
from .first_order import FirstOrder
from .fused import TABLEAUX, Fused
from .numba.step_control import MAX_STEPS
from .resolution import judged_sequences, relative_distance, richardson, warn_if_inaccurate

# As the library orders them. It publishes no list, and takes SciPy's integrators with it when it is imported.
METHODS = (
    "dopri8",
    "dopri5",
    "bosh3",
    "fehlberg2",
    "adaptive_heun",
    "euler",
    "midpoint",
    "heun2",
    "heun3",
    "rk4",
    "explicit_adams",
    "implicit_adams",
    "fixed_adams",
    "scipy_solver",
)
# Of several steps, whose formulas hold for equal steps of one smooth input: they start anew, by rk4, in every interval.
_MULTISTEP = frozenset({"explicit_adams", "implicit_adams", "fixed_adams"})
_FIXED_STEP = frozenset({"euler", "midpoint", "heun2", "heun3", "rk4"}) | _MULTISTEP
# Steps that the explicit Adams method looks back on (torchdiffeq's max_order, less 1): up to torchdiffeq's own limit of 11 its
# formulas are stable for |rate| * step below 0.001 only, with 3 below 0.54.
_EXPLICIT_ADAMS_ORDER = 4
_SCIPY, _SCIPY_ORDER = "scipy_solver", 5  # SciPy's RK45


@dataclass(frozen=True)
class TorchDiffEq(Solver):
    """torchdiffeq's `odeint` and `odeint_adjoint`.

    No step straddles a breakpoint of the input. Fixed-step methods take one step per interval of the union of output times
    and breakpoints, or equal steps of at most `step_size` in each. The methods of Adams start by rk4 in each interval: without a
    `step_size` they are rk4.

    Adaptive methods keep the estimated error of each step below atol + rtol |h|, RMS over the states of the sequence that is
    worst off ('scipy_solver': over those of all sequences together). The error of the states is another: the errors of steps add
    up, grow where the dynamics are unstable, and escape the estimate where a step crosses a kink of an activation or a steep
    part of it.

    Args:
        method: one of `odernn.solvers.METHODS`.
        rtol, atol: tolerances of the adaptive methods for one step (and of the corrector of implicit_adams).
        adjoint: gradients by the continuous adjoint equation, integrated backwards from one output time to the one before
            (the state is reset to the forward solution there, because a stable system is unstable backwards); False:
            backpropagation through the solver's steps, exact for the discrete solution. 'scipy_solver' has only the adjoint.
            Only backpropagation has second derivatives, and gradients in the times.
        step_size: largest step of the fixed-step methods; None for the output grid itself.
        check: whether a fixed-step solve estimates its error (`Solution.error_estimate`) and warns where it is more than 1e-3,
            see `odernn.solvers.resolution`, and whether an adaptive one warns where its states are off by more than 100 times
            the tolerance of a step (of models of one layer, for rtol of 1e-8 and more); without, neither is told.

    Example:
        >>> import torch
        >>> from odernn import ContinuousRNN, TorchDiffEq
        >>> model = ContinuousRNN(1, 8, 1, "tanh", seed=0)
        >>> model(torch.zeros(2, 11, 1), torch.linspace(0, 1, 11), solver=TorchDiffEq("rk4", adjoint=False)).shape
        torch.Size([2, 11, 1])

    Source: Chen et al., Neural ordinary differential equations, NeurIPS 2018 [Chen2018].
    """

    method: str = "dopri5"
    rtol: float = 1e-6
    atol: float = 1e-8
    adjoint: bool = True
    step_size: float | None = None
    check: bool = field(default=True, repr=False)

    def __post_init__(self) -> None:
        arguments.choice("method", self.method, METHODS)
        for name in ("rtol", "atol"):
            arguments.number(name, getattr(self, name), above=0)
        if not isinstance(self.adjoint, bool):
            raise ValueError(f"adjoint is {self.adjoint!r}, expected True or False")
        if self.step_size is not None:
            arguments.number("step_size", self.step_size, above=0)
            if self.method not in _FIXED_STEP:
                raise ValueError(
                    f"step_size is for the fixed-step methods, got method {self.method!r}: set rtol and atol instead"
                )
        if self.method == _SCIPY and not self.adjoint:
            raise ValueError("method 'scipy_solver' runs outside autograd: use adjoint=True")

    @property
    def order(self) -> int:
        from torchdiffeq._impl.odeint import SOLVERS

        return _SCIPY_ORDER if self.method == _SCIPY else SOLVERS[self.method].order

    @property
    def tolerances(self) -> tuple[float, float]:
        return self.rtol, self.atol

    @property
    def transformable(self) -> bool:
        # The library's adaptive methods hold an autograd function that torch.func cannot transform.
        return not self.adjoint and self.method in _FIXED_STEP

    def unchecked(self) -> TorchDiffEq:
        return replace(self, check=False)

    def finer(self, dtype: torch.dtype) -> TorchDiffEq | None:
        if self.rtol <= max(TIGHTEST, 10 * torch.finfo(dtype).eps):
            return None
        return replace(self, rtol=self.rtol / 10, atol=self.atol / 10)

    def solve(self, field: VectorField, path: Path, t: Tensor, h0: Tensor) -> Solution:
        check_arguments(field, path, t, h0, differentiates_times=not self.adjoint)
        if self.method not in _FIXED_STEP:
            check_tolerances(self.rtol, self.atol, h0.dtype)
        if h0.shape[-2] == 0:
            return empty_solution(field, t, h0)
        grid = solve_grid(path, t)
        evaluations = 0
        reached, last_state = 0.0, h0
        first_order = FirstOrder() if self.adjoint and torch.is_grad_enabled() else None
        if first_order is not None:
            field, h0 = first_order.field(field), first_order.state(h0)
            grid = replace(grid, path=first_order.path(grid.path))

        def rate(s: Tensor, h: Tensor, path: Path = grid.path) -> Tensor:
            nonlocal evaluations, reached, last_state
            evaluations += 1
            reached, last_state = s.item(), h.detach()
            return field.at(grid.origin + s)(h, path(s))

        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", "Functional iteration did not converge", UserWarning)
                h = self._integrate(rate, grid.path, grid.times, h0, field.tensors)
        except (AssertionError, ValueError, UserWarning) as error:
            # torchdiffeq asserts on an underflowing step and on non-finite states; SciPy's solvers raise ValueError; and of a
            # corrector of implicit_adams that did not converge torchdiffeq only warns.
            reason = str(error).split(":")[0] or type(error).__name__
            raise diverged(field, grid.origin + reached, last_state, reason) from error
        h = h.movedim(0, -2)
        if first_order is not None and h.requires_grad:
            h = first_order.result(h)
        estimate = None
        if self.check and self.method in _FIXED_STEP:
            estimate = self._error_estimate(field, grid, h)
            step = float(grid.times.diff().min()) if self.step_size is None else self.step_size
            warn_if_inaccurate(self, estimate, h.dtype, f"step_size={step / 4:.3g}")
        elif self.check:
            compare_with_small_steps(self, field, path.start, grid, h, evaluations)
        return Solution(t, grid.outputs(h), evaluations, estimate)

    @torch.no_grad()
    def _error_estimate(self, field: VectorField, grid: Grid, h: Tensor) -> float:
        """Richardson's estimate on some sequences, see `odernn.solvers.resolution`; where there is a fused form, by that."""
        path, times = grid.path, grid.times.detach()
        steps = self._grid_constructor(None, h, times).detach()
        halves = torch.cat([steps, (steps[:-1] + steps[1:]) / 2]).sort().values
        h0 = h[..., 0, :]
        sequences = judged_sequences(path.start, path.end, h0)

        def judged(tensor: Tensor, axis: int) -> Tensor:
            return tensor if sequences is None else tensor.index_select(axis, sequences)

        path, h, h0 = replace(path.mapped(lambda x: judged(x, -3)), times=times), judged(h, -3), judged(h0, -2)
        solver: Solver = replace(self, method="rk4", step_size=None, adjoint=False, check=False)
        if Fused().supports(field):
            solver = Fused("rk4", check=False)
            if h.device.type == "cpu":
                precise = torch.float64 if h.dtype == torch.float64 else torch.float32
                field, path, h0 = field.mapped(lambda w: w.to(precise)), path.mapped(lambda x: x.to(precise)), h0.to(precise)
        finer = solver.solve(field, path, halves, h0).h
        finer = finer[..., torch.searchsorted(halves, times), :]
        return richardson(TABLEAUX["rk4"].order) * relative_distance(h, finer)

    def _integrate(
        self, rate: Callable[..., Tensor], path: Path, grid: Tensor, h0: Tensor, weights: tuple[Tensor, ...]
    ) -> Tensor:
        """h on the grid, (time, ..., batch, state)."""
        parameters = (*weights, path.start, path.end)
        one_by_one = self.method in _MULTISTEP and grid.numel() > 2
        if self.method in _FIXED_STEP and not one_by_one:
            return self._odeint(rate, h0, grid, self._fixed_options(path), parameters)
        if self.method not in (_SCIPY, *_MULTISTEP) and path.continuous:
            return self._odeint(rate, h0, grid, _adaptive_options(grid), parameters)
        # One solve per interval, for methods that cannot be told of jumps of the input in both directions of time, or of kinks.
        states = [h0]
        for k in range(grid.numel() - 1):
            piece = path.interval(k)
            parameters = (*weights, piece.start, piece.end)
            states.append(self._odeint(partial(rate, path=piece), states[-1], piece.times, self._options(piece), parameters)[-1])
        return torch.stack(states)

    def _options(self, path: Path) -> dict[str, Any]:
        if self.method == _SCIPY:
            return {}
        return self._fixed_options(path) if self.method in _FIXED_STEP else _adaptive_options(path.times)

    def _fixed_options(self, path: Path) -> dict[str, Any]:
        options: dict[str, Any] = {"grid_constructor": self._grid_constructor, "perturb": not path.continuous}
        if self.method == "explicit_adams":
            options["max_order"] = _EXPLICIT_ADAMS_ORDER
        return options

    def _odeint(
        self,
        rate: Callable[[Tensor, Tensor], Tensor],
        h0: Tensor,
        times: Tensor,
        options: dict[str, Any],
        parameters: tuple[Tensor, ...],
    ) -> Tensor:
        import torchdiffeq  # slow to import

        given: dict[str, Any] = {"rtol": self.rtol, "atol": self.atol, "method": self.method, "options": options}
        if not self.adjoint:
            return torchdiffeq.odeint(rate, h0, times, **given)
        given["adjoint_params"] = tuple(tensor for tensor in parameters if tensor.requires_grad)
        if self.method != _SCIPY:
            return torchdiffeq.odeint_adjoint(rate, h0, times, **given)
        # torchdiffeq hands SciPy's times back as tensors of the default dtype: in float32 they are too coarse for a tight
        # tolerance and the step size collapses. Its backward pass runs out of our reach, so that one takes dopri5.
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            return torchdiffeq.odeint_adjoint(rate, h0, times, **given, adjoint_method="dopri5", adjoint_options=_steps_of(times))
        finally:
            torch.set_default_dtype(default)

    def _grid_constructor(self, _rate: object, _h0: object, times: Tensor) -> Tensor:
        """Cuts each interval between the given times into equal steps of at most `step_size`."""
        if self.step_size is None:
            return times
        pieces = []
        for left, right in zip(times[:-1], times[1:]):
            # The tolerance keeps an interval of exactly n steps from being cut in n + 1 by rounding.
            length = abs(float((right - left).detach()))  # the adjoint runs from right to left
            steps = max(1, math.ceil(length / self.step_size - 1e-6))
            pieces.append(left + (right - left) / steps * torch.arange(steps, dtype=times.dtype, device=times.device))
        return torch.cat([*pieces, times[-1:]])


def _adaptive_options(times: Tensor) -> dict[str, Any]:
    return {**_steps_of(times), "norm": _worst_sequence}


def _steps_of(times: Tensor) -> dict[str, Any]:
    # Every output time ends a step: no step straddles a kink, and dopri8's dense output is far less accurate than its steps.
    return {"max_num_steps": MAX_STEPS, "step_t": times.double()}


def _worst_sequence(h: Tensor) -> Tensor:
    """RMS over the states of a sequence, of the worst: over all of a batch, a hundred at rest would hide one that is far off."""
    return h.square().mean(-1).max().sqrt()
