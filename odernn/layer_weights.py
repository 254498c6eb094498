"""The raw weights of one layer of a model."""

from __future__ import annotations

import math

import torch
from torch import nn

from . import recurrences
from .fields import Layer
from .parameterizations import Parameterization


class LayerWeights(nn.Module):
    """Raw weights of one layer: the recurrence, U (*ensemble, m, d) and b (*ensemble, m)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        recurrence: str,
        parameterization: Parameterization,
        bias: bool,
        ensemble: tuple[int, ...],
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.recurrence = recurrences.create(recurrence, hidden_size, parameterization, ensemble, generator)
        U = torch.randn(*ensemble, hidden_size, input_size, generator=generator, dtype=torch.float64)
        self.U = nn.Parameter(U / math.sqrt(input_size))
        self.b = nn.Parameter(torch.zeros(*ensemble, hidden_size, dtype=torch.float64)) if bias else None

    def effective(self) -> Layer:
        return Layer(self.recurrence.state_matrix(), self.recurrence.scale_input(self.U), self.b)
