"""Losses and error measures between outputs y and targets, (..., batch, time, output)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .models import SequenceModel

Loss = Callable[[Tensor, Tensor], Tensor]

# The exponent of the published runs ([TWE], the original code of [IA]).
TIME_WEIGHT_POWER = 2.0


def mse(y: Tensor, target: Tensor) -> Tensor:
    """Mean square error over batch, time and output, one value per ensemble member."""
    return (y - target).square().mean((-3, -2, -1))


def time_weights(count: int, power: float = TIME_WEIGHT_POWER, like: Tensor | None = None) -> Tensor:
    """w_k = ((k + 1) / (T + 1))^p, k = 0 .. T, normalised to mean 1; (count,) with count = T + 1.

    Source: [TWE].
    """
    weights = torch.arange(1, count + 1, dtype=torch.float64) ** power
    weights = weights / weights.mean()
    return weights if like is None else weights.to(like)


def time_weighted_mse(y: Tensor, target: Tensor) -> Tensor:
    """Mean square error of w_k y_k against w_k target_k, w = `time_weights`: late errors count more. Source: [TWE]."""
    weights = time_weights(y.shape[-2], like=y).unsqueeze(-1)
    return mse(weights * y, weights * target)


def relative_l2(y: Tensor, target: Tensor) -> Tensor:
    """|y - target| / |target| in the L2 norm over batch, time and output, one value per ensemble member."""
    axes = (-3, -2, -1)
    return torch.linalg.vector_norm(y - target, dim=axes) / torch.linalg.vector_norm(target, dim=axes)


def stability_penalty(model: SequenceModel, margin: float) -> Tensor:
    """max(0, margin - stability margin of the model)^2, one value per ensemble member: 0 for a model at least that stable."""
    return torch.relu(margin - model.stability_margin()).square()


LOSSES: dict[str, Loss] = {"mse": mse, "time_weighted": time_weighted_mse}
