"""The gradient matrix: every model, recurrence, parameterisation, solver, initial state and weight, at generic and special
points, against central differences in double precision."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from odernn import (
    ContinuousRNN,
    DiscreteRNN,
    DiscreteSSM,
    DivergedSolve,
    Exact,
    Fused,
    SequenceModel,
    StateSpaceModel,
    TorchDiffEq,
)
from odernn.activations import ACTIVATIONS
from odernn.ensembles import replicate
from odernn.parameterizations import PARAMETERIZATIONS
from odernn.recurrences import RECURRENCES

from .campaign import Outcomes

F64 = torch.float64
M, D, BATCH, TIMES = 4, 2, 2, 6
# Central differences are off by about STEP^2 and by rounding / STEP.
STEP = 1e-5
# Relative to the largest entry of the gradient. The gradient of a discrete solution agrees with its own differences to the
# accuracy of these. That of an adaptive method or an adjoint is compared with the differences of a tighter solve, and as good as
# its tolerance; less so where sigma has corners, which steps straddle, and at rest, where any step keeps the state exact.
DISCRETE, ADAPTIVE, UNCONTROLLED = 1e-7, 1e-5, 3e-2

_TIGHT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}
_REFERENCE = TorchDiffEq("dopri5", rtol=1e-12, atol=1e-14, adjoint=False, check=False)
# Unchecked: the steps are coarse on purpose, and gradients are compared at the same steps.
SOLVERS: dict[str, tuple[Any, float]] = {
    "fused rk4": (Fused("rk4", check=False), DISCRETE),
    "fused bosh3 x 2": (Fused("bosh3", substeps=2, check=False), DISCRETE),
    "fused rk4, torch": (Fused("rk4", backend="torch", check=False), DISCRETE),
    "exact": (Exact(), DISCRETE),
    "exact, torch": (Exact(backend="torch"), DISCRETE),
    "rk4": (TorchDiffEq("rk4", adjoint=False, check=False), DISCRETE),
    "dopri5": (TorchDiffEq("dopri5", adjoint=False, check=False, **_TIGHT), ADAPTIVE),
    "dopri5 adjoint": (TorchDiffEq("dopri5", adjoint=True, check=False, **_TIGHT), ADAPTIVE),
}
# generic: b and everything else drawn. start: as a new model is, b = 0. equal: all eigenvalues the same. below, above: arguments
# of sigma start that near to the corners of hardtanh and relu. corner: they start there; still: nothing drives the model, and
# those of relu stay there.
POINTS = ("generic", "start", "equal", "below", "above", "corner", "still")
NEAR = {"below": -1e-3, "above": 1e-3, "corner": 0.0}
CORNERS = ("hardtanh", "relu")
STARTS = ("rest", "zero", "given")


@dataclass(frozen=True)
class Case:
    """One entry of the matrix."""

    model: type[SequenceModel]
    recurrence: str
    parameterization: str
    activation: str
    layers: int
    solver: str
    start: str
    point: str

    @property
    def at_corner(self) -> bool:
        """Whether some argument of sigma may be exactly at a corner: of the first layer of an rnn at these points, of what reads
        a state that starts at 0 always."""
        from_zero = self.start != "given" and (self.layers > 1 or self.model.form == "ssm")
        return self.activation in CORNERS and (self.point in ("corner", "still") or from_zero)

    @property
    def tolerance(self) -> float:
        tolerance = SOLVERS[self.solver][1] if self.solver in SOLVERS else DISCRETE
        uncontrolled = self.activation in CORNERS or self.point == "still"
        return UNCONTROLLED if tolerance != DISCRETE and uncontrolled else tolerance

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.model.__name__, *list(self.__dict__.values())[1:]))


def matrix() -> list[Case]:
    """All entries that have a meaning."""
    cases = []
    discrete, continuous = (DiscreteRNN, DiscreteSSM), (ContinuousRNN, StateSpaceModel)
    for cls, recurrence, parameterization, activation, layers in product(
        (*continuous, *discrete), RECURRENCES, PARAMETERIZATIONS, ACTIVATIONS, (1, 2)
    ):
        if recurrence == "dense" and parameterization != "direct":
            continue
        linear = activation == "linear" or cls is StateSpaceModel
        solvers = ["none"] if cls in discrete else list(SOLVERS)
        for solver, start, point in product(solvers, STARTS, POINTS):
            one_layer, exact = solver.startswith(("fused", "exact")), solver.startswith("exact")
            if (one_layer and layers > 1) or (exact and not linear):
                continue
            if point == "equal" and recurrence == "dense":
                continue
            if point in ("below", "above") and activation not in CORNERS:
                continue
            case = Case(cls, recurrence, parameterization, activation, layers, solver, start, point)
            # The steps that Kutta's 3/8 rule takes are there in plain operations; discrete models have no other route.
            if not case.at_corner or solver in ("fused rk4", "fused rk4, torch"):
                cases.append(case)
    return cases


def deviation(case: Case, seed: int) -> float:
    """The largest deviation of an entry of any gradient from the reference, relative to the largest entry of its tensor. The
    reference are central differences; at a corner, which has none, backpropagation through the plain steps of the same method."""
    model, x, t, h0, solver = _problem(case, seed)
    arguments = {} if case.solver == "none" else {"solver": solver}
    leaves = dict(model.named_parameters())
    leaves["x"] = x
    if isinstance(h0, Tensor):
        leaves["h0"] = h0
    for leaf in leaves.values():
        leaf.requires_grad_()
    weights = torch.randn(BATCH, TIMES, 1, generator=torch.Generator().manual_seed(seed), dtype=F64)

    def loss(y: Tensor) -> Tensor:
        return (weights * y + 0.5 * y.square()).sum((-3, -2, -1))

    def gradients(**arguments: Any) -> list[Tensor]:
        parts = torch.autograd.grad(loss(model(x, t, h0, **arguments)), list(leaves.values()), allow_unused=True)
        return [torch.zeros_like(leaf) if part is None else part for leaf, part in zip(leaves.values(), parts)]

    found = gradients(**arguments)
    if case.at_corner:
        expected = gradients(solver=TorchDiffEq("rk4", adjoint=False, check=False))
    else:
        if case.tolerance != DISCRETE:
            arguments = {"solver": _REFERENCE}
        with torch.no_grad():
            stacked, x_all, h0_all = _stepped(model, leaves, x, h0)
            values = loss(stacked(x_all, t, h0_all, **arguments))
        central = (values[1::2] - values[0::2]) / (2 * STEP)
        parts = central.split([leaf.numel() for leaf in leaves.values()])
        expected = [part.view_as(leaf) for part, leaf in zip(parts, leaves.values())]
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-2)) for a, b in zip(found, expected))


def _problem(case: Case, seed: int) -> tuple[SequenceModel, Tensor, Tensor, Any, Any]:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=F64)

    model = case.model(
        D, M, 1, case.activation, case.recurrence, case.parameterization, num_layers=case.layers, seed=generator, dtype=F64
    )
    t = torch.cumsum(0.05 + 0.3 * torch.rand(TIMES, generator=generator, dtype=F64), 0)
    x = randn(BATCH, TIMES, D)
    h0: Any = randn(BATCH, M * case.layers) if case.start == "given" else case.start
    with torch.no_grad():
        for layer in model.layer_weights:
            if case.point in ("generic", "equal"):
                layer.b.copy_(0.3 * randn(M))
            if case.point == "equal":
                layer.recurrence.w.fill_(float(layer.recurrence.w.flatten()[0]))
        if case.point in NEAR:
            # With h = 0 and x = 0 the argument of sigma in the first stage is b.
            x[:, 0] = 0
            model.layer_weights[0].b.copy_(torch.tensor([1.0, -1.0, 0.0, 0.5], dtype=F64) + NEAR[case.point])
        if case.point == "still":
            x.zero_()
    return model, x, t, h0, SOLVERS.get(case.solver, (None, 0.0))[0]


def _stepped(model: SequenceModel, leaves: dict[str, Tensor], x: Tensor, h0: Any) -> tuple[SequenceModel, Tensor, Any]:
    """For every entry of every leaf one model with it STEP lower and one with it STEP higher, as one ensemble."""
    members = 2 * sum(leaf.numel() for leaf in leaves.values())
    stacked = replicate(model, members)
    all_leaves = dict(stacked.named_parameters())
    all_leaves["x"] = x.detach().expand(members, *x.shape).clone()
    if isinstance(h0, Tensor):
        all_leaves["h0"] = h0.detach().expand(members, *h0.shape).clone()
    member = 0
    for name, leaf in leaves.items():
        flat = all_leaves[name].view(members, -1)
        for entry in range(leaf.numel()):
            flat[member, entry] -= STEP
            flat[member + 1, entry] += STEP
            member += 2
    return stacked, all_leaves["x"], all_leaves.get("h0", h0)


class _Gradients:
    """Draws from the matrix."""

    name, full, short = "gradients", 3000, 60

    def run(self, seed: int, size: int) -> Outcomes:
        outcomes = Outcomes()
        cases = matrix()
        for number, case in enumerate(random.Random(seed).sample(cases, min(size, len(cases)))):
            row = f"{case.model.__name__}, {case.point}"
            try:
                found = deviation(case, seed + number)
            except DivergedSolve as error:
                outcomes.count(row, "refused", f"{case}, seed {seed + number}: {error}")
                continue
            if found <= case.tolerance:
                outcomes.count(row, "agrees")
            else:
                outcomes.count(row, "WRONG", f"{case}, seed {seed + number}: off by {found:.1e}")
        return outcomes


CAMPAIGNS = (_Gradients(),)
