"""Fixed-step Runge-Kutta solves with their exact discrete adjoint, the whole solve as one operation."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from dataclasses import dataclass, field, replace
from functools import cache
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from ..fields import VectorField
from ..paths import Path
from .base import Solution, Solver, check_arguments, empty_solution, solve_grid
from .first_order import first_order_only
from .resolution import Judged, judged_members, judged_sequences, relative_distance, richardson, warn_if_inaccurate
from .standard_form import Inputs, Source, StandardWeights, Structure, inputs_of, standard_weights

Backend = Literal["auto", "numba", "torch", "triton"]
BACKENDS: tuple[str, ...] = ("auto", "numba", "torch", "triton")
TRITON_MAX_SIZE = 128
_NUMBA_DTYPES, _TRITON_DTYPES = (torch.float32, torch.float64), (torch.float32,)


@dataclass(frozen=True)
class Tableau:
    """Butcher tableau of an explicit method: y_i = h + D sum_j A_ij k_j at t + c_i D, then h + D sum_i b_i k_i.

    Args:
        A: below the diagonal, row by row.
    """

    order: int
    A: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]

    @property
    def c(self) -> tuple[float, ...]:
        return tuple(sum(row) for row in self.A)

    @property
    def stages(self) -> int:
        return len(self.b)


# The tableaux of torchdiffeq's methods of the same names; its 'rk4' is Kutta's 3/8 rule. 'bosh3' is the third-order solution of
# Bogacki and Shampine, Appl. Math. Lett. 2 (1989), which torchdiffeq offers with adaptive steps only.
TABLEAUX: dict[str, Tableau] = {
    "euler": Tableau(1, ((),), (1.0,)),
    "midpoint": Tableau(2, ((), (1 / 2,)), (0.0, 1.0)),
    "heun2": Tableau(2, ((), (1.0,)), (1 / 2, 1 / 2)),
    "heun3": Tableau(3, ((), (1 / 3,), (0.0, 2 / 3)), (1 / 4, 0.0, 3 / 4)),
    "bosh3": Tableau(3, ((), (1 / 2,), (0.0, 3 / 4)), (2 / 9, 1 / 3, 4 / 9)),
    "rk4": Tableau(4, ((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)),
}


@dataclass(frozen=True)
class Fused(Solver):
    """`substeps` equal steps of an explicit Runge-Kutta method in each interval of the union of output times and breakpoints.

    The drive U x + b is linear within an interval. Gradients are those of the computed solution (the discrete adjoint), to the
    weights, x and h0; they differentiate once (a second derivative is refused). The stages are computed again on the way back,
    interval by interval, so memory grows in time only by the states themselves.

    Supports one layer, of either form, with every activation and every W, on ensembles of any shape.

    Args:
        method: one of `odernn.solvers.fused.TABLEAUX`.
        substeps: steps per interval.
        backend: 'numba' (CPU), 'triton' (GPU, float32, m <= 128), 'torch' (plain tensor operations, anywhere), or 'auto': the
            first of these that runs on the tensors given and is installed.
        check: whether to estimate the error (`Solution.error_estimate`) and to warn where it is more than 1e-3, see
            `odernn.solvers.resolution`; without, the caller answers for the steps.
    """

    method: str = "rk4"
    substeps: int = 1
    backend: Backend = "auto"
    check: bool = field(default=True, repr=False)

    def __post_init__(self) -> None:
        if self.method not in TABLEAUX:
            raise ValueError(f"unknown fused method {self.method!r}: choose one of {', '.join(TABLEAUX)}")
        if isinstance(self.substeps, bool) or not isinstance(self.substeps, int) or self.substeps < 1:
            raise ValueError(f"substeps must be a positive integer, got {self.substeps!r}")
        if self.backend not in BACKENDS:
            raise ValueError(f"unknown backend {self.backend!r}: choose one of {', '.join(BACKENDS)}")

    @property
    def order(self) -> int:
        return TABLEAUX[self.method].order

    @staticmethod
    def supports(field: VectorField) -> bool:
        return len(field.layers) == 1

    def solve(self, field: VectorField, path: Path, t: Tensor, h0: Tensor) -> Solution:
        if not self.supports(field):
            raise ValueError(
                f"the fused solver takes models of one layer, got {len(field.layers)} layers: choose 'rk4' or 'dopri5' of "
                "torchdiffeq (TorchDiffEq), or num_layers=1"
            )
        check_arguments(field, path, t, h0)
        if h0.shape[-2] == 0:
            return empty_solution(field, t, h0)
        grid = solve_grid(path, t)
        weights = standard_weights(field.layers[0], h0)
        inputs = inputs_of(grid.path, weights.ensemble)
        problem = Problem(
            tableau=TABLEAUX[self.method],
            substeps=self.substeps,
            steps=grid.times.diff(),
            activation=field.activation.name if field.form == "rnn" else "linear",
            structure=weights.structure,
            source=inputs.source,
        )
        backend = backend_for(self.backend, h0)
        h = _RungeKutta.apply(problem, backend, weights.W, weights.V, inputs.left, inputs.right, weights.h0)
        estimate = None
        if self.check:
            setting = self, problem.activation, problem.structure, problem.source
            judged = Judged(path.start, setting, problem.steps, (weights.W, weights.V, weights.h0))
            memorable = torch.is_grad_enabled() and not path.start.is_inference() and problem.source != "jumps"
            estimate = judged.recall() if memorable else None
            if estimate is None:
                estimate = _error_estimate(problem, backend, weights, inputs, h)
                if memorable:
                    judged.remember(estimate)
            warn_if_inaccurate(self, estimate, h.dtype, f"Fused({self.method!r}, substeps={4 * self.substeps})")
        h = grid.outputs(h.reshape(*weights.ensemble, *h.shape[1:]))
        return Solution(t, h, problem.tableau.stages * self.substeps * problem.steps.numel(), estimate)


@torch.no_grad()
def _error_estimate(problem: Problem, backend: ModuleType, weights: StandardWeights, inputs: Inputs, h: Tensor) -> float:
    """Richardson's estimate on some sequences of some members, see `odernn.solvers.resolution`."""
    start, end = (inputs.left[:, :, :-1], inputs.left[:, :, 1:]) if inputs.source == "samples" else (inputs.left, inputs.right)
    sequences = judged_sequences(start, end, weights.h0)
    members = judged_members((weights.W, weights.V), h)

    def of_members(tensor: Tensor) -> Tensor:
        return tensor if members is None or tensor.shape[0] == 1 else tensor.index_select(0, members)

    def judged(tensor: Tensor) -> Tensor:
        tensor = of_members(tensor)
        return tensor if sequences is None else tensor.index_select(1, sequences)

    h, left = judged(h), judged(inputs.left)
    right = left if inputs.right is inputs.left else judged(inputs.right)
    given = [of_members(weights.W), of_members(weights.V), left, right, judged(weights.h0)]
    if backend.__name__.endswith("_torch_backend") and installed("numba"):
        # A loop over tensor operations takes as long for few sequences as for many.
        precise = torch.float64 if h.dtype == torch.float64 else torch.float32
        given = [tensor.to("cpu", precise) for tensor in given]
        backend = backend_for("numba", given[-1])
    finer = backend.forward(replace(problem, tableau=TABLEAUX["rk4"], substeps=2 * problem.substeps), *given)
    return richardson(TABLEAUX["rk4"].order) * relative_distance(h, finer)


@dataclass(frozen=True)
class Problem:
    """What a backend integrates, but for the tensors: dh/dt = sigma(W h + V [x, 1]).

    A backend is a module with `forward(problem, W, V, left, right, h0) -> h` and `backward(problem, W, V, left, right, h, g,
    wanted)`, which gives the gradients of (W, V, left, right, h0), or None where `wanted` is false. Shapes:

        W: (E, m, m); its diagonal (E, 1, m); or for pairs (E, 2, m): what multiplies an entry, and what its partner.
        V: (E, m, d + 1), [U b].
        left, right: (1 or E, batch, times, d), x at both ends of the intervals: times = K for 'jumps'; 'hold': the same tensor
            twice; 'samples': the same tensor twice, times = K + 1, interval k from its k-th to its next.
        h, g: (E, batch, K + 1, m).
    """

    tableau: Tableau
    substeps: int
    steps: Tensor
    activation: str
    structure: Structure
    source: Source


class _RungeKutta(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, problem: Problem, backend: ModuleType, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h0: Tensor
    ) -> Tensor:
        h = backend.forward(problem, W, V, left, right, h0)
        ctx.problem, ctx.backend = problem, backend
        ctx.save_for_backward(W, V, left, right, h)
        return h

    @staticmethod
    @first_order_only
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        return None, None, *ctx.backend.backward(ctx.problem, *ctx.saved_tensors, g, ctx.needs_input_grad[2:])


def backend_for(name: str, like: Tensor) -> ModuleType:
    """The module of a backend, for states like this tensor.

    Raises:
        ValueError: a backend that is not installed or does not run there.
    """
    if name == "auto":
        name = next(name for name in ("numba", "triton", "torch") if _obstacle(name, like) is None)
        if name == "torch" and like.device.type == "cpu" and not installed("numba"):
            _say_once("numba is not installed (pip install numba): the fused solver runs in plain tensor operations, far slower")
    obstacle = _obstacle(name, like)
    if obstacle is not None:
        raise ValueError(f"backend {name!r} {obstacle}: choose backend 'torch' or 'auto'")
    return importlib.import_module(f".{_MODULES[name]}", __package__)


_MODULES = {"numba": "_numba_backend", "triton": "_triton_backend", "torch": "_torch_backend"}


def _obstacle(name: str, like: Tensor) -> str | None:
    """Why a backend cannot take states like this one."""
    if name == "torch":
        return None
    device, dtype = ("cpu", _NUMBA_DTYPES) if name == "numba" else ("cuda", _TRITON_DTYPES)
    # Triton's interpreter, for tests, works on the CPU.
    if like.device.type != device and not (name == "triton" and os.environ.get("TRITON_INTERPRET") == "1"):
        return f"runs on {device}, got tensors on {like.device}"
    if like.dtype not in dtype:
        return f"computes in {', '.join(map(str, dtype))}, got {like.dtype}"
    if name == "triton" and like.shape[-1] > TRITON_MAX_SIZE:
        return f"holds W on chip for at most {TRITON_MAX_SIZE} hidden units, got {like.shape[-1]}"
    return None if installed(name) else f"needs the package {name} (pip install {name})"


@cache
def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@cache
def _say_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=5)
