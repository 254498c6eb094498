"""Linear state-space models trained on few sequences: their generalisation measure, and the gap to many others."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from odernn.generalization import InputMoments, generalization_measure, rescale_readout
from odernn.models import StateSpaceModel
from odernn.solvers import Exact
from odernn.training import Data, Trainer, TrainingConfig
from targets import inputs, kernels
from targets.functionals import ConvolutionalFunctional

from ..engine.figure import job

# Sequences of [0, 1] have so many samples, as published.
_SAMPLES = 101
# Inputs of training, of the test, and noise come from streams this far apart.
_TEST, _NOISE = 1_000_000, 2_000_000


@job("few-sequences")
def few_sequences(
    target: str,
    correlation: float,
    weight: float,
    rescaled: bool,
    hidden_size: int,
    sequences: int,
    test_sequences: int,
    noise: float,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> dict[str, Any]:
    """Trains dh/dt = W h + U x, y = c^T h on the label of whole sequences, and judges it on others.

    Inputs on [0, 1] are gaussian with covariance e^{-(s-t)^2 / b^2} / (b pi^(1/2)), which becomes white as b falls. W starts with
    the eigenvalues -1/2 +- i pi n of S4D-Lin. Losses are mean squares at time 1, by full-batch Adam.

    Args:
        target: 'middle', the label sin(x(1/2)), or a kernel, for the label int rho(1 - s) x(s) ds.
        correlation: b.
        weight: lambda of the regulariser tau, 0 for none.
        rescaled: whether the readout is divided by tau^(1/2) before training.
        sequences, test_sequences: how many.
        noise: its standard deviation in the labels of training, relative to that of the labels.

    Returns:
        "start": root mean square of the test outputs before training; "start_tau", "tau": the measure before and after;
        "training", "test": mean square errors, that of the test for labels with as much noise; "label": variance of the labels.
    """
    t = torch.linspace(0, 1, _SAMPLES, dtype=torch.float64)
    x, x_test = (_inputs(t, size, correlation, stream) for size, stream in ((sequences, seed), (test_sequences, seed + _TEST)))
    label, label_test = _labels(target, x, t), _labels(target, x_test, t)
    spread = float(label_test.std())
    label = label + noise * spread * torch.randn(sequences, generator=torch.Generator().manual_seed(seed + _NOISE)).to(label)
    moments = InputMoments.measured(t, x)
    model = _model(hidden_size, seed)
    if rescaled:
        rescale_readout(model, moments)
    data = _at_the_end(t, x, label)
    config = TrainingConfig(
        "adam",
        epochs=epochs,
        lr=learning_rate,
        batch_size=sequences,
        regularizer="tau" if weight else "none",
        regularizer_weight=weight or None,
    )
    with torch.no_grad():
        start, start_tau = float(_outputs(model, x_test, t).square().mean().sqrt()), float(generalization_measure(model, moments))
    Trainer(model, data, config, solver=Exact()).run(progress=False)
    with torch.no_grad():
        errors = [float((_outputs(model, *each[:1], t) - each[1]).square().mean()) for each in ((x, label), (x_test, label_test))]
        tau = float(generalization_measure(model, moments))
    return {
        "start": start,
        "start_tau": start_tau,
        "tau": tau,
        "training": errors[0],
        "test": errors[1] + (noise * spread) ** 2,
        "label": spread**2,
    }


def _inputs(t: Tensor, size: int, correlation: float, seed: int) -> Tensor:
    amplitude = (correlation * math.sqrt(math.pi)) ** -0.5
    return inputs.gaussian_process(t, size, seed=seed, amplitude=amplitude, length_scale=correlation / math.sqrt(2))


def _labels(target: str, x: Tensor, t: Tensor) -> Tensor:
    if target == "middle":
        return x[:, len(t) // 2, 0].sin()
    return ConvolutionalFunctional(kernels.load(target))(x, t)[:, -1, 0]


def _model(hidden_size: int, seed: int) -> StateSpaceModel:
    model = StateSpaceModel(1, hidden_size, 1, "linear", "complex", "exp", bias=False, seed=seed, dtype=torch.float64)
    turns = math.pi * torch.arange(hidden_size // 2, dtype=torch.float64)
    turning = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    model.set_matrix(torch.kron(torch.diag(turns), turning) - 0.5 * torch.eye(hidden_size, dtype=torch.float64))
    with torch.no_grad():  # B = 1 of every mode
        model.layer_weights[0].U.copy_(torch.tensor([[1.0], [0.0]]).repeat(hidden_size // 2, 1))
    return model


def _at_the_end(t: Tensor, x: Tensor, label: Tensor) -> Data:
    """Targets at the last time alone. Nothing is chosen by validation, which has two sequences."""
    y = torch.full_like(x, math.nan)
    y[:, -1, 0] = label
    return Data(t, x, y, x[:2], y[:2])


def _outputs(model: StateSpaceModel, x: Tensor, t: Tensor) -> Tensor:
    return model(x, t, solver=Exact())[:, -1, 0]
