"""Readouts of whole trajectories."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from targets import arguments

from .activations import Activation
from .fields import VectorField
from .paths import Path
from .solvers.first_order import first_order_only

# States of more bytes than this are read out segment by segment, with segments of so many bytes.
_LARGE, _SEGMENT_BYTES = 2**26, 2**21
# States of so many bytes are solved at once where an ensemble goes member by member. Blocks of 32 MiB and more go back to the
# system when glibc frees them, and to get them again, page by page, takes longer than the solve.
_MEMBERS_BYTES = 30 * 2**20


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


def readout_by_members(
    states: Callable[[VectorField, Path, Tensor], Tensor], field: VectorField, path: Path, h0: Tensor
) -> Tensor:
    """y, (*ensemble, batch, time, output), at the times of a path. Without a gradient, members are solved some after the others,
    so that the states of a large ensemble never exist all at once.

    Args:
        states: gives the states of (field, path, h0) along time, (*ensemble, batch, time, state), for any part of the ensemble.
        path: its samples have all axes of the ensemble, the last ones, or none.
        h0: (*ensemble, batch, state).
    """
    axes, weights = h0.ndim - 2, (*field.tensors, field.c)
    differentiated = torch.is_grad_enabled() and any(one.requires_grad for one in (*weights, path.samples, path.times, h0))
    ensemble = h0.shape[:axes]
    rows, each = ensemble[:1].numel(), ensemble[1:].numel()  # rows of the first axis, and members in each
    size = h0.numel() * h0.element_size() * path.times.numel()
    parts = -(-rows // max(1, rows * _MEMBERS_BYTES // max(1, size)))
    # A product of one matrix rounds otherwise than one of several: no member goes alone.
    parts = min(parts, rows // 2) if each == 1 else parts
    divides = rows * each > 3 and size > _MEMBERS_BYTES and all(one.shape[:axes] == ensemble for one in weights)
    if differentiated or not divides:
        return readout_along(field, states(field, path, h0))

    def of(members: slice | int) -> Tensor:
        own = path.mapped(lambda x: x[members] if x.ndim - 3 == axes else x)
        return readout_by_members(states, field.mapped(lambda one: one[members]), own, h0[members])

    if rows == 1:
        return of(0).unsqueeze(0)
    bounds = [rows * k // parts for k in range(parts + 1)]
    return torch.cat([of(slice(*ends)) for ends in zip(bounds, bounds[1:])])


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
