"""One layer and its input in the form that compiled solvers take: flat ensembles, contiguous tensors, few cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..fields import Layer
from ..paths import Path
from ..recurrences import DenseMatrix, StateMatrix

Structure = Literal["dense", "diagonal", "pairs"]
Source = Literal["samples", "hold", "jumps"]


@dataclass(frozen=True)
class StandardWeights:
    """A layer and an initial state, with the ensemble flattened to one axis E.

    Args:
        ensemble: the axes that E stands for; E = 1 for none.
        W: (E, m, m), (E, 1, m) or (E, 2, m), see `matrix_entries`.
        V: (E, m, d + 1), [U b].
        h0: (E, batch, m).
    """

    ensemble: tuple[int, ...]
    structure: Structure
    W: Tensor
    V: Tensor
    h0: Tensor


@dataclass(frozen=True)
class Inputs:
    """x at both ends of the K intervals of a path, (1 or E, batch, times, d).

    `source` is 'samples' for a continuous path: left and right are one tensor of K + 1 times, interval k running from
    its k-th to its next; 'hold' where both ends share one tensor of K times; else 'jumps'.
    """

    source: Source
    left: Tensor
    right: Tensor


def standard_weights(layer: Layer, h0: Tensor) -> StandardWeights:
    structure, W = matrix_entries(layer.W)
    b = layer.U.new_zeros(layer.U.shape[:-1]) if layer.b is None else layer.b
    V = torch.cat([layer.U, b.unsqueeze(-1).expand(*layer.U.shape[:-1], 1)], -1)
    ensemble = torch.broadcast_shapes(W.shape[:-2], V.shape[:-2], h0.shape[:-2])
    W, V, h0 = (tensor.expand(*ensemble, *tensor.shape[-2:]).reshape(-1, *tensor.shape[-2:]) for tensor in (W, V, h0))
    return StandardWeights(tuple(ensemble), structure, W, V, h0)


def matrix_entries(W: StateMatrix) -> tuple[Structure, Tensor]:
    """W as (..., m, m); or its diagonal (..., 1, m); or for conjugate pairs (..., 2, m): [0] multiplies an entry of h, [1] its
    partner in the pair."""
    if isinstance(W, DenseMatrix):
        return "dense", W.W
    if W.omega is None:
        return "diagonal", W.rate.unsqueeze(-2)
    return "pairs", pair_entries(W.rate, W.omega)


def pair_entries(real: Tensor, imaginary: Tensor) -> Tensor:
    """(..., 2, m) of the multiplication of m/2 pairs by complex numbers, (..., m/2)."""
    return torch.stack([torch.stack([real, real], -1), torch.stack([-imaginary, imaginary], -1)], -3).flatten(-2)


def inputs_of(path: Path, ensemble: tuple[int, ...]) -> Inputs:
    if path.continuous:
        # end[k] = start[k + 1], so that the gradient in x is all in these samples.
        samples = _flat(torch.cat([path.start, path.end[..., -1:, :]], -2), ensemble)
        return Inputs("samples", samples, samples)
    left = _flat(path.start, ensemble)
    if _is_same(path.start, path.end):
        return Inputs("hold", left, left)
    return Inputs("jumps", left, _flat(path.end, ensemble))


def _flat(x: Tensor, ensemble: tuple[int, ...]) -> Tensor:
    leading = x.shape[:-3]
    if leading.numel() > 1 or len(ensemble) == 0:
        x = x.expand(*ensemble, *x.shape[-3:])
    return x.reshape(-1, *x.shape[-3:])


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Whether a and b are equal views of one tensor, so that either can stand for both, in gradients too."""
    if a is b:
        return True
    same_view = a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride() and a.dtype == b.dtype
    same_source = a._base is not None and a._base is b._base and a.requires_grad == b.requires_grad
    return same_view and same_source
