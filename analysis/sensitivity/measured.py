"""Derivatives of a model's outputs or states in its weights, along inputs: E |dy_t / dtheta|^2 as it is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap

from odernn.models import SequenceModel
from odernn.paths import Interpolation
from odernn.solvers import Exact, Solver, TorchDiffEq
from targets import arguments

from ..probes.adapted import first_tensor
from ..results import Result

# Bytes of derivatives that are held at once.
_CHUNK_BYTES = 2**26


class _Along(nn.Module):
    """A system along given inputs, as a module of its weights alone."""

    def __init__(self, system: nn.Module, of: str, solver: Solver | str | None, interpolation: Interpolation) -> None:
        super().__init__()
        self.system, self.of, self.solver, self.interpolation = system, of, solver, interpolation

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        system = self.system
        if isinstance(system, SequenceModel):
            response = system.respond(x, t, solver=self.solver, interpolation=self.interpolation)
            return response.y if self.of == "output" else response.solution.h
        if isinstance(system, nn.RNNBase) and not system.batch_first:
            return first_tensor(system(x.transpose(0, 1))).transpose(0, 1)
        return first_tensor(system(x))


class Derivatives:
    """y or h along inputs as a function of one flat vector of weights, and its derivatives by forward mode."""

    def __init__(
        self,
        system: nn.Module,
        *,
        of: str = "output",
        weights: Sequence[str] | None = None,
        solver: Solver | str | None = None,
        interpolation: Interpolation = "linear",
    ) -> None:
        arguments.instance("system", system, nn.Module, "give a model of odernn or a torch module")
        if isinstance(system, SequenceModel):
            if system.ensemble:
                raise ValueError(f"the model is an ensemble of shape {system.ensemble}; give one member at a time")
            if solver is None and not system.is_map:
                exact = Exact(backend="torch")
                solver = exact if exact.supports(system.field()) else TorchDiffEq("rk4", adjoint=False)
        elif of != "output":
            raise ValueError(f"of is {of!r}, expected 'output': a {type(system).__name__} shows no state")
        self.module = _Along(system, arguments.choice("of", of, ("output", "state")), solver, interpolation)
        known = {name: weight.detach() for name, weight in system.named_parameters() if weight.requires_grad}
        unknown = sorted(set(weights or ()) - known.keys())
        if unknown or not known or (weights is not None and not list(weights)):
            raise ValueError(f"weights are {list(weights or ())}, expected some of {', '.join(known) or 'none: it has no weights'}")
        self.weights = {name: weight for name, weight in known.items() if weights is None or name in weights}
        self.theta = torch.cat([weight.flatten() for weight in self.weights.values()])

    def __call__(self, theta: Tensor, x: Tensor, t: Tensor) -> Tensor:
        named, start = {}, 0
        for name, weight in self.weights.items():
            named[f"system.{name}"] = theta[start : start + weight.numel()].reshape(weight.shape)
            start += weight.numel()
        return functional_call(self.module, named, (x, t))

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """(..., K) by the names of the weights, (..., *shape)."""
        parts = values.split([weight.numel() for weight in self.weights.values()], -1)
        return {name: part.unflatten(-1, weight.shape or (1,)) for (name, weight), part in zip(self.weights.items(), parts)}

    def columns(self, function: Callable[[Tensor], Tensor], size: int) -> Iterator[Tensor]:
        """The derivatives of a function of theta in some entries of it at a time, (k, *output); size: bytes of its output."""
        for rows in torch.arange(self.theta.numel()).split(max(1, _CHUNK_BYTES // max(size, 1))):
            basis = torch.zeros(len(rows), self.theta.numel()).to(self.theta)
            basis[torch.arange(len(rows)), rows] = 1.0
            yield vmap(lambda v: jvp(function, (self.theta,), (v,))[1])(basis)


@dataclass(frozen=True, eq=False, repr=False)
class Sensitivity(Result):
    """E |dy_t / dtheta|^2 along time, mean over the sequences, summed over the outputs or states.

    Args:
        times: (time,).
        names: of the weights.
        values: of each weight (time, *shape).
        stderr: of the mean over sequences, alike; nan of a single one.
    """

    times: Tensor
    values: dict[str, Tensor]
    stderr: dict[str, Tensor]

    def stationary(self) -> dict[str, Tensor]:
        """Means over the last half."""
        out = {}
        n = len(self.times)
        for name, value in self.values.items():
            out[name] = value[n // 2 :].mean(0)
        return out


def measured_sensitivity(system, x, t=None, **options):
    d = Derivatives(system, **options)
    t = torch.arange(x.shape[1], dtype=torch.float64) if t is None else t
    means, errors = [], []
    size = x.shape[0] * x.shape[1] * getattr(system, "hidden_size", 1) * x.element_size()
    with torch.no_grad():
      for c in d.columns(lambda theta: d(theta, x, t), size):
        squares = c.square().sum(-1)  # k, batch, time
        means.append(squares.mean(1)); errors.append(squares.std(1) / math.sqrt(x.shape[0]))
    return Sensitivity(t, d.split(torch.cat(means).mT), d.split(torch.cat(errors).mT))
