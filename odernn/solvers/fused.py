"""Fixed-step Runge-Kutta solves with their exact discrete adjoint, the whole solve as one operation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from targets import arguments

from ..activations import ACTIVATIONS
from ..fields import VectorField
from ..paths import Path
from . import batched_products, torch_reference
from .backends import Backend, BackendSolve, backend_for, obstacle
from .base import Solution, Solver, check_arguments, empty_solution, solve_grid
from .resolution import Judged, judged_members, judged_sequences, relative_distance, richardson, warn_if_inaccurate
from .standard_form import Inputs, Problem, StandardWeights, Tableau, inputs_of, stacks, standard_weights

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
# Beyond this many steps per interval an adaptive method is the better choice.
MAX_SUBSTEPS = 64


@dataclass(frozen=True)
class Fused(Solver):
    """`substeps` equal steps of an explicit Runge-Kutta method in each interval of the union of output times and breakpoints.

    The drive U x + b is linear within an interval. Gradients are those of the computed solution (the discrete adjoint), to the
    weights, x and h0; they differentiate once (a second derivative is refused). The backward pass computes the
    stages again, interval by interval, so memory grows in time only by the states themselves.

    Supports stacks of equal layers, of either form, with every activation that has a kernel and every W, on ensembles of any
    shape.

    Args:
        method: one of `odernn.solvers.fused.TABLEAUX`.
        substeps: steps per interval.
        backend: 'numba' (CPU), 'triton' (GPU of compute capability 8.0 or more, float32, states of at most 128 entries, or 64
            where shared memory is small, no activation between layers, no leak), 'products' (tensor operations in few large
            products, anywhere), or 'auto': the first of these that runs on the tensors given and is installed; or 'torch' (plain
            tensor operations, to compare with).
        check: whether to estimate the error (`Solution.error_estimate`) and to warn where it is more than 1e-3, see
            `odernn.solvers.resolution`; without, nothing tells of steps that are too long.

    Example:
        >>> import torch
        >>> from odernn import ContinuousRNN, Fused
        >>> model = ContinuousRNN(1, 8, 1, "tanh", seed=0)
        >>> model(torch.zeros(2, 11, 1), torch.linspace(0, 1, 11), solver=Fused("rk4", substeps=2)).shape
        torch.Size([2, 11, 1])
    """

    lean = True

    method: str = "rk4"
    substeps: int = 1
    backend: Backend = "auto"
    check: bool = field(default=True, repr=False)

    def __post_init__(self) -> None:
        arguments.choice("method", self.method, TABLEAUX)
        arguments.count("substeps", self.substeps)
        arguments.choice("backend", self.backend, get_args(Backend))

    @property
    def order(self) -> int:
        return TABLEAUX[self.method].order

    def supports(self, field: VectorField) -> bool:
        return kernels_of(field) is not None

    def takes_own_times(self, field: VectorField) -> bool:
        return True

    def memberwise(self, like: Tensor) -> bool:
        return self.backend in ("auto", "numba") and obstacle("numba", like) is None

    def unchecked(self) -> Fused:
        return replace(self, check=False)

    def finer(self, dtype: torch.dtype) -> Fused | None:
        return replace(self, substeps=2 * self.substeps) if self.substeps < MAX_SUBSTEPS else None

    def solve(self, field: VectorField, path: Path, t: Tensor, h0: Tensor) -> Solution:
        kernels = kernels_of(field)
        if kernels is None:
            raise ValueError(f"the fused solver takes {TAKEN}, got {describe(field)}: choose TorchDiffEq('rk4')")
        check_arguments(field, path, t, h0)
        if h0.shape[-2] == 0:
            return empty_solution(field, t, h0)
        grid = solve_grid(path, t)
        weights = standard_weights(field.weights, h0)
        inputs = inputs_of(grid.path, weights.ensemble)
        problem = Problem(
            tableau=TABLEAUX[self.method],
            substeps=self.substeps,
            steps=grid.times.diff() / field.tau,
            structure=weights.structure,
            kind=inputs.kind,
            layers=len(field.layers),
            **kernels._asdict(),
        )
        backend = backend_for(self.backend, h0, problem.emits, problem.leaks, timed=t.ndim == 2)
        given = weights.W, weights.V, inputs.left, inputs.right, weights.h0
        h = BackendSolve.apply(problem, backend.forward, backend.backward, *given)
        estimate = None
        if self.check:
            setting = self, kernels, problem.structure, problem.kind
            judged = Judged(path.start, setting, problem.steps, (weights.W, weights.V, weights.h0))
            memorable = torch.is_grad_enabled() and not path.start.is_inference() and problem.kind != "jumps"
            estimate = judged.recall() if memorable else None
            if estimate is None:
                estimate = _error_estimate(problem, backend, weights, inputs, h)
                if memorable:
                    judged.remember(estimate)
            warn_if_inaccurate(self, estimate, h.dtype, f"Fused({self.method!r}, substeps={4 * self.substeps})")
        h = grid.outputs(h.reshape(*weights.ensemble, *h.shape[1:]))
        return Solution(t, h, problem.tableau.stages * self.substeps * problem.steps.shape[-1], estimate)


@torch.no_grad()
def _error_estimate(problem: Problem, backend: ModuleType, weights: StandardWeights, inputs: Inputs, h: Tensor) -> float:
    """Richardson's estimate on some sequences of some members, see `odernn.solvers.resolution`."""
    start, end = (inputs.left[:, :, :-1], inputs.left[:, :, 1:]) if inputs.kind == "linear" else (inputs.left, inputs.right)
    sequences = judged_sequences(start, end, weights.h0)
    members = judged_members((weights.W, weights.V), h)

    def of_members(tensor: Tensor) -> Tensor:
        return tensor if members is None or tensor.shape[0] == 1 else tensor.index_select(0, members)

    def judged(tensor: Tensor) -> Tensor:
        # Sequences first: of a large ensemble these are the fewer.
        return of_members(tensor if sequences is None else tensor.index_select(1, sequences))

    h, left = judged(h), judged(inputs.left)
    right = left if inputs.right is inputs.left else judged(inputs.right)
    given = [of_members(weights.W), of_members(weights.V), left, right, judged(weights.h0)]
    if backend in (batched_products, torch_reference):
        # A loop over tensor operations takes as long for few sequences as for many.
        precise = torch.float64 if h.dtype == torch.float64 else torch.float32
        given = [tensor.to("cpu", precise) for tensor in given]
        backend = backend_for("numba", given[-1])
    if sequences is not None and problem.steps.ndim == 2:
        problem = replace(problem, steps=problem.steps[sequences.to(problem.steps.device)])
    finer = backend.forward(replace(problem, tableau=TABLEAUX["rk4"], substeps=2 * problem.substeps), *given)
    return richardson(TABLEAUX["rk4"].order) * relative_distance(h, finer)


TAKEN = "layers of one size and one structure of W with one of the activations " + ", ".join(
    name for name, one in ACTIVATIONS.items() if one.kernel
)


def describe(field: VectorField) -> str:
    if field.opaque:
        return "a field of your own"
    sizes = " and ".join(str(layer.U.shape[-2]) for layer in field.layers)
    return f"{len(field.layers)} layer(s) of {sizes} units with {field.activation.name!r}"


class Kernels(NamedTuple):
    """The equation of a field in the kernels' names, see `Problem`."""

    activation: str
    between: str
    leaks: bool = False
    inside: bool = False


def kernels_of(field: VectorField) -> Kernels | None:
    """None where the kernels do not know the field."""
    if not stacks(field.layers):
        return None
    sigma = field.activation.kernel
    if field.form == "ssm" and len(field.layers) == 1:
        return Kernels("linear", "linear")
    if sigma is None:
        return None
    return {
        "rnn": Kernels(sigma, "linear"),
        "ssm": Kernels("linear", sigma),
        "rate": Kernels(sigma, "linear", leaks=True),
        "voltage": Kernels("linear", sigma, leaks=True, inside=True),
    }[field.form]
