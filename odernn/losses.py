"""Losses and error measures between outputs y, (*ensemble, batch, time, output), and targets of the same shape.

A target may lack the ensemble axes, and holds for every member then. No other axis is broadcast: ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from targets import arguments

from .models import SequenceModel

Loss = Callable[[Tensor, Tensor], Tensor]

# The exponent of the published runs ([TWE], the original code of [IA]).
TIME_WEIGHT_POWER = 2.0


def mse(y: Tensor, target: Tensor) -> Tensor:
    """Mean square error over batch, time and output, one value per ensemble member."""
    _check_shapes(y, target)
    return (y - target).square().mean((-3, -2, -1))


def time_weights(count: int, like: Tensor | None = None) -> Tensor:
    """w_k = ((k + 1) / (T + 1))^2, k = 0 .. T, normalised to mean 1; (count,) with count = T + 1.

    Source: [TWE].
    """
    weights = torch.arange(1, arguments.count("count", count) + 1, dtype=torch.float64) ** TIME_WEIGHT_POWER
    weights = weights / weights.mean()
    return weights if like is None else weights.to(like)


def time_weighted_mse(y: Tensor, target: Tensor) -> Tensor:
    """Mean square error of w_k y_k against w_k target_k, w = `time_weights`: late errors count more. Source: [TWE]."""
    _check_shapes(y, target)
    weights = time_weights(y.shape[-2], like=y).unsqueeze(-1)
    return mse(weights * y, weights * target)


def relative_l2(y: Tensor, target: Tensor) -> Tensor:
    """|y - target| / |target| in the L2 norm over batch, time and output, one value per member; inf for a target of 0."""
    _check_shapes(y, target)
    axes = (-3, -2, -1)
    distance, size = (torch.linalg.vector_norm(part, dim=axes) for part in (y - target, target))
    return torch.where(size == 0, math.inf, distance / size)


def stability_penalty(model: SequenceModel, margin: float) -> Tensor:
    """max(0, margin - stability margin of the model)^2, one value per ensemble member: 0 for a model at least that stable."""
    arguments.instance("model", model, SequenceModel, "give a model of odernn")
    margin = arguments.number("margin", margin)
    return torch.relu(margin - model.stability_margin()).square()


def _check_shapes(y: Tensor, target: Tensor) -> None:
    for name, tensor in (("y", y), ("target", target)):
        arguments.floating_tensor(name, tensor, shape="(..., batch, time, output)", finite=False)
    if y.ndim < 3 or target.shape not in (y.shape, y.shape[-3:]) or not target.numel():
        raise ValueError(
            f"y has shape {tuple(y.shape)}, target {tuple(target.shape)}, expected the same (batch, time, output), none 0, "
            "and ensemble axes before those of y; bring them into one shape"
        )
    if target.device != y.device:
        raise ValueError(f"y is on {y.device}, target on {target.device}, expected one device; move one with .to(device)")


LOSSES: dict[str, Loss] = {"mse": mse, "time_weighted": time_weighted_mse}
