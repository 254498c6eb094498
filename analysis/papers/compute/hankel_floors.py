"""The error of linear models over their width: the floor by Hankel singular values, balanced truncation, fits and trainings."""

from __future__ import annotations

import math
from typing import Any

import torch

from odernn.models import ContinuousRNN
from targets import kernels

from ...hankel.spectrum import hankel_spectrum
from ...hankel.widths import width_errors
from ...linear.theory import KernelL1, impulse_kernel, kernel_distance
from ..engine.figure import job


@job("hankel-values")
def values(kernel: str, count: int) -> dict[str, Any]:
    """Hankel singular values on [0, inf): {"values", "errors"}, at most `count`.

    Args:
        kernel: name with parameters, 'polynomial:exponent=1.5'.
    """
    spectrum = hankel_spectrum(kernels.load(kernel))
    return {"values": spectrum.values[:count].tolist(), "errors": spectrum.errors[:count].tolist()}


@job("hankel-width-errors")
def errors_over_width(kernel: str, widths: list[int], horizon: float, parameterizations: list[str], seed: int) -> dict[str, Any]:
    """`WidthErrors.to_dict` of floor, ceiling, truncations and fits.

    Args:
        kernel: name with parameters.
        widths, horizon, parameterizations, seed: as in `width_errors`.
    """
    return width_errors(kernels.load(kernel), widths, horizon, parameterizations, seed=seed).to_dict()


@job("hankel-trained-error")
def trained_error(
    kernel: str, parameterization: str, width: int, horizon: float, steps: int, learning_rate: float, seed: int
) -> dict[str, Any]:
    """A linear diagonal model trained by Adam on the expected loss of white noise, int_0^T (rho - rho_hat)^2 dt in closed form,
    with a cosine schedule: {"error": L1 distance of kernels relative to |rho|_L1, inf where it diverged; "effective_width" of the
    trained model, None where it is unstable}.

    Args:
        kernel: name with parameters.
        parameterization, width: of the model.
        horizon: T.
        steps, learning_rate: of Adam.
        seed: of the initial weights.
    """
    rho = kernels.load(kernel)
    distance = KernelL1.build(rho, horizon)
    model = ContinuousRNN(1, width, 1, "linear", "diagonal", parameterization, bias=False, seed=seed, dtype=torch.float64)
    scale = float((distance.rho**2 * distance.grid.weights).sum())
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = ((impulse_kernel(model.field(), distance.grid) - distance.rho) ** 2 * distance.grid.weights).sum() / scale
        if not torch.isfinite(loss):
            return {"error": math.inf, "effective_width": None}
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    stable = float(model.stability_margin().detach()) > 0
    return {
        "error": kernel_distance(model, rho, horizon).value / distance.scale,
        "effective_width": hankel_spectrum(model).effective_width() if stable else None,
    }
