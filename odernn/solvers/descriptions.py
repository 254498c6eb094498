"""Solves in words: all of a solve but its tensors as one line of JSON, which an operator can take and a program can save."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

from torch import Tensor

from targets import grids
from targets.arguments import real_tensor

from ..activations import ACTIVATIONS, Activation
from ..fields import Form, Layer, VectorField
from ..paths import Kind, Path
from ..state_matrices import DenseMatrix, DiagonalMatrix, Structure
from . import maps
from .adaptive import Adaptive
from .base import Solution, Solver, check_finite, check_start, empty_solution
from .choice import automatic
from .exact import Exact
from .fused import Fused
from .torchdiffeq import TorchDiffEq

# What gives the states: a solver, the steps of a map, the default of a continuous model, or tensor operations that were traced.
Method = Solver | maps.LayerSteps | Literal["automatic", "traced"]
_SOLVERS: dict[str, type[Solver]] = {cls.__name__: cls for cls in (Exact, Adaptive, Fused, TorchDiffEq)}
_STEPS = {"euler": maps.EULER, "affine": maps.AFFINE}
# Solvers and activations of the user's own, in this process: a description holds their places.
_own: list[Any] = []
_OWN = "own"
# Axes of the tensors of a state matrix.
_AXES: dict[Structure, tuple[int, ...]] = {"dense": (2,), "diagonal": (1,), "pairs": (1, 1)}


def described(
    method: Method,
    form: Form,
    tau: float,
    activation: Activation,
    layers: tuple[tuple[Structure, bool], ...],
    kind: Kind,
    from_rest: bool,
    check: bool,
) -> str:
    """A solve of one line, for `read`.

    Args:
        layers: the structure of W, and whether there is b.
        kind: of the path.
        from_rest: whether h0 is the rest state, which there may not be.
        check: whether the states must be finite.
    """
    if isinstance(method, Solver):
        known = _SOLVERS.get(type(method).__name__) is type(method)
        what: Any = (type(method).__name__, asdict(method)) if known else (_OWN, _place(method))
    else:
        what = next((name for name, steps in _STEPS.items() if steps is method), method)
    sigma: Any = activation.name if ACTIVATIONS.get(activation.name) == activation else _place(activation)
    words = {"method": what, "form": form, "tau": tau, "activation": sigma, "layers": layers, "path": kind}
    return json.dumps(words | {"from_rest": from_rest, "check": check})


# As torch.compiler.assume_constant_result does, which would import the compiler: that calls it while tracing, and keeps the line.
described._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _place(thing: Any) -> dict[str, Any]:
    if thing not in _own:
        _own.append(thing)
    return {"place": _own.index(thing), "shown": repr(thing)}


def _at(place: dict[str, Any]) -> Any:
    index = place["place"]
    if index >= len(_own) or repr(_own[index]) != place["shown"]:
        raise ValueError(
            f"this program solves with {place['shown']}, which is code of yours, and not of the process that made it: "
            "compile or export the model in this process"
        )
    return _own[index]


@lru_cache(maxsize=256)
def read(description: str) -> Description:
    """The solve that a description stands for."""
    return Description(**json.loads(description))


@dataclass(frozen=True)
class Description:
    """A solve but for its tensors, see `described`. Its inputs are the weights of `VectorField.tensors`, x at the samples (and
    at the right ends of intervals where a path jumps), and h0."""

    method: Any
    form: Form
    activation: Any
    layers: Sequence[tuple[Structure, bool]]
    path: Kind
    from_rest: bool
    check: bool
    tau: float = 1.0  # which programs of earlier versions leave out

    @cached_property
    def axes(self) -> list[int]:
        """Of each input, behind those of an ensemble."""
        weights = [axes for structure, bias in self.layers for axes in (*_AXES[structure], 2, *([1] if bias else []))]
        return [*weights, 3, *([3] if self.path == "jumps" else []), 2]

    @cached_property
    def inputs(self) -> slice:
        """Where x stands among the inputs."""
        return slice(self.axes.index(3), -1)

    def is_input(self, index: int) -> bool:
        return self.axes[index] == 3

    def states(self, inputs: Sequence[Tensor], times: Tensor, t: Tensor) -> Tensor:
        """h, checked."""
        field, path, h0 = self._assembled(inputs, times)
        self._check_given(path, t, h0)
        solution = self._solution(field, path, t, h0)
        if self.check:
            check_finite(solution, field)
        return solution.h

    def check_states(self, h: Tensor, inputs: Sequence[Tensor], times: Tensor, t: Tensor) -> None:
        """The checks of `states`, and of the solver, alone."""
        field, path, h0 = self._assembled(inputs, times)
        self._check_given(path, t, h0)
        if self.check:
            check_finite(Solution(t, h, evaluations=None), field)
        if self.method != "traced" and (solver := self._solver(field)) != solver.unchecked():
            solver.solve(field, path, t, h0)

    def _solution(self, field: VectorField, path: Path, t: Tensor, h0: Tensor) -> Solution:
        if not isinstance(self.method, str) or self.method not in _STEPS:
            return self._solver(field).solve(field, path, t, h0)
        if h0.shape[-2] == 0:
            return empty_solution(field, t, h0)
        return Solution(t, maps.compiled_states(_STEPS[self.method], field, path, t, h0), evaluations=None)

    def _solver(self, field: VectorField) -> Solver:
        if self.method == "automatic":
            return automatic(field)
        name, arguments = self.method
        return _at(arguments) if name == _OWN else _SOLVERS[name](**arguments)

    def _assembled(self, inputs: Sequence[Tensor], times: Tensor) -> tuple[VectorField, Path, Tensor]:
        left = iter(inputs)
        layers = []
        for structure, bias in self.layers:
            parts = [next(left) for _ in _AXES[structure]]
            W = DenseMatrix(*parts) if structure == "dense" else DiagonalMatrix(*parts)
            layers.append(Layer(W, next(left), next(left) if bias else None))
        activation = ACTIVATIONS[self.activation] if isinstance(self.activation, str) else _at(self.activation)
        U = layers[-1].U
        c = U.new_zeros(1, U.shape[-2])  # no solver reads y
        field = VectorField(self.form, tuple(layers), activation, c, self.tau)
        samples = next(left)
        path = Path(times, self.path, samples, next(left) if self.path == "jumps" else None)
        return field, path, next(left)

    def _check_given(self, path: Path, t: Tensor, h0: Tensor) -> None:
        grids.times(t, "t", least=2)
        grids.check_resolution(t)
        grids.check_inside(t, path.times)
        real_tensor("x", path.samples)
        if not self.from_rest:
            real_tensor("h0", h0)
        elif self.check:
            check_start(h0)
