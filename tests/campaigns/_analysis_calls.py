"""Good calls of the functions of `analysis`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

import analysis
import odernn
from analysis import probes
from analysis.linear import theory
from targets import kernels

from ._calls import TIMES_FREE, Call, curve, dense_model, functional, grid, samples, small_model

_TMP = Path(tempfile.mkdtemp(prefix="callers"))


def fit_calls() -> list[Call]:
    return [
        Call(
            "analysis.fit_decay",
            analysis.fit_decay,
            lambda: {"M": (grid(60, 20), torch.exp(-grid(60, 20))), "floor": 1e-12},
            # above every value: undecided, for want of samples
            known=frozenset({("floor", kind) for kind in ("huge", "huge float", "fraction")}),
        ),
        Call("analysis.laplace_sum", analysis.laplace_sum, lambda: {"exponent": 1.5, "m": 3, "scale": 1.0}),
        Call(
            "analysis.fit_amplitudes",
            analysis.fit_amplitudes,
            lambda: {"kernel": kernels.exponential(), "rates": grid() + 1, "t": grid(30), "ridge": 1e-3},
        ),
        Call(
            "analysis.fit_kernel",
            analysis.fit_kernel,
            lambda: {
                "kernel": kernels.exponential(),
                "m": 2,
                "horizon": 10.0,
                "parameterization": "direct",
                "seed": 0,
            },
        ),
        Call(
            "analysis.fit_minimax",
            analysis.fit_minimax,
            lambda: {"kernel": kernels.exponential(), "m": 2, "horizon": 10.0, "beta0": 0.01},
            known=frozenset({("beta0", "tensor")}),  # in single precision: the exchange ends elsewhere
        ),
        Call(
            "analysis.linear_curves",
            analysis.linear_curves,
            lambda: {"kernel": kernels.exponential(), "parameterization": "direct", "widths": (1,), "horizon": 10.0, "seed": 0},
        ),
        Call(
            "analysis.perturbation_error",
            analysis.perturbation_error,
            lambda: {
                "model": dense_model(seed=0),
                "target": functional(),
                "x": samples(),
                "t": grid(),
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
            lambda: {"curves": [curve(2), curve(4)]},
        ),
        Call("analysis.crossing", analysis.crossing, lambda: {"narrow": curve(2), "wide": curve(4)}),
    ]


def analysis_calls() -> list[Call]:
    matrix = torch.diag(torch.tensor([-0.1, -0.2, -0.3], dtype=torch.float64))
    t = grid(21)
    calls = []
    for name, system in {
        "linear": small_model(),
        "tanh": dense_model(),
        "discrete": small_model(odernn.DiscreteRNN),
        "GRU": torch.nn.GRU(1, 2, batch_first=True),
        "functional": functional(),
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
                known=TIMES_FREE,
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
            known=TIMES_FREE | {("directions", "axis -2 longer"), ("directions", "axis -2 of one")},
        ),
        Call(
            "MemoryFunction.__getitem__",
            lambda **a: analysis.memory_function(small_model(ensemble=(2,)), t)[a["member"]],
            lambda: {"member": 1},
            names={"member": ("index",)},
        ),
        Call(
            "analysis.memory_capacity",
            analysis.memory_capacity,
            lambda: {
                "system": dense_model(),
                "times": torch.arange(4, dtype=torch.float64),
                "amplitude": 0.1,
                "warmup": 5.0,
                "samples": 200,
                "dt": 1.0,
                "input_size": 1,
                "seed": 0,
            },
            known=TIMES_FREE,
        ),
        Call(
            "analysis.lyapunov_exponents",
            analysis.lyapunov_exponents,
            lambda: {
                "system": dense_model(),
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
            known=TIMES_FREE,
        ),
        Call(
            "analysis.fixed_points",
            analysis.fixed_points,
            lambda: {
                "system": dense_model(),
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
        Call("probes.dynamics", probes.dynamics, lambda: {"system": torch.nn.GRU(1, 2), "dt": 1.0}),
        Call(
            "analysis.spectral_abscissa",
            analysis.spectral_abscissa,
            lambda: {"W": matrix},
            known=frozenset({("W", "one rank more")}),
        ),
        Call(
            "analysis.complex_stability_radius",
            analysis.complex_stability_radius,
            lambda: {"W": matrix, "time": "continuous"},
        ),
        Call("analysis.stability_margin", analysis.stability_margin, lambda: {"model": small_model()}),
        Call("analysis.structured_radius", analysis.structured_radius, lambda: {"model": small_model()}),
        Call("analysis.raw_radius", analysis.raw_radius, lambda: {"model": small_model()}),
        Call("analysis.gradient_over_weight", analysis.gradient_over_weight, lambda: {"model": _with_gradient()}),
        Call("analysis.stability_report", analysis.stability_report, lambda: {"model": small_model()}),
        Call(
            "linear.theory.LogGrid.build",
            theory.LogGrid.build,
            lambda: {"horizon": 10.0, "breakpoints": (1.0,), "panels_per_octave": 2, "nodes_per_panel": 8},
        ),
        Call(
            "linear.theory.KernelL1.build",
            theory.KernelL1.build,
            lambda: {"kernel": kernels.exponential(), "horizon": 10.0, "nodes_per_panel": 8},
        ),
        Call(
            "linear.theory.kernel_distance",
            theory.kernel_distance,
            lambda: {"model": _stable(), "target": functional(), "horizon": 10.0},
        ),
        Call(
            "linear.theory.impulse_kernel",
            theory.impulse_kernel,
            lambda: {"field": _stable().field(), "grid": theory.LogGrid.build(10.0)},
        ),
        Call("linear.theory.linear_kernel", theory.linear_kernel, lambda: {"model": _stable(), "target": functional()}),
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
            lambda: {"M": analysis.memory_function(small_model(), t), "path": str(_TMP / "b.png")},
        ),
        Call(
            "analysis.plot_perturbation",
            analysis.plot_perturbation,
            lambda: {"panels": {"a": [curve(2)]}, "path": str(_TMP / "c.png")},
        ),
    ]
    return calls


def _with_gradient() -> Any:
    model = small_model()
    model(samples(), grid()).square().mean().backward()
    return model


def _stable() -> Any:
    return small_model(parameterization="softplus")
