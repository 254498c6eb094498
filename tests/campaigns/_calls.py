"""A good call of a public function, for campaigns to spoil, and what such calls share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

import analysis
import odernn
import targets
from targets import kernels


@dataclass(frozen=True)
class Call:
    """function(**make()) is right.

    names: words by which a message may call an argument, beside its own name.
    known: (argument, kind) that are right to be accepted.
    """

    name: str
    function: Callable[..., Any]
    make: Callable[[], dict[str, Any]]
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    known: frozenset[tuple[str, str]] = frozenset()


def grid(n: int = 11, end: float = 2.0) -> Tensor:
    return torch.linspace(0, end, n, dtype=torch.float64)


def samples(n: int = 11, batch: int = 3, d: int = 1) -> Tensor:
    return torch.randn(batch, n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def small_model(kind: type = odernn.ContinuousRNN, d: int = 1, **settings: Any) -> Any:
    return kind(d, 3, 1, dtype=torch.float64, **{"activation": "linear", "recurrence": "diagonal", "seed": 0, **settings})


def dense_model(**settings: Any) -> Any:
    return small_model(recurrence="dense", activation="tanh", **settings)


def functional() -> targets.ConvolutionalFunctional:
    return targets.ConvolutionalFunctional(kernels.exponential())


def curve(m: int) -> Any:
    model = odernn.ContinuousRNN(1, m, 1, "tanh", seed=0, dtype=torch.float64)
    return analysis.perturbation_error(model, functional(), samples(), grid(), [0.0, 0.1, 0.3], draws=2, restarts=1, steps=2)


T_FREE = frozenset({("t", "axis -1 of one"), ("t", "axis -1 longer")})
TIMES_FREE = frozenset({("times", "axis -1 of one"), ("times", "axis -1 longer")})
BATCH_FREE = frozenset({("x", "axis -3 longer"), ("x", "axis -3 of one")})
_MODELS = ("ContinuousRNN", "StateSpaceModel", "DiscreteRNN", "DiscreteSSM")
# What looks bad and is meant.
_MEANT: dict[str, set[tuple[str, str]]] = {
    # one model: no ensemble axes
    **{name: {("ensemble", "empty")} for name in _MODELS},
    # h0 broadcasts to (*ensemble, batch, state)
    **{
        f"{name}.forward": {
            ("h0", kind)
            for kind in ("scalar", "number", "axis -2 missing", "axis -2 of one", "axis -1 missing", "axis -1 of one")
        }
        for name in _MODELS
    },
    # a path may have no sequences, and any number of channels
    "paths.interpolate": {("x", "axis -3 empty"), ("x", "axis -1 longer")},
    **{
        f"paths.{name}": {("t", "axis -1 longer"), ("amplitude", "one rank more")}
        | {("amplitude", kind) for kind in ("axis -2 empty", "axis -2 of one", "axis -2 longer", "axis -1 longer")}
        for name in ("heaviside", "pulse")
    },
    # one recurrence, with weights from torch's own generator
    "recurrences.create": {("ensemble", "empty"), ("generator", "none")},
    # any number of rates, and of times
    "analysis.fit_amplitudes": {(name, f"axis -1 {kind}") for name in ("rates", "t") for kind in ("of one", "longer")},
    # a functional answers any batch
    "analysis.perturbation_error": {("x", "axis -3 of one"), ("x", "axis -3 longer")},
    # a grid is even to the rounding of its own precision
    "grids.even_step": {("t", kind) for kind in ("half", "bfloat16", "single")},
    # the floor of the answer is that of the precision
    "analysis.memory_function callable": {("times", "single")},
    "analysis.fixed_points field": {("system", "nans")}
    | {("starts", f"axis -2 {kind}") for kind in ("empty", "of one", "longer")},
    "analysis.spectral_abscissa": {("W", "complex")},
    "linear.theory.LogGrid.build": {("breakpoints", "empty"), ("breakpoints", "number")},
    "analysis.plot_training": {("title", "number"), ("title", "list")},
}
# Messages that name an argument by what it is.
_CALLED: dict[str, dict[str, tuple[str, ...]]] = {
    "analysis.memory_function callable": {"system": ("<lambda>", "_raises")},
    "analysis.memory_capacity": {"dt": ("solve diverged",)},
    "analysis.lyapunov_exponents": {"times": ("x must be (time, d)",)},
}


def finished(calls: list[Call]) -> list[Call]:
    """The calls with what looks bad and is meant."""
    return [
        replace(call, known=call.known | _MEANT.get(call.name, set()), names={**call.names, **_CALLED.get(call.name, {})})
        for call in calls
    ]
