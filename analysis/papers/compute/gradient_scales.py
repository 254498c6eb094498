"""Gradients of the raw recurrent weights, mode by mode and along training, on a linear functional ([StableSSM] 3.4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from odernn.models import StateSpaceModel
from targets import kernels

from ...linear.theory import KernelL1
from ...stability import gradient_over_weight
from ..engine.figure import job

# Beyond the time scale 1000 of the slowest mode by so much that what e^{lt} leaves out is below rounding.
_HORIZON = 1e5


@job("gradient-scales")
def gradients(kernel: str, parameterization: str, slowest: float, fastest: float, count: int, seed: int) -> dict[str, Any]:
    """dLoss/dw by autograd, for modes l = -r with r log-spaced and random U, c; Loss = int |rho - rho_hat| dt, which is the
    largest error on inputs |x| <= 1.

    Of the mode j, dLoss/dw_j = c_j U_j f'(w_j) int t e^{l_j t} sign(rho_hat - rho) dt, and so

        |dLoss/dw_j| <= |c_j U_j| |f'(w_j)| / f(w_j)^2.

    Args:
        kernel: of the target, 'polynomial:exponent=1.1'.
        parameterization: f.
        slowest, fastest, count: of the rates r.
        seed: of U and c.

    Returns:
        "rates", "gradients" |dLoss/dw_j| / |c_j U_j|, "bounds" |f'| / f^2, "weights" |w_j|.

    Source: [StableSSM] Thm 3.6.
    """
    model = _model(parameterization, np.geomspace(slowest, fastest, count), seed)
    KernelL1.build(kernels.load(kernel), _HORIZON)(model).backward()
    layer, f = model.layer_weights[0], model.parameterization
    raw = dict(layer.recurrence.named_parameters())["w"]
    w, amplitudes = raw.detach(), (layer.U.flatten() * model.c.flatten()).detach().abs()
    assert raw.grad is not None  # for mypy: after backward it is there
    return {
        "rates": -f(w),
        "gradients": raw.grad.abs() / amplitudes,
        "bounds": f.gradient_scale(w),
        "weights": w.abs(),
    }


@job("gradient-over-weight")
def training_ratios(
    kernel: str,
    parameterization: str,
    hidden_size: int,
    slowest: float,
    fastest: float,
    learning_rate: float,
    steps: int,
    seed: int,
) -> dict[str, Any]:
    """Adam on the loss of `gradients`, with the largest |dLoss/dw| / |w| over the modes before each step.

    The seed decides rates (log-uniform), U and c: they are the same for all parameterisations.

    Returns:
        "ratios" and "losses", the latter relative to int |rho| dt, for each step; "margin": -max l at the end.
    """
    distance = KernelL1.build(kernels.load(kernel), _HORIZON)
    uniform = np.random.default_rng(seed).uniform(size=hidden_size)
    model = _model(parameterization, slowest * (fastest / slowest) ** uniform, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    ratios, losses = [], []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = distance(model)
        loss.backward()
        ratios.append(max(float(ratio) for ratio in gradient_over_weight(model).values()))
        losses.append(float(loss.detach()))
        optimizer.step()
    with torch.no_grad():
        return {"ratios": ratios, "losses": [loss / distance.scale for loss in losses], "margin": float(model.stability_margin())}


def _model(parameterization: str, rates: NDArray[np.float64], seed: int) -> StateSpaceModel:
    """A linear diagonal model with these rates; U and c as the seed has them."""
    model = StateSpaceModel(1, len(rates), 1, "linear", "diagonal", parameterization, bias=False, seed=seed, dtype=torch.float64)
    model.set_matrix(-torch.diag(torch.as_tensor(rates, dtype=torch.float64)))
    return model
