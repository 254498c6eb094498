"""Readouts of whole trajectories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from targets import arguments

from .activations import Activation
from .fields import VectorField
from .solvers.first_order import first_order_only

# States of more bytes than this are read out segment by segment, with segments of so many bytes.
_LARGE, _SEGMENT_BYTES = 2**26, 2**21


def readout_along(field: VectorField, h: Tensor) -> Tensor:
    """y, (..., batch, time, output), of states along time, (..., batch, time, state).

    The readout c^T sigma(h) of long paths goes through time in segments, forwards and backwards: tensors of the size of h that
    live for a moment take longer to allocate than to compute.

    Raises:
        ValueError: h is no trajectory of this field.
    """
    arguments.instance("field", field, VectorField, "give model.field()")
    if not isinstance(h, Tensor) or h.ndim < 3 or h.shape[-1] != field.size or h.dtype != field.c.dtype or h.is_meta:
        came = f"is a {h.dtype} tensor {tuple(h.shape)} on {h.device}" if isinstance(h, Tensor) else f"is a {type(h).__name__}"
        raise ValueError(f"h {came}, expected states (..., batch, time, {field.size}) in {field.c.dtype}; give Solution.h")
    arguments.real_tensor("h", h, finite=False)
    large = field.emits_activation and len(field.layers) == 1 and h.numel() * h.element_size() > _LARGE
    if large and not arguments.traced():
        return _SegmentedReadout.apply(field.activation, h, field.c)
    return field.readout(h.flatten(-3, -2)).unflatten(-2, h.shape[-3:-1])


class _SegmentedReadout(torch.autograd.Function):
    """y = sigma(h) c^T, without a trace of sigma(h) left in memory."""

    @staticmethod
    def forward(ctx: Any, activation: Activation, h: Tensor, c: Tensor) -> Tensor:
        ctx.activation = activation
        ctx.save_for_backward(h, c)
        y = h.new_empty(*h.shape[:-1], c.shape[-2])
        for part in _segments(h):
            y[part] = _along(activation(h[part]), c.mT)
        return y

    @staticmethod
    @first_order_only
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        h, c = ctx.saved_tensors
        g_h, g_c = torch.empty_like(h), torch.zeros_like(c)
        for part in _segments(h):
            z, slope = ctx.activation.value_and_derivative(h[part])
            g_c += (g[part].flatten(-3, -2).mT @ z.flatten(-3, -2)).sum_to_size(c.shape)
            torch.mul(_along(g[part], c), slope, out=g_h[part])
        return None, g_h, g_c


def _segments(h: Tensor) -> Iterator[tuple[Any, ...]]:
    """Indices of times, a segment each."""
    times = h.shape[-2]
    length = max(1, _SEGMENT_BYTES * times // (h.numel() * h.element_size()))
    for begin in range(0, times, length):
        yield (..., slice(begin, begin + length), slice(None))


def _along(x: Tensor, matrix: Tensor) -> Tensor:
    """x times the matrix for all sequences and times in one product, (..., batch, time, columns)."""
    return (x.flatten(-3, -2) @ matrix).unflatten(-2, x.shape[-3:-1])
