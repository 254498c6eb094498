"""Symmetric matrices over the entries of a model's weights: second moments of derivatives, curvatures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..results import Result


@dataclass(frozen=True, eq=False, repr=False)
class WeightMatrix(Result):
    """A symmetric matrix whose rows are the entries of some weights.

    Args:
        matrix: (K, K); inf where it does not exist.
        names: of the weights, in the order of the rows.
        shapes: of each.
    """

    matrix: Tensor
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def eigenvalues(self) -> Tensor:
        """(K,), the largest first; all inf where an entry is."""
        if not torch.isfinite(self.matrix).all():
            return torch.full_like(self.matrix.diagonal(), math.inf)
        return torch.linalg.eigvalsh(self.matrix).flip(0)

    @property
    def largest(self) -> float:
        """The largest eigenvalue. Of a loss: gradient descent needs learning rates below 2 / largest."""
        return float(self.eigenvalues[0])

    @property
    def trace(self) -> float:
        return float(self.matrix.trace())

    def by_name(self) -> dict[str, Tensor]:
        """The diagonal, in the shapes of the weights."""
        parts = self.matrix.diagonal().split([math.prod(shape) for shape in self.shapes])
        return {name: part.reshape(shape) for name, part, shape in zip(self.names, parts, self.shapes)}

    def block(self, *names: str) -> WeightMatrix:
        """The part that belongs to some of the weights.

        Raises:
            ValueError: no names, or others than `names`.
        """
        unknown = sorted(set(names) - set(self.names))
        if unknown or not names:
            raise ValueError(f"weights are {list(names)}, expected some of {', '.join(self.names)}")
        rows, start = [], 0
        kept = []
        for name, shape in zip(self.names, self.shapes):
            end = start + math.prod(shape)
            if name in names:
                rows += range(start, end)
                kept.append((name, shape))
            start = end
        index = torch.tensor(rows)
        return WeightMatrix(self.matrix[index][:, index], tuple(name for name, _ in kept), tuple(shape for _, shape in kept))
