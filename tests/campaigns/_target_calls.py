"""Good calls of the functions of `targets`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import targets
from targets import grids, inputs, kernels, quadrature

from ._calls import T_FREE, Call, functional, grid, samples


def target_calls() -> list[Call]:
    return [*(call for H in _teachers() for call in _functional_calls(H)), *_kernel_calls(), *_input_calls()]


def _teachers() -> list[Any]:
    return [
        functional(),
        targets.NonlinearFunctional(functional(), "tanh"),
        targets.TeacherFunctional(torch.nn.GRU(1, 2, batch_first=True).double(), input_size=1),
    ]


def _functional_calls(H: Any) -> list[Call]:
    name = type(H).__name__
    many = frozenset({("x", "one rank more"), ("x", "axis -3 missing"), ("x", "axis -3 of one"), ("x", "axis -3 longer")})
    calls = [Call(f"targets.{name}.__call__", H.__call__, lambda: {"x": samples(), "t": grid()}, known=many)]
    if isinstance(H, targets.StepResponseFunctional):
        more = frozenset({("x", "one rank more"), ("x", "axis -2 missing"), ("x", "axis -2 of one"), ("x", "axis -2 longer")})
        free = frozenset({("t", f"axis -1 {kind}") for kind in ("longer", "of one")})
        for step in ("step", "rate"):
            calls.append(
                Call(f"targets.{name}.{step}", getattr(H, step), lambda: {"t": grid(), "x": samples()[:, 0]}, known=more | free)
            )
    return calls


def _kernel_calls() -> list[Call]:
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
        Call(
            "named_objects.named_object",
            targets.named_objects.named_object,
            lambda: {"spec": "numpy:exp"},
            names={"spec": ("no such", "names nothing")},
        ),
        Call("kernels.get", k.get, lambda: {"name": "exponential"}, names={"name": ("kernel",)}),
        Call("kernels.load", k.load, lambda: {"spec": "exponential:rate=2"}, names={"spec": ("kernel",)}),
        Call(
            "kernels.from_callable",
            k.from_callable,
            lambda: {"f": lambda t: np.exp(-t), "name": "mine", "breakpoints": (1.0,), "decay": "exponential"},
            names={"f": ("kernel",)},
            known=frozenset({("name", "unknown name"), ("name", "empty name"), ("breakpoints", "empty")}),
        ),
        Call(
            "kernels.Kernel",
            k.Kernel,
            lambda: {
                "name": "mine",
                "rho": lambda t: np.exp(-t),
                "label": "f",
                "decay": "exponential",
                "breakpoints": (1.0,),
                "parameters": {},
                "size": 1,
            },
            names={"rho": ("kernel",)},
            known=frozenset({(a, b) for a in ("name", "label") for b in ("unknown name", "empty name")}),
        ),
        Call("kernels.Kernel.__call__", k.exponential().__call__, lambda: {"t": grid()}, known=any_t),
        Call("kernels.Kernel.values", k.exponential().values, lambda: {"times": grid().numpy()}),
        Call(
            "ConvolutionalFunctional",
            targets.ConvolutionalFunctional,
            lambda: {"kernel": k.exponential(), "interpolation": "linear"},
        ),
        Call(
            "NonlinearFunctional",
            targets.NonlinearFunctional,
            lambda: {"functional": functional(), "psi": "tanh"},
        ),
        Call(
            "TeacherFunctional",
            targets.TeacherFunctional,
            lambda: {"module": torch.nn.Identity(), "input_size": 1},
        ),
        Call(
            "quadrature.moments",
            quadrature.moments,
            lambda: {"kernel": k.exponential(), "left": grid()[:-1], "right": grid()[1:]},
            names={"left": ("cell",), "right": ("cell",)},
        ),
        Call("grids.times", grids.times, lambda: {"t": grid()}, known=T_FREE),
        Call("grids.even_step", grids.even_step, lambda: {"t": grid()}, known=T_FREE),
        Call("inputs.get", inputs.get, lambda: {"name": "white_noise"}, names={"name": ("input",)}),
    ]


def _input_calls() -> list[Call]:
    common: dict[str, Any] = {"batch": 3, "channels": 2, "seed": 0, "amplitude": 2.0}
    own: dict[str, dict[str, Any]] = {
        "white_noise": {},
        "ornstein_uhlenbeck": {"timescale": 1.0},
        "gaussian_process": {"length_scale": 1.0},
        "random_fourier": {"length_scales": (0.3, 30.0), "features": 8},
    }
    return [
        Call(f"inputs.{name}", inputs.INPUTS[name], lambda more=more: {"t": grid(), **common, **more}, known=T_FREE)
        for name, more in own.items()
    ]
