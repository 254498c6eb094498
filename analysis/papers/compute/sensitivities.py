"""Sensitivity and curvature of linear models against their slowest rate ([VEG] Fig 1, 2), and beside their stability."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from odernn.models import ContinuousRNN, DiscreteSSM, SequenceModel, StateSpaceModel
from targets import Kernel, inputs, kernels

from ...linear.fits import fit_kernel
from ...linear.theory import kernel_distance
from ...perturbation import PerturbationCurve, perturbation_error
from ...sensitivity.expected import expected_gauss_newton, expected_loss
from ...sensitivity.measured import measured_sensitivity
from ...sensitivity.noise import Correlated, WhiteNoise
from ..engine.figure import job

_WEIGHT = "layers.0.recurrence.w"
# Of the recurrence 'lru', whose frequencies are positive: far below the rate.
_LEAST_FREQUENCY = 1e-6
# Betas on which a radius is looked for around its bound, then again where it lies.
_BETAS = np.geomspace(5e-7, 50.0, 25)
_SEARCH: dict[str, Any] = {"error": "kernel_l1", "draws": 4, "restarts": 1}


def _modes(recurrence: str, parameterization: str, rates: Any) -> StateSpaceModel:
    """Modes that nothing couples, U = 1, c = 1."""
    rates = torch.as_tensor(rates, dtype=torch.float64)
    size = len(rates) * (2 if recurrence == "lru" else 1)
    model = StateSpaceModel(1, size, 1, "linear", recurrence, parameterization, bias=False, seed=0, dtype=torch.float64)
    _set_modes(model, -rates, _LEAST_FREQUENCY * rates)
    return model


@torch.no_grad()
def _set_modes(model: SequenceModel, values: Tensor, frequencies: Tensor) -> None:
    """f(w) = values, U = 1 (0 for the second entry of a pair), c = 1, and gamma of pairs at its start for these values."""
    layer = model.layer_weights[0]
    own = layer.recurrence
    own.w.copy_(model.parameterization.inverse(values))
    layer.U.fill_(1.0)
    model.c.fill_(1.0)
    if own.name == "lru":
        layer.U[1::2] = 0.0
        own.theta_log.copy_(frequencies.log())
        own.gamma_log.copy_(own._normalization().log())


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
    model = _modes(recurrence, parameterization, rates)
    moments = expected_gauss_newton(model, WhiteNoise(), of="state")
    closed = moments.by_name()
    t = step * torch.arange(round(horizon / step) + 1, dtype=torch.float64)
    # held for a step, samples of variance 1 / step are white noise to modes that are slower
    x = inputs.white_noise(t, batch, seed=seed) / math.sqrt(step)
    found = measured_sensitivity(_modes(recurrence, parameterization, measured), x, t, of="state", weights=[_WEIGHT], interpolation="hold")
    at_measured = expected_gauss_newton(_modes(recurrence, parameterization, measured), WhiteNoise(), of="state")
    return {
        "sensitivities": closed[_WEIGHT],
        "expected": at_measured.by_name()[_WEIGHT],
        "states": closed["layers.0.U"].flatten()[:: 2 if recurrence == "lru" else 1],
        "measured": found.stationary()[_WEIGHT],
    }


@job("correlated-sensitivity")
def correlated(recurrence: str, correlation: float, distances: list[float]) -> dict[str, Any]:
    """Maps h_{k+1} = l h_k + gamma x_k with |l| = e^{-e^w} and R(d) = r^d, without gamma (diagonal) or with it (lru)."""
    n = 1 - torch.tensor(distances, dtype=torch.float64)
    pairs = recurrence == "lru"
    model = DiscreteSSM(1, len(n) * (2 if pairs else 1), 1, "linear", recurrence, "exp", bias=False, seed=0, dtype=torch.float64)
    _set_modes(model, n, (1 - n) * _LEAST_FREQUENCY)
    return {"sensitivities": expected_gauss_newton(model, Correlated(correlation), of="state").by_name()[_WEIGHT]}


@job("loss-landscapes")
def landscapes(parameterization: str, rates: list[float]) -> dict[str, Any]:
    """The loss of one mode h against another h*, E (h - h*)^2 / 2 on white noise, both with gamma = sqrt(2 rho), so that
    E h^2 = E h*^2 = 1.

    Args:
        parameterization: of the student; its raw weight is w.
        rates: rho* of the teachers, 1/time.

    Returns:
        "offsets": log(rho / rho*), the same for all teachers; for each teacher "moves": w - w*, and "losses".
    """
    offsets = torch.linspace(-6, 6, 241, dtype=torch.float64)
    moves, losses = [], []
    for rate in rates:
        teacher, student = (_normalized(parameterization, rate * moved) for moved in (torch.ones_like(offsets[:1]), offsets.exp()))
        moves.append(_raw(student) - _raw(teacher))
        losses.append((expected_loss(student, teacher) / 2).detach())
    return {"offsets": offsets, "moves": moves, "losses": losses}


def _raw(model: StateSpaceModel) -> Tensor:
    return model.state_dict()[_WEIGHT].flatten()


def _normalized(parameterization: str, rates: Tensor) -> StateSpaceModel:
    """An ensemble of models of one mode each, U = sqrt(2 rho), c = 1."""
    kind = (1, 1, 1, "linear", "diagonal", parameterization)
    model = StateSpaceModel(*kind, bias=False, ensemble=(len(rates),), seed=0, dtype=torch.float64)
    rates = rates.double()
    model.set_matrix(-rates[:, None, None])
    with torch.no_grad():
        model.layer_weights[0].U.copy_((2 * rates).sqrt()[:, None, None])
        model.c.fill_(1.0)
    return model


@job("stability-beside-curvature")
def stability_and_curvature(kernel: str, parameterization: str, hidden_size: int, horizon: float, seed: int) -> dict[str, Any]:
    rho = kernels.load(kernel)
    model = fit_kernel(rho, hidden_size, horizon, parameterization, seed=seed)
    distance = kernel_distance(model, rho, horizon)
    moments = expected_gauss_newton(model, WhiteNoise())
    power = _power(model)
    blocks = {"recurrent": moments.block(_WEIGHT), "all": moments}
    return {
        "error": distance.value,
        "slowest": float(model.slowest_rate().detach()),
        "radii": {name: _radius(model, rho, horizon, name) for name in blocks},
        "curvatures": {name: block.largest / power for name, block in blocks.items()},
        "traces": {name: block.trace / power for name, block in blocks.items()},
    }


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
    return curve(np.geomspace(low, high, 8)).tolerance_radius()
