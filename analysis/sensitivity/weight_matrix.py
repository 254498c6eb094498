"""Symmetric matrices over the entries of a model's weights: second moments of derivatives, curvatures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..results import Result

# Beyond so many weights the matrix is not made: in double precision it has 128 MB.
_MOST_WEIGHTS = 4096


def check_weights(weights: Mapping[str, Tensor], remedy: str) -> None:
    """Refuses weights of which there are none, or too many for a matrix over them."""
    count = sum(weight.numel() for weight in weights.values())
    if not 0 < count <= _MOST_WEIGHTS:
        raise ValueError(
            f"the model has {count} weights that are trained, expected 1 to {_MOST_WEIGHTS}; "
            f"{remedy if count else 'train some'}: {', '.join(weights) or 'it has none'}"
        )


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
        chosen = torch.cat([torch.full((math.prod(shape),), name in names) for name, shape in zip(self.names, self.shapes)])
        kept = [(name, shape) for name, shape in zip(self.names, self.shapes) if name in names]
        return WeightMatrix(self.matrix[chosen][:, chosen], tuple(name for name, _ in kept), tuple(shape for _, shape in kept))
