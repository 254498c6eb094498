"""A good call of every public function, for campaigns to spoil."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import analysis
import odernn
import targets
from analysis import dynamics, linear_theory, systems
from odernn import (
    activations,
    ensembles,
    losses,
    models,
    parameterizations,
    paths,
    readouts,
    recurrences,
    training,
    warm_start,
)
from targets import grids, inputs, kernels, quadrature

_TMP = Path(tempfile.mkdtemp(prefix="callers"))


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


def _t(n: int = 11, end: float = 2.0) -> Tensor:
    return torch.linspace(0, end, n, dtype=torch.float64)


def _x(n: int = 11, batch: int = 3, d: int = 1) -> Tensor:
    return torch.randn(batch, n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _model(kind: type = odernn.ContinuousRNN, d: int = 1, **settings: Any) -> Any:
    return kind(d, 3, 1, dtype=torch.float64, **{"activation": "linear", "recurrence": "diagonal", "seed": 0, **settings})


def _dense(**settings: Any) -> Any:
    return _model(recurrence="dense", activation="tanh", **settings)


def _H() -> targets.ConvolutionalFunctional:
    return targets.ConvolutionalFunctional(kernels.exponential())


def _functional(H: Any) -> list[Call]:
    name = type(H).__name__
    many = frozenset({("x", "one rank more"), ("x", "axis -3 missing"), ("x", "axis -3 of one"), ("x", "axis -3 longer")})
    calls = [Call(f"targets.{name}.__call__", H.__call__, lambda: {"x": _x(), "t": _t()}, known=many)]
    if isinstance(H, targets.DifferentiableFunctional):
        more = frozenset({("x", "one rank more"), ("x", "axis -2 missing"), ("x", "axis -2 of one"), ("x", "axis -2 longer")})
        free = frozenset({("t", f"axis -1 {kind}") for kind in ("longer", "of one")})
        for step in ("step", "rate"):
            calls.append(
                Call(f"targets.{name}.{step}", getattr(H, step), lambda: {"t": _t(), "x": _x()[:, 0]}, known=more | free)
            )
    return calls


_T_FREE = frozenset({("t", "axis -1 of one"), ("t", "axis -1 longer")})
_TIMES_FREE = frozenset({("times", "axis -1 of one"), ("times", "axis -1 longer")})
_BATCH_FREE = frozenset({("x", "axis -3 longer"), ("x", "axis -3 of one")})


def _kernels() -> list[Call]:
    k = kernels
    any_t = frozenset(
        {("t", kind) for kind in ("one rank more", "scalar", "number", "axis -1 of one", "axis -1 longer", "inf", "-inf")}
    )
    return [
        Call("kernels.exponential rate", k.exponential, lambda: {"rate": 2.0}),
        Call("kernels.exponential base", k.exponential, lambda: {"base": 0.9}),
        Call("kernels.polynomial", k.polynomial, lambda: {"exponent": 1.5, "scale": 2.0}),
        Call("kernels.shift", k.shift, lambda: {"start": 0.5, "stop": 3.0}),
        Call("kernels.two_part", k.two_part, lambda: {"center": 9.0}),
        Call("kernels.airy", k.airy, lambda: {"shift": 6.0}),
        Call("kernels.sine", k.sine, lambda: {"frequency": 2.0}),
        Call("kernels.stack", k.stack, lambda: {"kernels": [k.exponential(), k.sine()]}, names={"kernels": ("stack", "kernel")}),
        Call("kernels.custom", k.custom, lambda: {"spec": "numpy:exp"}, names={"spec": ("no such", "names nothing")}),
        Call("kernels.named_object", k.named_object, lambda: {"spec": "numpy:exp"}, names={"spec": ("no such", "names nothing")}),
        Call("kernels.get", k.get, lambda: {"name": "exponential"}, names={"name": ("kernel",)}),
        Call("kernels.load", k.load, lambda: {"spec": "exponential:rate=2"}, names={"spec": ("kernel",)}),
        Call(
            "kernels.from_callable",
            k.from_callable,
            lambda: {"f": lambda t: np.exp(-t), "name": "mine", "formula": "f", "breakpoints": (1.0,), "decay": "exponential"},
            names={"f": ("kernel",)},
            known=frozenset(
                {(a, b) for a in ("name", "formula") for b in ("unknown name", "empty name")} | {("breakpoints", "empty")}
            ),
        ),
        Call(
            "kernels.Kernel",
            k.Kernel,
            lambda: {
                "name": "mine",
                "rho": lambda t: np.exp(-t),
                "formula": "f",
                "label": "f",
                "decay": "exponential",
                "breakpoints": (1.0,),
                "parameters": {},
                "size": 1,
            },
            names={"rho": ("kernel",)},
            known=frozenset({(a, b) for a in ("name", "formula", "label") for b in ("unknown name", "empty name")}),
        ),
        Call("kernels.Kernel.__call__", k.exponential().__call__, lambda: {"t": _t()}, known=any_t),
        Call("kernels.Kernel.values", k.exponential().values, lambda: {"times": _t().numpy()}),
        Call(
            "ConvolutionalFunctional",
            targets.ConvolutionalFunctional,
            lambda: {"kernel": k.exponential(), "interpolation": "linear"},
        ),
        Call("ConvolutionalFunctional.memory", _H().memory, lambda: {"t": _t()}, known=any_t),
        Call(
            "NonlinearFunctional",
            targets.NonlinearFunctional,
            lambda: {"functional": _H(), "psi": "tanh"},
        ),
        Call(
            "TeacherFunctional",
            targets.TeacherFunctional,
            lambda: {"module": torch.nn.Identity(), "input_size": 1},
        ),
        Call(
            "quadrature.moments",
            quadrature.moments,
            lambda: {"kernel": k.exponential(), "left": _t()[:-1], "right": _t()[1:]},
            names={"left": ("cell",), "right": ("cell",)},
        ),
        Call("grids.times", grids.times, lambda: {"t": _t()}, known=_T_FREE),
        Call("grids.even_step", grids.even_step, lambda: {"t": _t()}, known=_T_FREE),
        Call("inputs.get", inputs.get, lambda: {"name": "white_noise"}, names={"name": ("input",)}),
    ]


def _inputs() -> list[Call]:
    common: dict[str, Any] = {"batch": 3, "channels": 2, "seed": 0, "amplitude": 2.0}
    own: dict[str, dict[str, Any]] = {
        "white_noise": {},
        "ornstein_uhlenbeck": {"timescale": 1.0},
        "gaussian_process": {"length_scale": 1.0},
        "random_fourier": {"length_scales": (0.3, 30.0), "features": 8},
    }
    return [
        Call(f"inputs.{name}", inputs.INPUTS[name], lambda more=more: {"t": _t(), **common, **more}, known=_T_FREE)
        for name, more in own.items()
    ]


def _odernn() -> list[Call]:
    y = _x
    pair = frozenset({(name, kind) for name in ("y", "target") for kind in ()})
    parameterization = parameterizations.get("softplus")
    data = {"t": _t(), "x": _x(), "y": _x(), "x_validation": _x(batch=2), "y_validation": _x(batch=2)}
    free_w = frozenset(
        {
            (name, kind)
            for name in ("w", "value")
            for kind in ("one rank more", "scalar", "axis -1 of one", "axis -1 longer", "axis -1 empty", "number", "inf", "-inf")
        }
    )
    calls = [
        Call(f"losses.{f.__name__}", f, lambda: {"y": y(), "target": y() + 1.0}, known=pair | frozenset({("y", "one rank more")}))
        for f in (losses.mse, losses.time_weighted_mse, losses.relative_l2)
    ]
    calls += [
        Call("losses.time_weights", losses.time_weights, lambda: {"count": 5, "power": 2.0}),
        Call("losses.stability_penalty", losses.stability_penalty, lambda: {"model": _model(), "margin": 5.0}),
        Call("ensembles.replicate", ensembles.replicate, lambda: {"model": _model(), "n": 2}),
        Call("ensembles.stack", ensembles.stack, lambda: {"models": [_model(), _model()]}),
        Call("ensembles.member", ensembles.member, lambda: {"model": _model(ensemble=(2,)), "index": 1}),
        Call(
            "warm_start.embed",
            warm_start.embed,
            lambda: {"narrow": _model(), "wide": odernn.ContinuousRNN(1, 5, 1, "linear", "diagonal", dtype=torch.float64)},
            names={"narrow": ("warm start",), "wide": ("warm start",)},
        ),
        Call(
            "readouts.readout_along",
            readouts.readout_along,
            lambda: {"field": _model().field(), "h": _x(d=3)},
            known=frozenset(
                {
                    ("h", kind)
                    for kind in ("one rank more", "axis -2 of one", "axis -2 longer", "axis -3 of one", "axis -3 longer")
                }
            ),
        ),
        Call(
            "parameterizations.get",
            parameterizations.get,
            lambda: {"name": "inverse", "time": "continuous", "a": 1.0, "b": 0.5},
            names={"name": ("parameterization",), "a": ("a=", "a:"), "b": ("b=", "b:")},
        ),
        Call("Parameterization.__call__", parameterization.__call__, lambda: {"w": _t()}, known=free_w),
        Call("Parameterization.derivative", parameterization.derivative, lambda: {"w": _t()}, known=free_w),
        Call(
            "Parameterization.inverse",
            parameterization.inverse,
            lambda: {"value": -1 - _t()},
            known=free_w,
            names={"value": ("eigenvalue",)},
        ),
        Call("Parameterization.gradient_scale", parameterization.gradient_scale, lambda: {"w": _t()}, known=free_w),
        Call("training.Data", training.Data, lambda: data),
    ]
    return calls


def _others() -> list[Call]:
    free = _BATCH_FREE
    calls = []
    for kind in (odernn.ContinuousRNN, odernn.StateSpaceModel, odernn.DiscreteRNN, odernn.DiscreteSSM):
        settings: dict[str, Any] = {
            "input_size": 1,
            "hidden_size": 2,
            "output_size": 1,
            "activation": "tanh",
            "recurrence": "diagonal",
            "parameterization": "direct",
            "num_layers": 1,
            "ensemble": (2,),
            "seed": 0,
        }
        calls.append(Call(kind.__name__, kind, lambda settings=settings: settings))
        model = _model(kind)
        calls.append(
            Call(
                f"{kind.__name__}.forward",
                model.forward,
                lambda: {"x": _x(), "t": _t(), "h0": torch.zeros(3, 3, dtype=torch.float64)},
                known=free,
            )
        )
        calls.append(
            Call(
                f"{kind.__name__}.set_matrix",
                model.set_matrix,
                lambda: {"W": torch.diag(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)), "layer": 0},
            )
        )
    calls += [
        Call("activations.get", activations.get, lambda: {"name": "tanh"}, names={"name": ("activation",)}),
        Call("models.build", models.build, lambda: {"config": _model().config()}),
        Call(
            "paths.interpolate",
            paths.interpolate,
            lambda: {"t": _t(), "x": _x(), "interpolation": "linear"},
            known=free | {("x", "one rank more")},
        ),
        Call("paths.heaviside", paths.heaviside, lambda: {"t": _t(), "amplitude": _x()[:, 0]}),
        Call("paths.pulse", paths.pulse, lambda: {"t": _t(), "amplitude": _x()[:, 0], "stop": 0.5}),
        Call("ContinuousRNN.solve", _model().solve, lambda: {"path": paths.linear(_t(), _x()), "t": _t()}, known=_T_FREE),
        Call(
            "recurrences.create",
            recurrences.create,
            lambda: {
                "name": "dense",
                "size": 3,
                "parameterization": parameterizations.get("direct"),
                "ensemble": (2,),
                "generator": torch.Generator(),
            },
            names={"name": ("recurrence",)},
        ),
        Call(
            "solvers.TorchDiffEq",
            odernn.TorchDiffEq,
            lambda: {"method": "dopri5", "rtol": 1e-5, "atol": 1e-7, "adjoint": False},
        ),
        Call("solvers.TorchDiffEq step", odernn.TorchDiffEq, lambda: {"method": "rk4", "step_size": 0.1}),
        Call("solvers.Fused", odernn.Fused, lambda: {}),
        Call(
            "training.TrainingConfig",
            training.TrainingConfig,
            lambda: {
                "optimizer": "adam",
                "epochs": 2,
                "iterations": 1,
                "batch_size": 2,
                "lr": 0.1,
                "schedule": "none",
                "gradient_clip": 1.0,
                "patience": 0,
                "loss": "mse",
                "weight_decay": 0.1,
                "margin": 0.1,
                "margin_weight": 0.1,
                "seed": 0,
            },
        ),
        Call(
            "analysis.fit_decay",
            analysis.fit_decay,
            lambda: {"M": (_t(60, 20), torch.exp(-_t(60, 20))), "floor": 1e-12},
            # above every value: undecided, for want of samples
            known=frozenset({("floor", kind) for kind in ("huge", "huge float", "fraction")}),
        ),
        Call("analysis.laplace_sum", analysis.laplace_sum, lambda: {"exponent": 1.5, "m": 3, "scale": 1.0}),
        Call(
            "analysis.fit_amplitudes",
            analysis.fit_amplitudes,
            lambda: {"kernel": kernels.exponential(), "rates": _t() + 1, "t": _t(30), "ridge": 1e-3},
        ),
        Call(
            "analysis.fit_kernel",
            analysis.fit_kernel,
            lambda: {
                "kernel": kernels.exponential(),
                "m": 2,
                "horizon": 10.0,
                "parameterization": "direct",
                "starts": 1,
                "seed": 0,
            },
        ),
        Call(
            "analysis.fit_minimax",
            analysis.fit_minimax,
            lambda: {"kernel": kernels.exponential(), "m": 2, "horizon": 10.0, "beta0": 0.01, "rounds": 1},
        ),
        Call(
            "analysis.perturbation_error",
            analysis.perturbation_error,
            lambda: {
                "model": _dense(seed=0),
                "target": _H(),
                "x": _x(),
                "t": _t(),
                "betas": [0.0, 0.1],
                "draws": 2,
                "restarts": 1,
                "steps": 2,
                "seed": 0,
                "norm": "spectral",
                "error": "mse",
                "blocks": "all",
            },
        ),
        Call(
            "analysis.Family",
            analysis.Family,
            lambda: {
                "model": "rnn",
                "activation": "tanh",
                "widths": (2, 4),
                "horizon": 10.0,
                "points": 20,
                "amplitude": 1.0,
                "sequences": 2,
                "starts": 1,
                "steps": 2,
                "weight_decay": 0.0,
                "seed": 0,
            },
        ),
        Call(
            "analysis.judge_stable_approximation",
            analysis.judge_stable_approximation,
            lambda: {"curves": [_curve(2), _curve(4)]},
        ),
        Call("analysis.crossing", analysis.crossing, lambda: {"narrow": _curve(2), "wide": _curve(4)}),
    ]
    return calls


def _curve(m: int) -> Any:
    model = odernn.ContinuousRNN(1, m, 1, "tanh", seed=0, dtype=torch.float64)
    return analysis.perturbation_error(model, _H(), _x(), _t(), [0.0, 0.1, 0.3], draws=2, restarts=1, steps=2)


def _analysis() -> list[Call]:
    matrix = torch.diag(torch.tensor([-0.1, -0.2, -0.3], dtype=torch.float64))
    t = _t(21)
    calls = []
    for name, system in {
        "linear": _model(),
        "tanh": _dense(),
        "discrete": _model(odernn.DiscreteRNN),
        "GRU": torch.nn.GRU(1, 2, batch_first=True),
        "functional": _H(),
    }.items():
        calls.append(
            Call(
                f"analysis.memory_function {name}",
                analysis.memory_function,
                lambda system=system: {
                    "system": system,
                    "times": t,
                    "probe": "heaviside",
                    "amplitudes": (0.1, 1.0),
                    "warmup": 0.0,
                    "ascent_steps": 2,
                    "seed": 0,
                    "input_size": 1,
                },
                known=_TIMES_FREE,
            )
        )
    calls += [
        Call(
            "analysis.memory_function callable",
            analysis.memory_function,
            lambda: {
                "system": lambda x: x.cumsum(1),
                "times": t,
                "dt": 0.1,
                "hold": 3.0,
                "probe": "reversed",
                "directions": torch.ones(1, 1, dtype=torch.float64),
            },
            known=_TIMES_FREE | {("directions", "axis -2 longer"), ("directions", "axis -2 of one")},
        ),
        Call(
            "MemoryFunction.__getitem__",
            lambda **a: analysis.memory_function(_model(ensemble=(2,)), t)[a["member"]],
            lambda: {"member": 1},
            names={"member": ("index",)},
        ),
        Call(
            "analysis.memory_capacity",
            analysis.memory_capacity,
            lambda: {
                "system": _dense(),
                "times": torch.arange(4, dtype=torch.float64),
                "amplitude": 0.1,
                "warmup": 5.0,
                "samples": 200,
                "dt": 1.0,
                "input_size": 1,
                "seed": 0,
            },
            known=_TIMES_FREE,
        ),
        Call(
            "analysis.lyapunov_exponents",
            analysis.lyapunov_exponents,
            lambda: {
                "system": _dense(),
                "times": t,
                "x": torch.ones(21, 1, dtype=torch.float64),
                "h0": torch.zeros(3, dtype=torch.float64),
                "count": 2,
                "transient": 0.2,
                "interpolation": "linear",
                "seed": 0,
            },
        ),
        Call(
            "analysis.lyapunov_exponents field",
            analysis.lyapunov_exponents,
            lambda: {"system": lambda h: -h, "times": t, "size": 2},
            known=_TIMES_FREE,
        ),
        Call(
            "analysis.fixed_points",
            analysis.fixed_points,
            lambda: {
                "system": _dense(),
                "x": torch.ones(1, dtype=torch.float64),
                "starts": 3,
                "scale": 1.0,
                "dt": 1.0,
                "seed": 0,
            },
        ),
        Call(
            "analysis.fixed_points field",
            analysis.fixed_points,
            lambda: {"system": lambda h: -h, "size": 2, "starts": torch.ones(2, 2, dtype=torch.float64)},
        ),
        Call("dynamics.dynamics", dynamics.dynamics, lambda: {"system": torch.nn.GRU(1, 2), "dt": 1.0}),
        Call("systems.sample_index", systems.sample_index, lambda: {"times": t, "dt": 0.1}, known=_TIMES_FREE),
        Call(
            "analysis.spectral_abscissa",
            analysis.spectral_abscissa,
            lambda: {"W": matrix},
            known=frozenset({("W", "one rank more")}),
        ),
        Call(
            "analysis.complex_stability_radius",
            analysis.complex_stability_radius,
            lambda: {"W": matrix, "time": "continuous", "tolerance": 1e-9},
        ),
        Call("analysis.stability_margin", analysis.stability_margin, lambda: {"model": _model()}),
        Call("analysis.structured_radius", analysis.structured_radius, lambda: {"model": _model()}),
        Call("analysis.raw_radius", analysis.raw_radius, lambda: {"model": _model()}),
        Call("analysis.gradient_over_weight", analysis.gradient_over_weight, lambda: {"model": _with_gradient()}),
        Call("analysis.stability_report", analysis.stability_report, lambda: {"model": _model()}),
        Call(
            "linear_theory.LogGrid.build",
            linear_theory.LogGrid.build,
            lambda: {"horizon": 10.0, "breakpoints": (1.0,), "panels_per_octave": 2, "nodes_per_panel": 8},
        ),
        Call(
            "linear_theory.KernelL1.build",
            linear_theory.KernelL1.build,
            lambda: {"kernel": kernels.exponential(), "horizon": 10.0, "nodes_per_panel": 8},
        ),
        Call(
            "linear_theory.kernel_distance",
            linear_theory.kernel_distance,
            lambda: {"model": _stable(), "target": _H(), "horizon": 10.0},
        ),
        Call(
            "linear_theory.impulse_kernel",
            linear_theory.impulse_kernel,
            lambda: {"field": _stable().field(), "grid": linear_theory.LogGrid.build(10.0)},
        ),
        Call("linear_theory.linear_kernel", linear_theory.linear_kernel, lambda: {"model": _stable(), "target": _H()}),
        Call(
            "analysis.plot_training",
            analysis.plot_training,
            lambda: {
                "history": [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.3}],
                "path": str(_TMP / "a.png"),
                "title": "a",
            },
            known=frozenset({("title", "unknown name"), ("title", "empty name")}),
        ),
        Call(
            "analysis.plot_memory",
            analysis.plot_memory,
            lambda: {"M": analysis.memory_function(_model(), t), "path": str(_TMP / "b.png")},
        ),
        Call(
            "analysis.plot_perturbation",
            analysis.plot_perturbation,
            lambda: {"panels": {"a": [_curve(2)]}, "path": str(_TMP / "c.png")},
        ),
    ]
    return calls


def _with_gradient() -> Any:
    model = _model()
    model(_x(), _t()).square().mean().backward()
    return model


def _stable() -> Any:
    return _model(parameterization="softplus")


def _teachers() -> list[Any]:
    return [
        _H(),
        targets.NonlinearFunctional(_H(), "tanh"),
        targets.TeacherFunctional(torch.nn.GRU(1, 2, batch_first=True).double(), input_size=1),
    ]


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
    "linear_theory.LogGrid.build": {("breakpoints", "empty"), ("breakpoints", "number")},
    "systems.sample_index": {("dt", "none")},
    "analysis.plot_training": {("title", "number"), ("title", "list")},
}
# Messages that name an argument by what it is.
_CALLED: dict[str, dict[str, tuple[str, ...]]] = {
    "analysis.memory_function callable": {"system": ("<lambda>", "_raises")},
    "analysis.memory_capacity": {"dt": ("solve diverged",)},
    "analysis.lyapunov_exponents": {"times": ("x must be (time, d)",)},
}


def _finished(calls: list[Call]) -> list[Call]:
    return [
        replace(call, known=call.known | _MEANT.get(call.name, set()), names={**call.names, **_CALLED.get(call.name, {})})
        for call in calls
    ]


CALLS = _finished([*(call for H in _teachers() for call in _functional(H)), *_kernels(), *_inputs(), *_odernn(), *_analysis()])
# Models, solvers, training settings, fits and families.
MODEL_CALLS = _finished(_others())
