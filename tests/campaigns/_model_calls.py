"""Good calls of the functions of `odernn`: parts of models, and models themselves with what runs and trains them."""

from __future__ import annotations

from typing import Any

import torch

import odernn
from odernn import (
    activations,
    ensembles,
    generalization,
    losses,
    models,
    parameterizations,
    paths,
    readouts,
    recurrences,
    training,
    warm_start,
)

from ._calls import BATCH_FREE, T_FREE, Call, grid, samples, small_model


def part_calls() -> list[Call]:
    parameterization = parameterizations.get("softplus")
    data = {"t": grid(), "x": samples(), "y": samples(), "x_validation": samples(batch=2), "y_validation": samples(batch=2)}
    free_w = frozenset(
        {
            (name, kind)
            for name in ("w", "value")
            for kind in ("one rank more", "scalar", "axis -1 of one", "axis -1 longer", "axis -1 empty", "number", "inf", "-inf")
        }
    )
    calls = [
        Call(
            f"losses.{f.__name__}",
            f,
            lambda: {"y": samples(), "target": samples() + 1.0},
            known=frozenset({("y", "one rank more")}),
        )
        for f in (losses.mse, losses.time_weighted_mse, losses.relative_l2)
    ]
    calls += [
        Call("losses.time_weights", losses.time_weights, lambda: {"count": 5}),
        Call("losses.stability_penalty", losses.stability_penalty, lambda: {"model": small_model(), "margin": 5.0}),
        Call(
            "generalization.InputMoments.measured",
            generalization.InputMoments.measured,
            lambda: {"t": grid(), "x": samples(), "interpolation": "linear"},
            known=frozenset({("x", "axis -3 longer"), ("x", "axis -1 longer")}),
        ),
        Call(
            "generalization.InputMoments.given",
            generalization.InputMoments.given,
            lambda: {"t": grid(), "covariance": 1.0, "mean": 0.5},
            known=T_FREE,
        ),
        Call(
            "generalization.generalization_measure",
            generalization.generalization_measure,
            lambda: {"model": small_model(), "moments": generalization.InputMoments.measured(grid(), samples())},
        ),
        Call(
            "generalization.rescale_readout",
            generalization.rescale_readout,
            lambda: {"model": small_model(), "moments": generalization.InputMoments.measured(grid(), samples())},
        ),
        Call("ensembles.replicate", ensembles.replicate, lambda: {"model": small_model(), "n": 2}),
        Call("ensembles.stack", ensembles.stack, lambda: {"models": [small_model(), small_model()]}),
        Call("ensembles.member", ensembles.member, lambda: {"model": small_model(ensemble=(2,)), "index": 1}),
        Call(
            "warm_start.widen",
            warm_start.widen,
            lambda: {"narrow": small_model(), "wide": odernn.ContinuousRNN(1, 5, 1, "linear", "diagonal", dtype=torch.float64)},
            names={"narrow": ("warm start",), "wide": ("warm start",)},
        ),
        Call(
            "readouts.readout_along",
            readouts.readout_along,
            lambda: {"field": small_model().field(), "h": samples(d=3)},
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
        Call("Parameterization.__call__", parameterization.__call__, lambda: {"w": grid()}, known=free_w),
        Call("Parameterization.derivative", parameterization.derivative, lambda: {"w": grid()}, known=free_w),
        Call(
            "Parameterization.inverse",
            parameterization.inverse,
            lambda: {"value": -1 - grid()},
            known=free_w,
            names={"value": ("eigenvalue",)},
        ),
        Call("Parameterization.gradient_scale", parameterization.gradient_scale, lambda: {"w": grid()}, known=free_w),
        Call("training.Data", training.Data, lambda: data),
    ]
    return calls


def model_calls() -> list[Call]:
    free = BATCH_FREE
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
        model = small_model(kind)
        calls.append(
            Call(
                f"{kind.__name__}.forward",
                model.forward,
                lambda: {"x": samples(), "t": grid(), "h0": torch.zeros(3, 3, dtype=torch.float64)},
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
        Call("models.build", models.build, lambda: {"config": small_model().config()}),
        Call(
            "paths.interpolate",
            paths.interpolate,
            lambda: {"t": grid(), "x": samples(), "interpolation": "linear"},
            known=free | {("x", "one rank more")},
        ),
        Call("paths.heaviside", paths.heaviside, lambda: {"t": grid(), "amplitude": samples()[:, 0]}),
        Call("paths.pulse", paths.pulse, lambda: {"t": grid(), "amplitude": samples()[:, 0], "stop": 0.5}),
        Call(
            "ContinuousRNN.solve",
            small_model().solve,
            lambda: {"path": paths.linear(grid(), samples()), "t": grid()},
            known=T_FREE,
        ),
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
                "regularizer": "tau",
                "regularizer_weight": 0.1,
                "seed": 0,
            },
        ),
    ]
    return calls
