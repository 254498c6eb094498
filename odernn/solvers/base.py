"""Solvers and their solutions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..fields import VectorField
from ..paths import Path
from ..short_repr import short_repr

# The rtol of the solve that others are compared with: no smaller one is tried.
TIGHTEST = 1e-9


class DivergedSolve(ArithmeticError):
    """The state stopped being finite, or a step size underflowed.

    Example:
        >>> import torch
        >>> from odernn import ContinuousRNN, DivergedSolve
        >>> model = ContinuousRNN(1, 1, 1, "linear", seed=0)
        >>> model.set_matrix(torch.tensor([[100.0]]))
        >>> try:
        ...     model(torch.ones(1, 11, 1), torch.linspace(0, 10, 11), h0="zero")
        ... except DivergedSolve:
        ...     print("e^1000 is no float32")
        e^1000 is no float32
    """


@dataclass(frozen=True)
class Solution:
    """h at the requested times, with what it cost.

    Args:
        t: (time,), or (batch, time).
        h: (..., batch, time, state).
        evaluations: number of evaluations of the vector field (0 for a closed form); None where torch.compile, torch.export or
            torch.func traced the solve.
        error_estimate: of a fixed-step solve, see `odernn.solvers.resolution`; None where none was made (closed forms, adaptive
            steps, `check=False`).
        accepted, rejected: steps of `Adaptive`, of the sequences that needed most, as in `evaluations`; None for other solvers.
        failure: why the states are nan from some time on, where the solver knows.

    Example:
        >>> import torch
        >>> from odernn import ContinuousRNN, Fused, heaviside
        >>> model, t = ContinuousRNN(1, 4, 1, seed=0), torch.linspace(0, 1, 11)
        >>> model.solve(heaviside(t, torch.ones(1, 1)), t, solver=Fused("rk4")).h.shape
        torch.Size([1, 11, 4])
    """

    t: Tensor
    h: Tensor
    evaluations: int | None
    error_estimate: float | None = None
    accepted: int | None = None
    rejected: int | None = None
    failure: str | None = None

    __repr__ = short_repr


@dataclass(frozen=True)
class Solver(ABC):
    """A way to integrate dh/dt = F(h, x(t)); a value, free to share.

    A solver of your own is a subclass with `order` and `solve`:

        class Euler(Solver):
            order = 1

            def solve(self, field, path, t, h0):
                states = [h0]
                for left, right in zip(t[:-1], t[1:]):
                    states.append(states[-1] + (right - left) * field(states[-1], path(left)))
                return Solution(t, torch.stack(states, -2), evaluations=t.numel() - 1)

    Attributes:
        lean: whether backpropagation through a solve keeps little more than its states.

    Example:
        >>> from odernn import Adaptive, Exact, Fused, TorchDiffEq
        >>> [solver.order for solver in (Fused("midpoint"), Adaptive("bosh3"), TorchDiffEq("dopri5"))]
        [2, 3, 5]
    """

    lean: ClassVar[bool] = False

    @property
    @abstractmethod
    def order(self) -> float:
        """p, where the error of a solve falls as (step)^p; inf for a closed form."""

    @property
    def tolerances(self) -> tuple[float, float]:
        """rtol and atol, by which a step of an adaptive method may be off; 0 where a solver has none."""
        return 0.0, 0.0

    def supports(self, field: VectorField) -> bool:
        """Whether `solve` takes this field."""
        return True

    def takes_own_times(self, field: VectorField) -> bool:
        """Whether `solve` takes times of each sequence for this field, all at once; else `solve_sequences` goes one by one."""
        return False

    @property
    def transformable(self) -> bool:
        """Whether torch.func can transform a solve as it stands, because it is made of tensor operations: it has derivatives of
        any order, and in forward mode."""
        return False

    def memberwise(self, like: Tensor) -> bool:
        """Whether every member of an ensemble of such states is solved for itself, and on the CPU: some after the others then
        come to the very same numbers, in less memory."""
        return False

    def unchecked(self) -> Solver:
        """The solver without its own estimate of the error, for a caller who measures that."""
        return self

    def finer(self, dtype: torch.dtype) -> Solver | None:
        """The solver with half the steps or a tenth of the tolerance; None where nothing finer of its kind makes sense in that
        precision."""
        return None

    @abstractmethod
    def solve(self, field: VectorField, path: Path, t: Tensor, h0: Tensor) -> Solution:
        """h at times t from h(t[0]) = h0.

        Args:
            field: the vector field.
            path: the input, defined on all of [t[0], t[-1]].
            t: (time,), increasing; where `takes_own_times`, also (batch, time), which are the times of the path then.
            h0: (..., batch, state), with every leading axis of the weights.

        Raises:
            DivergedSolve: an adaptive step size underflowed. (A state that overflowed comes back as inf or nan, and from
                `Adaptive` one after an underflow as nan: `check_finite` is the judge of that.)
            ValueError: a field that this solver does not support, states or times that it cannot take; names the remedy.

        Warns:
            InaccurateSolve: fixed steps that do not resolve the input or the dynamics.
        """


def check_start(rest: Tensor) -> None:
    """Raises DivergedSolve unless there is this rest state, (..., state)."""
    if not torch.isfinite(rest).all():
        raise DivergedSolve(
            "there is no rest state to start from, because W is singular and b is not 0: give h0 ('zero', or a state), "
            "or leave b out"
        )


def check_finite(solution: Solution, field: VectorField) -> None:
    """Raises DivergedSolve, with where and why, unless every state is finite."""
    h = solution.h.detach()
    if torch.isfinite(h.sum()):  # one pass, without temporaries the size of h; a sum that overflows needs the closer look
        return
    finite = torch.isfinite(h).flatten(0, -3).all(0).all(-1)  # (time,)
    if finite.all():
        return
    first = int((~finite).nonzero()[0])
    reason = solution.failure or "the state is not finite"
    times = solution.t
    if times.ndim == 2:  # those of a sequence that diverged
        failed = ~torch.isfinite(h[..., first, :]).all(-1)
        times = times[int(failed.reshape(-1, len(times)).any(0).nonzero()[0])]
    raise diverged(field, float(times[first]), solution.h[..., max(first - 1, 0), :], reason)


def diverged(field: VectorField, time: float, last_state: Tensor, reason: str) -> DivergedSolve:
    """The error of a solve that failed, from the last state before."""
    with torch.no_grad():
        tensors_finite = all(torch.isfinite(tensor).all() for tensor in field.tensors)
        abscissa = f"{field.spectrum().real.max().item():.3g}" if tensors_finite else "unknown (weights are not finite)"
        size = last_state.abs().max().clamp_min(1)  # the squares of large states overflow
        norm = float(size * torch.linalg.vector_norm(last_state / size, dim=-1).max())
    return DivergedSolve(
        f"the solve diverged at t = {time:g} ({reason}; |h| = {norm:.3g} before, largest Re of the spectrum of "
        f"{field.spectrum_of} = {abscissa}): lower the learning rate, take smaller steps (or 'exact' where it applies), or use "
        "a stable parameterization"
    )


@dataclass(frozen=True)
class Grid:
    """The steps of a solve: the output times together with the breakpoints of the path between them.

    Args:
        times: (K + 1,) or (batch, K + 1), in double precision, counted from t[0]: so that the lengths of steps survive a float32
            model and a clock that reads 1.7e9.
        positions: of the output times in it, (time,); None where they are the whole grid.
        path: the path cut at these times.
        origin: t[0]; 0 of times of each sequence.
    """

    times: Tensor
    positions: Tensor | None
    path: Path
    origin: float

    def outputs(self, h: Tensor) -> Tensor:
        """h at the output times, of h (..., K + 1, state) on the grid."""
        return h if self.positions is None else h[..., self.positions, :]


def solve_grid(path: Path, t: Tensor) -> Grid:
    """The grid of a solve of this path at the output times t."""
    if t.ndim == 2:
        return Grid(t.double() - t[:, :1].double(), None, path, 0.0)
    origin = t[0].double()
    times, outputs = path.times.double() - origin, t.double() - origin
    path, start = replace(path, times=times), float(origin.detach())
    if times.shape == outputs.shape and torch.equal(times, outputs):  # the usual case, without a sort
        return Grid(outputs, None, path.on(outputs), start)
    inner = times[(times > outputs[0]) & (times < outputs[-1])]
    grid = torch.cat([outputs, inner]).unique()
    return Grid(grid, torch.searchsorted(grid.detach(), outputs.detach()), path.on(grid), start)


def check_arguments(field: VectorField, path: Path, t: Tensor, h0: Tensor, *, differentiates_times: bool = False) -> None:
    """Refuses what no solver takes.

    Raises:
        ValueError: a path or states that are not real floating-point numbers of the weights' kind, or times that ask for a
            gradient from a solver that has none in them.
    """
    weights = field.c
    if path.samples.dtype != weights.dtype or path.samples.device != weights.device:
        raise ValueError(
            f"the path is {path.samples.dtype} on {path.samples.device}, the weights are {weights.dtype} on {weights.device}: "
            "convert one (x.to(...), model.to(...))"
        )
    if not h0.dtype.is_floating_point or h0.dtype != weights.dtype or h0.device != weights.device:
        raise ValueError(
            f"h0 is {h0.dtype} on {h0.device}, the weights are {weights.dtype} on {weights.device}: give h0 as they are "
            "(h0.to(weight), the real part of a complex state)"
        )
    if (t.requires_grad or path.times.requires_grad) and not (differentiates_times and t is path.times):
        # An output time apart from the path's would move across a kink or a jump of the path.
        raise ValueError(
            "the times require a gradient, which there is only from TorchDiffEq(..., adjoint=False) at the times of the path "
            "itself (model(x, t)): take that, or t.detach()"
        )


def check_tolerances(rtol: float, atol: float, dtype: torch.dtype) -> None:
    """Refuses tolerances of adaptive steps that no state of this precision can keep to.

    Raises:
        ValueError: both are below the rounding.
    """
    precision = torch.finfo(dtype).eps
    if max(rtol, atol) < precision:
        raise ValueError(
            f"rtol={rtol:g} and atol={atol:g} are below what {dtype} can hold ({precision:.0e}): raise them to "
            f"{10 * precision:.0e} and more, or compute in float64"
        )


def empty_solution(field: VectorField, t: Tensor, h0: Tensor) -> Solution:
    """The states of a batch of no sequences; every gradient is 0."""
    nothing = sum(tensor.sum() * 0 for tensor in field.tensors)
    return Solution(t, h0.unsqueeze(-2).expand(*h0.shape[:-1], t.numel(), h0.shape[-1]) + nothing, evaluations=0)
