"""Norms of weights, for perturbations: the size of a block of weights, and the direction along which a gradient grows most.

Blocks are (n, *shape), one for each of n members of an ensemble.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Norm(ABC):
    """A norm |d| of the blocks d of one weight."""

    @abstractmethod
    def __call__(self, block: Tensor) -> Tensor:
        """|d| of every member, (n,)."""

    @abstractmethod
    def maximizer(self, gradient: Tensor) -> Tensor:
        """argmax of <gradient, d> over |d| <= 1, for every member: <gradient, d> is then the dual norm of the gradient."""


class Spectral(Norm):
    """The largest singular value of a matrix; argmax V_1 V_2^T for G = V_1 S V_2^T, dual norm the sum of singular values."""

    def __call__(self, block: Tensor) -> Tensor:
        return torch.linalg.matrix_norm(block, ord=2)

    def maximizer(self, gradient: Tensor) -> Tensor:
        if 1 in gradient.shape[-2:]:
            return EUCLIDEAN.maximizer(gradient)
        # Scaled to order one: an exploding model's gradient overflows in the SVD.
        largest = MAX(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)
        left, _, right = torch.linalg.svd(gradient / column(largest, gradient), full_matrices=False)
        return left @ right


class Euclidean(Norm):
    """The 2-norm of all entries; argmax G / |G|, dual to itself."""

    def __call__(self, block: Tensor) -> Tensor:
        return torch.linalg.vector_norm(_entries(block), dim=-1)

    def maximizer(self, gradient: Tensor) -> Tensor:
        return gradient / column(self(gradient).clamp_min(torch.finfo(gradient.dtype).tiny), gradient)


class Max(Norm):
    """The largest entry, which for the entries of a diagonal is the spectral norm; argmax sign G, dual norm the sum of |G|."""

    def __call__(self, block: Tensor) -> Tensor:
        return _entries(block).abs().amax(-1)

    def maximizer(self, gradient: Tensor) -> Tensor:
        return gradient.sign()


def _entries(block: Tensor) -> Tensor:
    """(n, entries), of scalars too."""
    return block.flatten(1) if block.ndim > 1 else block.unsqueeze(1)


SPECTRAL, EUCLIDEAN, MAX = Spectral(), Euclidean(), Max()


def column(values: Tensor, like: Tensor) -> Tensor:
    """(n,) with axes of length one behind it, to multiply (n, *shape)."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))
