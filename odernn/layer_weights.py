"""The raw weights of one layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from . import recurrences
from .fields import Layer
from .parameterizations import Parameterization


class LayerWeights(nn.Module):
    """Raw weights of one layer: the recurrence, U (*ensemble, m, d) and b (*ensemble, m).

    Args:
        tau: time constant that divides U and b, 1 for none.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        recurrence: str,
        parameterization: Parameterization,
        bias: bool,
        ensemble: tuple[int, ...],
        generator: torch.Generator | None,
        tau: float = 1.0,
    ) -> None:
        super().__init__()
        self.recurrence = recurrences.create(recurrence, hidden_size, parameterization, ensemble, generator)
        U = torch.randn(*ensemble, hidden_size, input_size, generator=generator, dtype=torch.float64)
        self.U = nn.Parameter(U / math.sqrt(input_size))
        self.b = nn.Parameter(torch.zeros(*ensemble, hidden_size, dtype=torch.float64)) if bias else None
        self.tau = tau

    def effective(self) -> Layer:
        """The layer in rates, see `odernn.fields.VectorField`."""
        b = self.b if self.b is None or self.tau == 1 else self.b / self.tau
        return Layer(self.recurrence.state_matrix(), self.scale_input(self.U), b)

    def scale_input(self, U: Tensor) -> Tensor:
        """U as the state sees it."""
        U = self.recurrence.scale_input(U)
        return U if self.tau == 1 else U / self.tau
