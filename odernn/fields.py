"""Vector fields: the right-hand side of a model at fixed effective weights, written once for every solver."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from .activations import Activation
from .state_matrices import StateMatrix

Form = Literal["rnn", "ssm"]


@dataclass(frozen=True)
class Layer:
    """Effective weights of one layer: W of size m, U (..., m, d), b (..., m) or None."""

    W: StateMatrix
    U: Tensor
    b: Tensor | None

    def drive(self, x: Tensor) -> Tensor:
        """U x + b for x of shape (..., batch, d)."""
        drive = x @ self.U.mT
        return drive if self.b is None else drive + self.b.unsqueeze(-2)

    def drive_along(self, x: Tensor) -> Tensor:
        """U x + b at all times in one product, (..., batch, time, m), for x of shape (..., batch, time, d)."""
        return self.drive(x.flatten(-3, -2)).unflatten(-2, x.shape[-3:-1])


@dataclass(frozen=True)
class VectorField:
    """F(h, x), for L layers of size m stacked in h = (h_1, ..., h_L), with z_0 = x:

        rnn:  F_l = sigma(W_l h_l + U_l z_{l-1} + b_l),   z_l = h_l
        ssm:  F_l = W_l h_l + U_l z_{l-1} + b_l,          z_l = sigma(h_l)

    and the readout y = c^T z_L. Leading ensemble axes of the weights broadcast.

    Args:
        c: readout, (..., output, m).
    """

    form: Form
    layers: tuple[Layer, ...]
    activation: Activation
    c: Tensor

    def __call__(self, h: Tensor, x: Tensor) -> Tensor:
        """F(h, x), (..., batch, L m), for h (..., batch, L m) and x (..., batch, input)."""
        derivatives = []
        for layer, state in self._layers(h):
            z = layer.W.apply(state) + layer.drive(x)
            derivatives.append(self.activation(z) if self.form == "rnn" else z)
            x = self._emit(state)
        return derivatives[0] if len(derivatives) == 1 else torch.cat(derivatives, -1)

    def readout(self, h: Tensor) -> Tensor:
        """y = c^T z_L, (..., n, output), for h of shape (..., n, L m)."""
        return self._emit(self._last(h)) @ self.c.mT

    def readout_derivative(self, h: Tensor, dh_dt: Tensor) -> Tensor:
        """dy/dt, (..., n, output), given dh/dt: c^T dh/dt, or c^T (sigma'(h) * dh/dt) for the ssm."""
        derivative = self._last(dh_dt)
        if self.form == "ssm":
            derivative = self.activation.derivative(self._last(h)) * derivative
        return derivative @ self.c.mT

    def rest_state(self, discrete: bool = False) -> Tensor:
        """The zero-input rest state h(-inf) leads to, (..., L m): W h + U z + b = 0, layer by layer.

        `discrete` asks for the rest state of h <- W h + U z + b instead. For activations without a unique rest state
        (`Activation.rests_at_zero` false: relu, sigmoid) an rnn starts from 0. Where W is singular there is none, and NaN; but
        without a drive h = 0 rests all the same, and is then a constant without a gradient.
        """
        return self._steady(None, discrete, unknown=0.0).squeeze(-2)

    def steady_state(self, x: Tensor) -> Tensor:
        """The state at which dh/dt = 0 under the constant input x, (..., batch, L m) for x (..., batch, input).

        NaN where there is no unique one: W is singular, or an rnn with relu or sigmoid.
        """
        return self._steady(x, discrete=False, unknown=math.nan)

    def _steady(self, x: Tensor | None, discrete: bool, unknown: float) -> Tensor:
        states: list[Tensor] = []
        for layer in self.layers:
            drive = layer.drive(x) if x is not None else None if layer.b is None else layer.b.unsqueeze(-2)
            ensemble = torch.broadcast_shapes(*(tensor.shape[:-2] for tensor in (layer.U, self.c)))
            if drive is None:
                h = layer.U.new_zeros(*ensemble, 1, layer.U.shape[-2])
            elif self.form == "rnn" and not self.activation.rests_at_zero:
                h = layer.U.new_full((*ensemble, drive.shape[-2], layer.U.shape[-2]), unknown)
            else:
                solved = [layer.W.solve(v, shift=1.0 if discrete else 0.0) for v in drive.unbind(-2)]
                # 0 - and not a bare minus, which would make -0 of a rest state of 0.
                h = 0 - torch.stack(solved, -2)
            states.append(h)
            x = self._emit(h)
        return torch.cat(states, -1)

    def spectrum(self) -> Tensor:
        """Eigenvalues of every W, complex, (..., L m)."""
        return torch.cat([layer.W.eigenvalues() for layer in self.layers], -1)

    @property
    def linear(self) -> bool:
        """Whether dh/dt is linear in (h, x), so that it integrates in closed form."""
        return self.activation.linear or (self.form == "ssm" and len(self.layers) == 1)

    @property
    def size(self) -> int:
        """Number of entries of the state, L m."""
        return sum(layer.U.shape[-2] for layer in self.layers)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The effective weights that F depends on."""
        weights = [(*layer.W.tensors, layer.U, layer.b) for layer in self.layers]
        return tuple(tensor for layer in weights for tensor in layer if tensor is not None)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> VectorField:
        """The field with every tensor changed: cast, say."""
        layers = tuple(
            Layer(type(layer.W)(*map(change, layer.W.tensors)), change(layer.U), None if layer.b is None else change(layer.b))
            for layer in self.layers
        )
        return replace(self, layers=layers, c=change(self.c))

    def _layers(self, h: Tensor) -> Iterator[tuple[Layer, Tensor]]:
        sizes = [layer.U.shape[-2] for layer in self.layers]
        return zip(self.layers, h.split(sizes, -1))

    def _last(self, h: Tensor) -> Tensor:
        return h[..., h.shape[-1] - self.layers[-1].U.shape[-2] :]

    def _emit(self, state: Tensor) -> Tensor:
        return self.activation(state) if self.form == "ssm" else state
