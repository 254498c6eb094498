"""Sensitivity and curvature of linear models against their slowest rate ([VEG] Fig 1, 2), and beside their stability."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from odernn.linear_recurrent_unit import LinearRecurrentUnit
from odernn.models import ContinuousRNN, DiscreteSSM, SequenceModel, StateSpaceModel
from odernn.state_matrices import DiagonalMatrix
from targets import Kernel, inputs, kernels

from ...linear.fits import fit_kernel
from ...linear.theory import kernel_distance
from ...perturbation import PerturbationCurve, perturbation_error
from ...sensitivity.expected import expected_gauss_newton, expected_loss, expected_sensitivity
from ...sensitivity.measured import measured_sensitivity
from ...sensitivity.noise import Correlated, WhiteNoise
from ..engine.figure import job

_WEIGHT = "layers.0.recurrence.w"
# Of the recurrence 'lru', whose frequencies are positive: so far below the rate that they have no effect.
_LEAST_FREQUENCY = 1e-6
# log(rho / rho*) of the landscapes.
_OFFSETS = 6.0, 241
# Betas among which a radius is looked for, then again where it lies.
_BETAS, _CLOSE = np.geomspace(5e-7, 50.0, 25), 8
_SEARCH: dict[str, Any] = {"error": "kernel_l1", "draws": 4, "restarts": 1}


@job("sensitivity-curves")
def sensitivity_curves(
    recurrence: str,
    parameterization: str,
    rates: list[float],
    measured: list[float],
    step: float,
    horizon: float,
    batch: int,
    seed: int,
) -> dict[str, Any]:
    """E |dh/dw|^2 of single modes in continuous time under white noise of unit intensity, U = 1: exactly, and from simulations.

    Args:
        recurrence: 'diagonal', or 'lru', whose input is multiplied by gamma = sqrt(1 - e^{-2 rho}), a weight of its own.
        parameterization: f.
        rates: rho of the curve, 1/time.
        measured: rho of the simulated modes.
        step, horizon: of the simulation, time; samples of variance 1 / step are held for a step.
        batch, seed: of its inputs.

    Returns:
        "sensitivities" at the rates; "expected" and "measured" at the rates of the simulation.
    """
    simulated = _modes(recurrence, parameterization, measured)
    t = step * torch.arange(round(horizon / step) + 1, dtype=torch.float64)
    x = inputs.white_noise(t, batch, seed=seed) / math.sqrt(step)
    found = measured_sensitivity(simulated, x, t, of="state", weights=[_WEIGHT], interpolation="hold")
    return {
        "sensitivities": expected_sensitivity(_modes(recurrence, parameterization, rates))[_WEIGHT],
        "expected": expected_sensitivity(simulated)[_WEIGHT],
        "measured": found.stationary()[_WEIGHT],
    }


@job("correlated-sensitivity")
def correlated(recurrence: str, correlation: float, distances: list[float]) -> dict[str, Any]:
    """E |dh/dw|^2 of single modes of a map, h_{k+1} = z h_k + gamma x_k with |z| = e^{-e^w}.

    Args:
        recurrence: 'diagonal' without gamma, or 'lru' with gamma = sqrt(1 - |z|^2), a weight of its own.
        correlation: r in E x_k x_{k+d} = r^d.
        distances: 1 - |z|.

    Returns:
        "sensitivities", at each distance.
    """
    distance = torch.tensor(distances, dtype=torch.float64)
    size = len(distance) * (2 if recurrence == "lru" else 1)
    model = DiscreteSSM(1, size, 1, "linear", recurrence, "exp", bias=False, seed=0, dtype=torch.float64)
    _set_modes(model, 1 - distance, _LEAST_FREQUENCY * distance)
    return {"sensitivities": expected_sensitivity(model, Correlated(correlation))[_WEIGHT]}


@job("loss-landscapes")
def landscapes(parameterization: str, rates: list[float]) -> dict[str, Any]:
    """The loss of one mode against another, E (h - h*)^2 / 2 on white noise, both with gamma = sqrt(2 rho), which makes
    E h^2 = E h*^2 = 1.

    Args:
        parameterization: of the student; its raw weight is w.
        rates: rho* of the teachers, 1/time.

    Returns:
        "offsets": log(rho / rho*), the same for all teachers; for each teacher "moves": w - w*, and "losses".
    """
    largest, count = _OFFSETS
    offsets = torch.linspace(-largest, largest, count, dtype=torch.float64)
    moves, losses = [], []
    for rate in rates:
        teacher = _normalized(parameterization, torch.full_like(offsets[:1], rate))
        student = _normalized(parameterization, rate * offsets.exp())
        moves.append(student.state_dict()[_WEIGHT].flatten() - teacher.state_dict()[_WEIGHT].flatten())
        losses.append(expected_loss(student, teacher).detach() / 2)
    return {"offsets": offsets, "moves": moves, "losses": losses}


@job("stability-beside-curvature")
def stability_and_curvature(kernel: str, parameterization: str, hidden_size: int, horizon: float, seed: int) -> dict[str, Any]:
    """The tolerance radius of a linear model fitted to a kernel, and the curvature of its loss on white noise.

    Args:
        kernel: 'polynomial:exponent=1.1'.
        parameterization: of the diagonal model.
        hidden_size: m.
        horizon: T of the fit and of the radius.
        seed: of the fit.

    Returns:
        "error": the L1 distance of the kernels; "slowest": the slowest rate; and for the blocks "recurrent" and "all" the
        "radii" r, and "curvatures" and "traces" of E (dy/dtheta)(dy/dtheta)^T relative to E y^2: the largest eigenvalue, and the
        trace.
    """
    rho = kernels.load(kernel)
    model = fit_kernel(rho, hidden_size, horizon, parameterization, seed=seed)
    moments, power = expected_gauss_newton(model, WhiteNoise()), _power(model)
    blocks = {"recurrent": moments.block(_WEIGHT), "all": moments}
    return {
        "error": kernel_distance(model, rho, horizon).value,
        "slowest": float(model.slowest_rate().detach()),
        "radii": {name: _radius(model, rho, horizon, name) for name in blocks},
        "curvatures": {name: block.largest / power for name, block in blocks.items()},
        "traces": {name: block.trace / power for name, block in blocks.items()},
    }


def _modes(recurrence: str, parameterization: str, rates: list[float]) -> StateSpaceModel:
    """Modes in continuous time that nothing couples."""
    rho = torch.tensor(rates, dtype=torch.float64)
    size = len(rho) * (2 if recurrence == "lru" else 1)
    model = StateSpaceModel(1, size, 1, "linear", recurrence, parameterization, bias=False, seed=0, dtype=torch.float64)
    _set_modes(model, -rho, _LEAST_FREQUENCY * rho)
    return model


@torch.no_grad()
def _set_modes(model: SequenceModel, values: Tensor, frequencies: Tensor) -> None:
    """f(w) = values, U = 1, of pairs (1, 0), and gamma of pairs at its initial value for these."""
    (layer,) = model.layer_weights
    pairs = layer.recurrence.name == "lru"
    if pairs and model.time == "discrete":
        values, frequencies = values * frequencies.cos(), values * frequencies.sin()
    model.set_matrix(DiagonalMatrix(values, frequencies if pairs else None).to_dense())
    layer.U.fill_(1.0)
    if isinstance(layer.recurrence, LinearRecurrentUnit):
        layer.U[1::2] = 0.0
        layer.recurrence.normalize()


@torch.no_grad()
def _normalized(parameterization: str, rates: Tensor) -> StateSpaceModel:
    """An ensemble of models of one mode each, U = sqrt(2 rho), c = 1."""
    kind = (1, 1, 1, "linear", "diagonal", parameterization)
    model = StateSpaceModel(*kind, bias=False, ensemble=(len(rates),), seed=0, dtype=torch.float64)
    model.set_matrix(-rates[:, None, None])
    model.layer_weights[0].U.copy_((2 * rates).sqrt()[:, None, None])
    model.c.fill_(1.0)
    return model


@torch.no_grad()
def _power(model: ContinuousRNN) -> float:
    """E y^2 on white noise."""
    silent = copy.deepcopy(model)
    silent.c.zero_()
    return float(expected_loss(model, silent))


def _radius(model: ContinuousRNN, kernel: Kernel, horizon: float, blocks: str) -> float:
    """r by ascent: on betas of every size, then on close ones where it lies."""

    def curve(betas: NDArray[np.float64]) -> PerturbationCurve:
        return perturbation_error(model, kernel, None, None, betas, blocks=blocks, horizon=horizon, **_SEARCH)

    low, high = curve(_BETAS).radius_bracket()
    return curve(np.geomspace(low, high, _CLOSE)).tolerance_radius()
