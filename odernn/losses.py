"""Losses and error measures between outputs y, (*ensemble, batch, time, output), and targets of the same shape.

A target may lack the ensemble axes, and holds for every member then. No other axis is broadcast: ValueError.

Each takes a mask, (batch, time) or (batch, time, output), of dtype bool: False where a target is missing, whose value then has no
effect whatever it is. Means and norms are over the targets that are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from targets import arguments

from .models import SequenceModel

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]

# The exponent of the published runs ([TWE], the original code of [IA]).
TIME_WEIGHT_POWER = 2.0


_AXES = (-3, -2, -1)


def mse(y: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean square error over batch, time and output, one value per ensemble member."""
    difference, _, mask = _observed(y, target, mask)
    return _mean_square(difference, mask)


def time_weights(count: int, like: Tensor | None = None) -> Tensor:
    """w_k = ((k + 1) / (T + 1))^2, k = 0 .. T, normalised to mean 1; (count,) with count = T + 1.

    Source: [TWE].
    """
    weights = torch.arange(1, arguments.count("count", count) + 1, dtype=torch.float64) ** TIME_WEIGHT_POWER
    weights = weights / weights.mean()
    return weights if like is None else weights.to(like)


def time_weighted_mse(y: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean square error of w_k y_k against w_k target_k, w = `time_weights`: late errors count more. With a mask w has mean 1
    over the targets that are there. Source: [TWE]."""
    _, target, mask = _observed(y, target, mask)
    weights = time_weights(y.shape[-2], like=y).unsqueeze(-1)
    if mask is not None:
        weights = weights * mask.sum() / (weights * mask).sum()
    difference = weights * y - weights * target
    return _mean_square(difference if mask is None else torch.where(mask, difference, 0.0), mask)


def relative_l2(y: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """|y - target| / |target| in the L2 norm over batch, time and output, one value per member; inf for a target of 0."""
    difference, target, _ = _observed(y, target, mask)
    distance, size = (torch.linalg.vector_norm(part, dim=_AXES) for part in (difference, target))
    return torch.where(size == 0, math.inf, distance / size)


def stability_penalty(model: SequenceModel, margin: float) -> Tensor:
    """max(0, margin - stability margin of the model)^2, one value per ensemble member: 0 for a model at least that stable."""
    arguments.instance("model", model, SequenceModel, "give a model of odernn")
    margin = arguments.number("margin", margin)
    return torch.relu(margin - model.stability_margin()).square()


def _observed(y: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """y - target and target, both 0 where the mask says that a target is missing, and the mask, (batch, time, output)."""
    _check_shapes(y, target)
    if mask is None:
        return y - target, target, None
    mask = full_mask(mask, y.shape[-3:])
    return torch.where(mask, y - target, 0.0), torch.where(mask, target, 0.0), mask


def full_mask(mask: Tensor, shape: Sequence[int], name: str = "mask") -> Tensor:
    """A mask of targets of that shape, (batch, time, output), with all its axes.

    Raises:
        ValueError: no tensor of bools of shape (batch, time) or (batch, time, output).
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape not in (shape, shape[:2]):
        came = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        raise ValueError(
            f"{name} is {came}, expected a bool tensor {tuple(shape[:2])} (batch, time) or {tuple(shape)} (batch, time, output), "
            "False where a target is missing; convert it (mask.bool())"
        )
    return mask if mask.ndim == len(shape) else mask.unsqueeze(-1).expand(*shape)


def _mean_square(difference: Tensor, mask: Tensor | None) -> Tensor:
    squares = difference.square()
    return squares.mean(_AXES) if mask is None else squares.sum(_AXES) / mask.sum()


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
