"""The recurrence h_{k+1} = E_k h_k + G_k [x left, x right, 1] along a whole path as one operation, linear in its length."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .first_order import first_order_only
from .standard_form import Inputs, Source, Structure


@dataclass(frozen=True)
class Scan:
    """What a backend runs, but for the tensors. Shapes, with S = intervals, or no such axis for matrices that stay the same:

    E: (members, S, m, m); its diagonal (members, S, 1, m); or for pairs (members, S, 2, m), see `matrix_entries`.
    G: (members, S, m, 2 d + 1).
    left, right: as in `Inputs`.
    h, g: (members, batch, intervals + 1, m).
    """

    structure: Structure
    source: Source


def available(like: Tensor) -> bool:
    """Whether there is a compiled scan for tensors like this one: CPU, float32 or float64, numba installed."""
    on_cpu = like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64)
    return on_cpu and importlib.util.find_spec("numba") is not None


def affine_scan(structure: Structure, E: Tensor, G: Tensor, inputs: Inputs, h0: Tensor) -> Tensor:
    """h_0, h_1, ... as (members, batch, intervals + 1, m), for E and G as in `Scan` and h0 (members, batch, m).

    Gradients flow to E, G, x and h0 by one scan backwards; they differentiate once.
    """
    return _AffineScan.apply(Scan(structure, inputs.source), E, G, inputs.left, inputs.right, h0)


class _AffineScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scan: Scan, E: Tensor, G: Tensor, left: Tensor, right: Tensor, h0: Tensor) -> Tensor:
        from . import _numba_backend  # numba takes a second to import

        h = _numba_backend.scan_forward(scan, E, G, left, right, h0)
        ctx.scan = scan
        ctx.save_for_backward(E, G, left, right, h)
        return h

    @staticmethod
    @first_order_only
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        from . import _numba_backend

        E, G, left, right, h = ctx.saved_tensors
        return None, *_numba_backend.scan_backward(ctx.scan, E, G, left, right, h, g, ctx.needs_input_grad[1:])
