"""The models: nonlinear RNN and state-space model, in continuous and discrete time, one layer or a stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from targets import arguments, grids

from . import parameterizations
from .fields import VectorField
from .paths import Path
from .sequence_model import InitialState, Response, SequenceModel
from .solvers import Solution, Solver, automatic, maps, named, operators, own_default
from .solvers.sequences import solve_sequences

__all__ = [
    "MODELS",
    "ContinuousModel",
    "ContinuousRNN",
    "DiscreteModel",
    "DiscreteRNN",
    "DiscreteSSM",
    "InitialState",
    "Response",
    "SequenceModel",
    "StateSpaceModel",
    "build",
    "register",
]


class ContinuousModel(SequenceModel):
    """A model dh/dt = F(h, x(t)) that a solver integrates."""

    time = "continuous"
    is_map = False

    def solve(
        self,
        path: Path,
        t: Tensor,
        h0: InitialState = None,
        *,
        solver: Solver | str | None = None,
        check: bool = True,
    ) -> Solution:
        """The states along a control path, with the number of evaluations; arguments as in `forward`.

        `check=False` returns a diverged state as it came (inf or nan) in place of raising.
        """
        arguments.instance("path", path, Path, "make one with odernn.paths.interpolate")
        t = grids.tensor(t, "t", least=2)
        grids.check_resolution(t)
        if path.channels != self.input_size:
            raise ValueError(f"the path has {path.channels} channels, the model takes {self.input_size}")
        grids.check_inside(t, path.times)
        return self._solve(self.field(), path, t, h0, named(solver), check)

    def state_equation(self, h: Tensor, value: Tensor, step: Tensor | float) -> Tensor:
        return value

    def _states(self, field: VectorField, path: Path, t: Tensor, h0: Tensor, solver: Solver | None) -> Solution:
        return solve_sequences(solver or automatic(field, own_times=t.ndim == 2), field, path, t, h0)

    def _method(self, field: VectorField, t: Tensor, h0: Tensor, solver: Solver | None) -> operators.Method:
        return solver or "automatic"


class ContinuousRNN(ContinuousModel):
    """dh/dt = sigma(W h + U x + b), y = c^T h ([IA] Eq 2)."""

    form = "rnn"
    name = "rnn"


class StateSpaceModel(ContinuousModel):
    """dh/dt = W h + U x + b, y = c^T sigma(h) ([SSM], [StableSSM])."""

    form = "ssm"
    name = "ssm"


class DiscreteModel(SequenceModel):
    """A model whose state moves once a sample; x_k acts on h_{k+1}.

    The states of the models below are compiled where that is possible: on the CPU, in float32 or float64, with an activation that
    has a kernel. Their gradients differentiate once.

    Attributes:
        backend: 'auto', or 'torch' to step through plain tensor operations: those give gradients that differentiate again, and
            are what every other state equation takes.
    """

    is_map = True
    backend: Literal["auto", "torch"] = "auto"
    settings = ("backend",)

    def _states(self, field: VectorField, path: Path, t: Tensor, h0: Tensor, solver: Solver | None) -> Solution:
        steps = self._method(field, t, h0, solver)
        if isinstance(steps, maps.LayerSteps) and not maps.transformed():
            return Solution(t, maps.compiled_states(steps, field, path, t, h0), evaluations=t.shape[-1] - 1)
        states = [h0]
        for x_k, step in zip(path.samples.unbind(-2), maps.step_lengths(t, path.samples)):
            states.append(self.state_equation(states[-1], field(states[-1], x_k), step))
        return Solution(t, torch.stack(states, -2), evaluations=t.shape[-1] - 1)

    def _method(self, field: VectorField, t: Tensor, h0: Tensor, solver: Solver | None) -> operators.Method:
        if own_default(solver) is not None:
            raise ValueError(f"{type(self).__name__} is a map, not an ODE: leave solver out")
        if arguments.choice("backend", self.backend, ("auto", "torch")) == "torch":
            return "traced"
        # By the equation itself: a subclass, or a model, with one of its own must not get its parent's steps.
        steps = None if "state_equation" in vars(self) else _COMPILED.get(type(self).state_equation)
        return steps if steps is not None and maps.compiles(steps, field, t, h0) else "traced"


class DiscreteRNN(DiscreteModel):
    """h_{k+1} = h_k + Dt sigma(W h_k + U x_k + b), y_k = c^T h_k: the Euler step of `ContinuousRNN`, with Dt from t.

    W is that of the continuous model, parameterised in continuous time.
    """

    form = "rnn"
    time = "continuous"
    name = "discrete_rnn"

    def state_equation(self, h: Tensor, value: Tensor, step: Tensor | float) -> Tensor:
        return h + step * value


class DiscreteSSM(DiscreteModel):
    """h_{k+1} = W h_k + U x_k + b, y_k = c^T sigma(h_k), parameterised in discrete time; Dt is part of W and U."""

    form = "ssm"
    time = "discrete"
    name = "discrete_ssm"

    def state_equation(self, h: Tensor, value: Tensor, step: Tensor | float) -> Tensor:
        return value


_COMPILED: dict[Any, maps.LayerSteps] = {DiscreteRNN.state_equation: maps.EULER, DiscreteSSM.state_equation: maps.AFFINE}
MODELS: dict[str, type[SequenceModel]] = {cls.name: cls for cls in (ContinuousRNN, StateSpaceModel, DiscreteRNN, DiscreteSSM)}
_M = TypeVar("_M", bound=SequenceModel)


def register(cls: type[_M]) -> type[_M]:
    """Makes a model of another file known by its name; a decorator."""
    MODELS[cls.name] = cls
    return cls


def build(config: dict[str, Any], **options: Any) -> SequenceModel:
    """The model that a `SequenceModel.config()` describes; `options` (seed, dtype, device) go to its constructor.

    Raises:
        ValueError: no such config, or an unknown model name.
    """
    arguments.instance("config", config, Mapping, "give SequenceModel.config()")
    config = dict(config)
    name = config.pop("model", None)
    cls = MODELS[arguments.choice("model", name, MODELS)]
    config["parameterization"] = parameterizations.get(time=cls.time, **config["parameterization"])
    return cls(**config, **options)
