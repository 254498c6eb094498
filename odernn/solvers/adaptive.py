"""Adaptive Runge-Kutta solves with the exact discrete adjoint of their accepted steps, the whole solve as one operation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from targets import arguments

from ..fields import VectorField
from ..paths import Path
from . import adaptive_reference
from .backends import backend_for, obstacle
from .base import TIGHTEST, Solution, Solver, check_arguments, check_tolerances, empty_solution, solve_grid
from .comparison import compare_with_small_steps
from .first_order import first_order_only
from .fused import TABLEAUX, TAKEN, describe, kernels_of
from .numba.step_control import Control
from .standard_form import EmbeddedPair, Problem, StepCount, inputs_of, standard_weights

_DOPRI5_B = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
_DOPRI5_LOWER = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
_BOSH3_LOWER = (7 / 24, 1 / 4, 1 / 3, 1 / 8)


def _error(b: tuple[float, ...], lower: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(high - low for high, low in zip((*b, 0.0), lower, strict=True))


# Pairs that go on with the result of the higher order. Sources: J. R. Dormand, P. J. Prince, J. Comput. Appl. Math. 6 (1980);
# Ch. Tsitouras, Comput. Math. Appl. 62 (2011); P. Bogacki, L. F. Shampine, Appl. Math. Lett. 2 (1989).
PAIRS: dict[str, EmbeddedPair] = {
    "dopri5": EmbeddedPair(
        order=5,
        A=(
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        ),
        b=_DOPRI5_B,
        error=_error(_DOPRI5_B, _DOPRI5_LOWER),
    ),
    "tsit5": EmbeddedPair(
        order=5,
        A=(
            (),
            (0.161,),
            (-0.008480655492356989, 0.335480655492357),
            (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
            (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
            (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        ),
        b=(
            0.09646076681806523,
            0.01,
            0.4798896504144996,
            1.379008574103742,
            -3.290069515436081,
            2.324710524099774,
        ),
        error=(
            0.00178001105222577714,
            0.0008164344596567469,
            -0.007880878010261995,
            0.1447110071732629,
            -0.5823571654525552,
            0.45808210592918697,
            -1 / 66,
        ),
    ),
    "bosh3": EmbeddedPair(
        order=3,
        A=TABLEAUX["bosh3"].A,
        b=TABLEAUX["bosh3"].b,
        error=_error(TABLEAUX["bosh3"].b, _BOSH3_LOWER),
    ),
}
# rtol and atol by the precision of the states: float32 rounds to 1e-7.
TOLERANCES = {torch.float64: (1e-6, 1e-8), torch.float32: (1e-5, 1e-7)}
AdaptiveBackend = Literal["auto", "numba", "triton", "torch"]


@dataclass(frozen=True)
class Adaptive(Solver):
    """An embedded Runge-Kutta pair, compiled: steps that keep the estimated error of each below atol + rtol |h|, RMS over the
    states of the sequence that is worst off.

    No step straddles an output time or a breakpoint of the input. Eight sequences of one model, a block, share their steps; every
    block takes its own, on any number of threads the same. (The blocks of the backend 'triton' are of sixteen sequences, those of
    'torch' whole batches.) The length of a step follows the errors of the last two (PI control); the first one, the size of the
    first and second derivative.

    Gradients are those of the computed solution (the discrete adjoint of the accepted steps, whose lengths count as given), to
    the weights, x and h0; with the backends 'numba' and 'triton' they differentiate once (a second derivative is refused). The
    backward pass computes the stages again, some steps at a time.

    The tolerance is that of a step. The error of the states is another: the errors of steps add up, grow where the dynamics are
    unstable, and escape the estimate where a step crosses a kink of an activation (relu, hardtanh: less so with 'bosh3').

    A block whose step size underflows, or that tries more than 10,000 steps in one interval, has nan for its states from there
    on, which a model refuses (DivergedSolve) unless told not to check; other blocks are not affected.

    Supports stacks of equal layers, of either form, with every activation that has a kernel and every W, on ensembles of any
    shape. (The steps of a stack keep all its layers within the tolerance.)

    Args:
        method: 'dopri5', 'tsit5' (order 5) or 'bosh3' (order 3).
        rtol, atol: tolerances of a step; None for 1e-6 and 1e-8 in float64, 1e-5 and 1e-7 in float32.
        backend: 'numba' (CPU), 'triton' (GPU of compute capability 8.0 or more, float32, states of at most 128 entries, or 64
            where shared memory is small, no activation between layers, no leak; not timed on a GPU), 'torch' (plain tensor
            operations, anywhere), or 'auto': the first of these that runs on the tensors given and is installed.
        check: whether to compare some sequences with small equal steps, and to warn where the states are off by more than 100
            times the tolerance of a step (for rtol of 1e-8 and more).

    Example:
        >>> import torch
        >>> from odernn import Adaptive, ContinuousRNN
        >>> model = ContinuousRNN(1, 8, 1, "tanh", seed=0, dtype=torch.float64)
        >>> t = torch.linspace(0, 1, 11).double()
        >>> model(torch.zeros(2, 11, 1).double(), t, solver=Adaptive("tsit5", rtol=1e-8, atol=1e-10)).shape
        torch.Size([2, 11, 1])

    Source: E. Hairer, S. P. Norsett, G. Wanner, Solving ordinary differential equations I, II.4 [Hairer1993].
    """

    method: str = "dopri5"
    rtol: float | None = None
    atol: float | None = None
    backend: AdaptiveBackend = "auto"
    check: bool = field(default=True, repr=False)

    lean = True

    def __post_init__(self) -> None:
        arguments.choice("method", self.method, PAIRS)
        for name in ("rtol", "atol"):
            if getattr(self, name) is not None:
                arguments.number(name, getattr(self, name), above=0)
        arguments.choice("backend", self.backend, get_args(AdaptiveBackend))

    @property
    def order(self) -> int:
        return PAIRS[self.method].order

    @property
    def tolerances(self) -> tuple[float, float]:
        """Where none were given, the largest that the defaults are."""
        rtol, atol = TOLERANCES[torch.float32]
        return self.rtol or rtol, self.atol or atol

    @property
    def transformable(self) -> bool:
        return self.backend == "torch"

    def supports(self, field: VectorField) -> bool:
        return kernels_of(field) is not None

    def memberwise(self, like: Tensor) -> bool:
        return self.backend in ("auto", "numba") and obstacle("numba", like) is None

    def unchecked(self) -> Adaptive:
        return replace(self, check=False)

    def finer(self, dtype: torch.dtype) -> Adaptive | None:
        rtol, atol = self.tolerances
        return None if rtol <= max(TIGHTEST, 10 * torch.finfo(dtype).eps) else replace(self, rtol=rtol / 10, atol=atol / 10)

    def solve(self, field: VectorField, path: Path, t: Tensor, h0: Tensor) -> Solution:
        kernels = kernels_of(field)
        if kernels is None:
            raise ValueError(
                f"the compiled adaptive solver takes {TAKEN}, got {describe(field)}: choose TorchDiffEq({self.method!r})"
            )
        check_arguments(field, path, t, h0)
        rtol, atol = TOLERANCES.get(h0.dtype, TOLERANCES[torch.float32])
        solver = replace(self, rtol=self.rtol or rtol, atol=self.atol or atol)
        check_tolerances(*solver.tolerances, h0.dtype)
        if h0.shape[-2] == 0:
            return replace(empty_solution(field, t, h0), accepted=0, rejected=0)
        grid = solve_grid(path, t)
        weights = standard_weights(field.weights, h0)
        inputs = inputs_of(grid.path, weights.ensemble)
        problem = Problem(
            tableau=PAIRS[self.method],
            substeps=1,
            steps=grid.times.diff() / field.tau,
            structure=weights.structure,
            kind=inputs.kind,
            layers=len(field.layers),
            **kernels._asdict(),
        )
        control = Control(*solver.tolerances, float(self.order))
        given = weights.W, weights.V, inputs.left, inputs.right, weights.h0
        like = h0, problem.emits, problem.leaks
        backend = _compiled(*like) or "torch" if self.backend == "auto" else self.backend
        if backend == "torch":
            h, count, _ = adaptive_reference.solve(problem, control, *given)
        else:
            records = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
            h, count = _AdaptiveSolve.apply(problem, control, backend_for(backend, *like, "torch"), records, *given)
        h = h.reshape(*weights.ensemble, *h.shape[1:])
        evaluations = _evaluations(problem, count)
        if self.check and count.failure is None:
            compare_with_small_steps(solver, field, path.start, grid, h, evaluations)
        return Solution(t, grid.outputs(h), evaluations, None, count.accepted, count.rejected, count.failure)


def compiles(field: VectorField) -> bool:
    """Whether there is compiled code for this field, in its precision and on its device."""
    kernels = kernels_of(field)
    if kernels is None:
        return False
    states = field.c.new_empty(0, sum(layer.U.shape[-2] for layer in field.layers))
    emits = (len(field.layers) > 1 or kernels.inside) and kernels.between != "linear"
    return _compiled(states, emits, kernels.leaks) is not None


def _compiled(like: Tensor, emits: bool, leaks: bool) -> Literal["numba", "triton"] | None:
    """The backend of compiled code for states like these; None where there is none."""
    names: tuple[Literal["numba", "triton"], ...] = ("numba", "triton")
    return next((name for name in names if obstacle(name, like, emits, leaks) is None), None)


def _evaluations(problem: Problem, count: StepCount) -> int:
    """Two for the first step, one for every interval after a jump, and as many as stages for every try."""
    restarts = 0 if problem.kind == "linear" else problem.steps.numel() - 1
    return 2 + restarts + problem.tableau.stages * (count.accepted + count.rejected)


class _AdaptiveSolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, problem: Problem, control: Control, backend: Any, records: bool, *given: Tensor) -> Any:
        h, count, record = backend.adaptive_forward(problem, control, records, *given)
        ctx.problem, ctx.backend, ctx.record = problem, backend, record
        ctx.save_for_backward(*given[:4], h)
        return h, count

    @staticmethod
    @first_order_only
    def backward(ctx: Any, g: Tensor, _count: None) -> tuple[Any, ...]:
        found = ctx.backend.adaptive_backward(ctx.problem, ctx.record, *ctx.saved_tensors, g, ctx.needs_input_grad[4:])
        return None, None, None, None, *found
