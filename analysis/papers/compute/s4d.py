"""S4D: stacked diagonal state-space layers under zero-order hold, from the project's own models and solvers."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from odernn.models import StateSpaceModel
from odernn.recurrences import ComplexDiagonal
from odernn.solvers import Exact

# Steps of a sample, log-uniform over the channels. S4's own default reaches down to 0.001, memories of 2000 samples.
STEPS = (0.02, 0.2)
# -Re A of S4D-Lin.
_RATE = 0.5


class S4DLayer(nn.Module):
    """One state-space model of n states for each of H channels, then a nonlinearity that mixes the channels, and a residual:

        dz/dt = A z + B u,  v = Re(C z) + D u     z complex of n / 2 entries, u held over each sample of length Delta
        output = u + V gelu(v)

    with A_j = -1/2 + i pi j (S4D-Lin), B = 1, C complex normal, D normal. The conjugate half of the n states is counted by the
    factor 2 of C. Time is counted in samples: A and B are multiplied by Delta.

    There are no biases and there is no layer norm: the response to no input is 0, and that to a small one is proportional to it.

    Args:
        channels: H.
        states: n, even.
        generator: of the weights.

    Source: Gu, Gupta, Goel, Ré, On the parameterization and initialization of diagonal state space models, NeurIPS 2022.
    """

    def __init__(self, channels: int, states: int, generator: torch.Generator) -> None:
        super().__init__()

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        shortest, longest = STEPS
        uniform = torch.rand(channels, 1, generator=generator, dtype=torch.float64)
        step = shortest * (longest / shortest) ** uniform
        modes = torch.arange(states // 2, dtype=torch.float64)
        self.ssm = StateSpaceModel(
            1,
            states,
            1,
            "linear",
            "complex",
            "exp",
            bias=False,
            ensemble=(channels,),
            seed=generator,
            dtype=torch.float64,
        )
        layer = self.ssm.layer_weights[0]
        recurrence = cast(ComplexDiagonal, layer.recurrence)
        with torch.no_grad():
            recurrence.w.copy_((_RATE * step).log().expand(-1, states // 2))
            recurrence.omega.copy_(step * math.pi * modes)
            # z = z_1 + i z_2 is kept as (z_1, z_2): B = 1 is (1, 0), and 2 Re(C z) = 2 (Re C, -Im C) (z_1, z_2).
            layer.U.copy_((step * torch.tensor([1.0, 0.0]).repeat(states // 2)).unsqueeze(-1))
            # C has unit variance, half of it in either part.
            self.ssm.c.copy_(2 * math.sqrt(0.5) * normal(channels, 1, states))
        self.D = nn.Parameter(normal(channels))
        self.V = nn.Parameter(normal(channels, channels) / math.sqrt(channels))

    def filter(self, u: Tensor) -> Tensor:
        """v, (batch, time, H), for u (batch, time, H)."""
        # The model's output at a sample has not consumed it, that of S4D has: one sample more, which is held to no effect.
        channels = torch.cat([u, torch.zeros_like(u[:, :1])], 1).movedim(-1, 0).unsqueeze(-1)
        t = torch.arange(channels.shape[-2], dtype=u.dtype)
        y = self.ssm.respond(channels, t, "zero", solver=Exact(), interpolation="hold").y
        return y[..., 1:, 0].movedim(0, -1) + self.D * u

    def forward(self, u: Tensor) -> Tensor:
        return u + nn.functional.gelu(self.filter(u)) @ self.V.mT


class S4D(nn.Module):
    """S4D layers on a linear encoding of the input; the output is that of the last layer, (batch, time, H).

    Args:
        input_size: d.
        channels: H.
        num_layers: layers.
        states: n of each channel.
        seed: of all weights.
    """

    def __init__(self, input_size: int, channels: int, num_layers: int = 1, *, states: int = 64, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.input_size = input_size
        self.encoder = nn.Parameter(torch.randn(channels, input_size, generator=generator, dtype=torch.float64))
        self.layers = nn.ModuleList(S4DLayer(channels, states, generator) for _ in range(num_layers))

    @property
    def blocks(self) -> tuple[S4DLayer, ...]:
        """The layers, from the input."""
        return tuple(cast(S4DLayer, layer) for layer in self.layers)

    def forward(self, x: Tensor) -> Tensor:
        u = x @ self.encoder.mT
        for layer in self.layers:
            u = layer(u)
        return u
