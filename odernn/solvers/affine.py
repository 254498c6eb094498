"""Affine recurrences, the whole of one as one compiled operation."""

from __future__ import annotations

from torch import Tensor

from .backends import BackendSolve, backend_for
from .standard_form import Inputs, Scan, Structure


def affine_recurrence(structure: Structure, inputs: Inputs, W: Tensor, V: Tensor, h0: Tensor) -> Tensor:
    """h_0, h_1, ..., h_K of h_{k+1} = W_k h_k + V_k [x left, x right, 1], (E, batch, K + 1, m); shapes as for `Scan`.

    Gradients, to every tensor, by one recurrence backwards; they differentiate once.
    """
    backend, scan = backend_for("numba", h0), Scan(structure, inputs.kind)
    return BackendSolve.apply(scan, backend.scan_forward, backend.scan_backward, W, V, inputs.left, inputs.right, h0)
