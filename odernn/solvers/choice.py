"""The solvers that `solver=None` and `--solver auto` stand for."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import torch
from torch import Tensor

from ..fields import VectorField
from ..paths import Path
from .adaptive import Adaptive, compiles
from .base import TIGHTEST, DivergedSolve, Solver, check_finite
from .exact import Exact
from .fused import MAX_SUBSTEPS, Fused, describe
from .sequences import solve_sequences
from .torchdiffeq import TorchDiffEq

# rtol and atol of what a choice is measured against: far below any that make sense for a fixed-step method.
_REFERENCE = TIGHTEST, 1e-11


def automatic(field: VectorField, rtol: float | None = None, atol: float | None = None, *, own_times: bool = False) -> Solver:
    """`Exact` where the state equation is linear; else `Adaptive` where it takes the field, compiled; else, for activations
    without a kernel and for what GPU kernels do not take, TorchDiffEq's dopri5 with backpropagation through its steps, which is
    said once.

    All keep to tolerances, whatever the input: `choose_solver` may find a faster one for a given input.

    Args:
        rtol, atol: of the steps; None for the defaults of the solver.
        own_times: whether each sequence has times of its own. `Exact` is then for what it takes all at once: of a dense W it
            would take a matrix exponential for every interval of every sequence.
    """
    if _exact(field, own_times):
        return Exact()
    solver = _adaptive(field, rtol, atol)
    if not isinstance(solver, Adaptive) and not field.opaque:
        _say_once(field)
    return solver


def _exact(field: VectorField, own_times: bool) -> bool:
    return Exact().supports(field) and (not own_times or Exact().takes_own_times(field))


def _adaptive(field: VectorField, rtol: float | None, atol: float | None) -> Adaptive | TorchDiffEq:
    """dopri5 to these tolerances, compiled where it can be."""
    if compiles(field):
        return Adaptive("dopri5", rtol, atol)
    return TorchDiffEq("dopri5", rtol or TorchDiffEq.rtol, atol or TorchDiffEq.atol, adjoint=False)


_said: list[str] = []


def _say_once(field: VectorField) -> None:
    if (what := f"{field.activation.name} {field.c.dtype} {field.c.device}") not in _said:
        _said.append(what)
        logging.getLogger("odernn").warning(
            "solver=None is torchdiffeq's dopri5 here, some hundred times slower than the compiled Adaptive, which takes "
            "activations that have a kernel, in float32 or float64 on the CPU, and in float32 on a GPU (at most 128 states, no "
            "activation between layers, no leak, triton installed); got %s in %s on %s",
            describe(field),
            field.c.dtype,
            field.c.device,
        )


@torch.no_grad()
def deviation(solver: Solver, field: VectorField, path: Path, t: Tensor, h0: Tensor) -> float:
    """|h - h_reference| / |h_reference| in L2 over all states, against `automatic` at rtol 1e-9 in double precision.

    Raises:
        DivergedSolve: the reference diverged.
    """
    return _distance(solve_sequences(solver.unchecked(), field, path, t, h0).h, _reference(field, path, t, h0))


@torch.no_grad()
def choose_solver(field: VectorField, path: Path, t: Tensor, h0: Tensor, tolerance: float = 1e-5) -> Solver:
    """The cheapest solver whose `deviation` along this path is at most `tolerance`.

    `Exact` for linear state equations; else `Fused` rk4 with the smallest number of substeps out of 1, 2, 4, ... that does; else,
    where the model has no fused form or `MAX_SUBSTEPS` are not enough, dopri5 at a tenth of the tolerance, a hundredth or a
    thousandth (`Adaptive` where it is compiled, else `TorchDiffEq`).
    (`Exact` is not for a dense W with times of each sequence, see `automatic`.)

    Args:
        field: at the weights to judge by, at the start of a training say.
        path, t, h0: as for `Solver.solve`; a few typical sequences are enough.
        tolerance: relative.

    Raises:
        ValueError: a tolerance out of (1e-8, 1), below which the reference is no better.
        DivergedSolve: the reference diverged, or nothing comes within the tolerance in the precision of the field.
    """
    if not 1e-8 < tolerance < 1:
        raise ValueError(f"the solver tolerance must lie between 1e-8 and 1, got {tolerance}")
    if _exact(field, t.ndim == 2):
        return Exact()
    reference = _reference(field, path, t, h0)
    candidates: list[Solver] = []
    if Fused().supports(field):
        candidates += [Fused("rk4", 2**k) for k in range(MAX_SUBSTEPS.bit_length())]
    for step_tolerance in (0.1 * tolerance, 0.01 * tolerance, 0.001 * tolerance):
        # (No dtype can hold less than its precision: a tolerance that asks for it is refused below.)
        candidates.append(_adaptive(field, max(step_tolerance, torch.finfo(h0.dtype).eps), 0.01 * step_tolerance))
    for solver in candidates:
        found = _distance(solve_sequences(solver.unchecked(), field, path, t, h0).h, reference)
        if found <= tolerance:
            return solver
    raise DivergedSolve(
        f"no solver comes within {tolerance:g} of the reference in {field.c.dtype} (dopri5: {found:.2g}): "
        "raise --solver-tolerance, or compute in float64"
    )


def _reference(field: VectorField, path: Path, t: Tensor, h0: Tensor) -> Tensor:
    def precise(tensor: Tensor) -> Tensor:
        return tensor.to("cpu", torch.float64)  # where solves are compiled

    field = field.mapped(precise)
    path = replace(path.mapped(precise), times=precise(path.times))
    solution = solve_sequences(
        automatic(field, *_REFERENCE, own_times=t.ndim == 2).unchecked(), field, path, precise(t), precise(h0)
    )
    check_finite(solution, field)
    return solution.h


def _distance(h: Tensor, reference: Tensor) -> float:
    if torch.equal(h.to(reference), reference):  # zeros among them, of no input and no b
        return 0.0
    distance = float(torch.linalg.vector_norm(h.to(reference) - reference) / torch.linalg.vector_norm(reference))
    return distance if math.isfinite(distance) else math.inf
