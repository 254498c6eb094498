"""Sensitivities as they are measured: derivatives of outputs or states in the weights, along a batch of inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap

from odernn.citations import record
from odernn.models import SequenceModel
from odernn.paths import Interpolation
from odernn.solvers import Exact, Solver, TorchDiffEq, named
from targets import arguments, grids

from ..probes.adapted import first_tensor
from ..results import Result
from . import forward_mode
from .poles import Observed

# Bytes of derivatives that are held at once.
_CHUNK_BYTES = 2**26
_QUARTERS = 4
# What has settled changes from the third quarter to the last by no more than so many standard errors, or so large a part; and its
# standard error must be small enough to tell.
_ERRORS, _DRIFT, _SCATTER = 3.0, 0.02, 0.1
# Of linear models: time constants of the slowest mode after which E |dh/dw|^2 is within 1 % of its limit,
# e^-z (1 + z + z^2 / 2) = 0.01 at z = 2 rho t.
_SETTLED = 8.41 / 2
# Steps of rk4 between two samples.
_SUBSTEPS = 4


@dataclass(frozen=True, eq=False, repr=False)
class Sensitivity(Result):
    """E |dy_t / dtheta|^2 along time: mean over the sequences, summed over the outputs or states.

    Args:
        times: (time,).
        values: of each weight, (time, *shape).
        quarters: means over each quarter of the times, sequence by sequence, (4, batch, *shape).
        settled: of linear models the time after which the slowest mode has settled to 1 %, inf of unstable ones; else 0.
    """

    times: Tensor
    values: dict[str, Tensor]
    quarters: dict[str, Tensor]
    settled: float

    @property
    def half(self) -> float:
        """The time from the start to where the second half begins."""
        return float(self.times[len(self.times) // 2] - self.times[0])

    def stationary(self) -> dict[str, Tensor]:
        """What it comes to: the mean over the second half of the times.

        Raises:
            ValueError: it still changes from the third quarter to the last, a linear model's slowest mode takes longer, or the
                sequences are too few to tell.
        """
        return {name: self._settled(name).mean(0) for name in self.values}

    def stderr(self) -> dict[str, Tensor]:
        """The standard error of `stationary`, from the scatter of sequences.

        Raises:
            ValueError: as there.
        """
        return {name: self._settled(name).std(0) / math.sqrt(len(self.quarters[name][0])) for name in self.values}

    def _settled(self, name: str) -> Tensor:
        """Means over the second half, (batch, *shape)."""
        third, last = self.quarters[name][2:]
        if len(last) < 2:
            raise ValueError("one sequence cannot tell whether its sensitivity has settled; give a batch of at least 2")
        both, drift = (third + last) / 2, (last - third).mean(0).abs()
        size, error = both.mean(0), (last - third).std(0) / math.sqrt(len(last))
        scatter = both.std(0) / math.sqrt(len(both))
        moving = (drift > _ERRORS * error) & (drift > _DRIFT * size)
        if not torch.isfinite(both).all() or moving.any() or self.half < self.settled:
            known = self.half < self.settled < math.inf
            raise ValueError(
                f"the sensitivity to {name} has not settled by t = {float(self.times[-1]):g}: the horizon is too short for the "
                f"memory{f', which needs T >= {2 * self.settled:.3g}' if known else ', or the model is unstable'}; take longer "
                "inputs, or read .values"
            )
        if (scatter > _SCATTER * size).any():
            raise ValueError(
                f"the sensitivity to {name} scatters by up to {float((scatter / size)[size > 0].max()):.0%} over the sequences, "
                f"expected a standard error of at most {_SCATTER:.0%}; take more or longer inputs, or read .values"
            )
        return both


def measured_sensitivity(
    system: nn.Module,
    x: Tensor,
    t: Tensor | None = None,
    *,
    of: Observed = "output",
    weights: Sequence[str] | None = None,
    solver: Solver | str | None = None,
    interpolation: Interpolation = "linear",
) -> Sensitivity:
    """E |dy_t/dtheta|^2 of every weight along inputs, by forward-mode differentiation.

    Args:
        system: a model of `odernn` (one member of an ensemble), or a torch module on (batch, time, channel): torch.nn.LSTM.
        x: (batch, time, input).
        t: (time,); None for one time unit a sample.
        of: 'output' for y, or, of models, 'state' for h.
        weights: names of `system.named_parameters()`; None for all that are trained.
        solver: of a model in continuous time: one that is made of plain tensor operations in fixed steps. None for `Exact` where
            the state equation is linear, else rk4 with four steps between two samples, which warns where they are too long.
        interpolation: of x, as in `SequenceModel.forward`.

    Raises:
        ValueError: shapes that do not fit, unknown weights, an ensemble, or a state that a module does not show.
        DivergedSolve: the state did not stay finite.

    Source: [VEG] 3.

    Example:
        S = measured_sensitivity(model, x, t, of="state")
        S.values["layers.0.recurrence.w"]              # (time, m)
        S.stationary()                                 # an error where T is too short for the memory
    """
    record(measured_sensitivity)
    x = arguments.floating_tensor("x", x, shape="(batch, time, channel)")
    if x.ndim != 3 or not x.numel() or x.shape[1] < _QUARTERS:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (batch, time, channel) of at least {_QUARTERS} times")
    t = torch.arange(x.shape[1], dtype=torch.float64) if t is None else grids.tensor(t, least=2)
    if t.shape != x.shape[1:2]:
        raise ValueError(f"t has shape {tuple(t.shape)}, x {tuple(x.shape)}, expected t (time,) and x (batch, time, channel)")
    derivatives = Derivatives(system, of=of, weights=weights, solver=solver, interpolation=interpolation)
    means, quarters = [], []
    with torch.no_grad():
        here = derivatives(derivatives.theta, x, t)
        size = here.numel() * here.element_size()
        for columns in derivatives.columns(lambda theta: derivatives(theta, x, t), size):
            squares = columns.square().sum(-1)  # (k, batch, time)
            means.append(squares.mean(1))
            quarters.append(torch.stack([part.mean(-1) for part in squares.tensor_split(_QUARTERS, -1)], 1))
    along, late = torch.cat(means).mT, torch.cat(quarters).movedim(0, -1)
    return Sensitivity(t, derivatives.split(along), derivatives.split(late), _settled(system, float(t.diff().mean())))


class Derivatives:
    """y or h along inputs as a function of one flat vector of weights, and its derivatives by forward mode.

    Args:
        system, of, weights, solver, interpolation: as in `measured_sensitivity`.

    Attributes:
        weights: the chosen ones at this moment, by name.
        theta: all their entries, (K,).
    """

    def __init__(
        self,
        system: nn.Module,
        *,
        of: Observed = "output",
        weights: Sequence[str] | None = None,
        solver: Solver | str | None = None,
        interpolation: Interpolation = "linear",
    ) -> None:
        arguments.instance("system", system, nn.Module, "give a model of odernn, or a torch module")
        arguments.choice("of", of, get_args(Observed))
        if isinstance(system, SequenceModel):
            if system.ensemble:
                raise ValueError(f"the model is an ensemble of shape {system.ensemble}; give one member at a time")
            if solver is None and not system.is_map:
                exact = Exact(backend="torch")
                solver = exact if exact.supports(system.field()) else None
        elif of == "state" or solver is not None:
            raise ValueError(f"a {type(system).__name__} shows no state and takes no solver; leave of and solver out")
        self.module = _Along(system, of, named(solver), interpolation)
        self.weights = _chosen(system, weights)
        self.theta = torch.cat([weight.flatten() for weight in self.weights.values()])

    def __call__(self, theta: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """(batch, time, output), of the state (batch, time, m)."""
        named = {f"system.{name}": weight for name, weight in self.split(theta).items()}
        result: Tensor = functional_call(self.module, named, (x, t))
        return result

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(weight.shape) for weight in self.weights.values())

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """(..., K) by the names of the weights, (..., *shape)."""
        parts = values.split([math.prod(shape) for shape in self.shapes], -1)
        return {name: part.reshape(*part.shape[:-1], *shape) for name, part, shape in zip(self.weights, parts, self.shapes)}

    def columns(self, function: Callable[[Tensor], Tensor], size: int) -> Iterator[Tensor]:
        """The derivatives of a function of theta in some entries at a time, (k, *result); size: bytes of one result."""
        forward_mode.load()
        count = self.theta.numel()
        for rows in torch.arange(count).split(max(1, _CHUNK_BYTES // max(size, 1))):
            basis = torch.zeros(len(rows), count).to(self.theta)
            basis[torch.arange(len(rows)), rows] = 1.0
            yield vmap(lambda direction: jvp(function, (self.theta,), (direction,))[1])(basis)


class _Along(nn.Module):
    """A system along inputs, as a module."""

    def __init__(self, system: nn.Module, of: Observed, solver: Solver | None, interpolation: Interpolation) -> None:
        super().__init__()
        self.system, self.of, self.solver, self.interpolation = system, of, solver, interpolation

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        system = self.system
        if isinstance(system, SequenceModel):
            solver = self.solver
            if solver is None and not system.is_map:
                solver = TorchDiffEq("rk4", adjoint=False, step_size=float(t.diff().min()) / _SUBSTEPS)
            # Judged by the solve itself, before it is differentiated.
            check = not arguments.transformed()
            if solver is not None and not check:
                solver = solver.unchecked()
            response = system.respond(x, t, solver=solver, interpolation=self.interpolation, check=check)
            return response.y if self.of == "output" else response.solution.h
        if isinstance(system, nn.RNNBase) and not system.batch_first:
            return self._sequences(system(x.transpose(0, 1))).transpose(0, 1)
        return self._sequences(system(x))

    def _sequences(self, found: Any) -> Tensor:
        y = first_tensor(found)
        if y is None or y.ndim != 3:
            came = type(found).__name__ if y is None else f"a tensor {tuple(y.shape)}"
            raise ValueError(f"the system gave {came}, expected (batch, time, output); wrap it in analysis.Adapted")
        return y


def _settled(system: nn.Module, step: float) -> float:
    if not isinstance(system, SequenceModel) or not system.field().linear:
        return 0.0
    rate = float(system.slowest_rate(step).detach())
    return _SETTLED / rate if rate > 0 else math.inf


def _chosen(system: nn.Module, weights: Sequence[str] | None) -> Mapping[str, Tensor]:
    known = {name: weight.detach() for name, weight in system.named_parameters() if weight.requires_grad}
    if not known:
        raise ValueError(f"the {type(system).__name__} has no weights that are trained; set requires_grad of those you mean")
    if weights is None:
        return known
    if isinstance(weights, str) or not list(weights) or set(weights) - known.keys():
        raise ValueError(f"weights is {weights!r}, expected a list of some of {', '.join(known)}")
    return {name: weight for name, weight in known.items() if name in weights}
