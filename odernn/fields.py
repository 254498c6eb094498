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
from .steady_states import steady_potential

Form = Literal["rnn", "ssm", "rate", "voltage", "own"]


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

    and the readout y = c^T z_L. Leading ensemble axes of the weights broadcast. The leaky forms have weights of their own,
    V_l = I + tau W_l:

        rate:     F_l = (-h_l + sigma(V_l h_l + tau (U_l z_{l-1} + b_l))) / tau,    z_l = h_l
        voltage:  F_l = (-h_l + V_l sigma(h_l)) / tau + U_l z_{l-1} + b_l,           z_l = sigma(h_l)

    so that W, U and b are rates in every form: those of F where sigma(z) = z, the same for all. The form "own" is code of the
    user's, `odernn.neural_ode.OwnField`, which has no layers.

    Args:
        c: readout, (..., output, m).
        tau: time constant of the leaky forms; 1 for the others, which have none.
    """

    form: Form
    layers: tuple[Layer, ...]
    activation: Activation
    c: Tensor
    tau: float = 1.0

    def __call__(self, h: Tensor, x: Tensor) -> Tensor:
        """F(h, x), (..., batch, L m), for h (..., batch, L m) and x (..., batch, input)."""
        derivatives = []
        for layer, state in self._layers(h):
            emitted = self._emit(state)
            z = layer.W.apply(emitted if self.form == "voltage" else state) + layer.drive(x)
            if self.form == "rnn":
                z = self.activation(z)
            elif self.form == "rate":
                z = (self.activation(state + self.tau * z) - state) / self.tau
            elif self.form == "voltage":
                z = z + (emitted - state) / self.tau
            derivatives.append(z)
            x = emitted
        return derivatives[0] if len(derivatives) == 1 else torch.cat(derivatives, -1)

    def at(self, time: Tensor) -> VectorField:
        """The field at one time, of fields that change with it."""
        return self

    def readout(self, h: Tensor) -> Tensor:
        """y = c^T z_L, (..., n, output), for h of shape (..., n, L m)."""
        return self._emit(self._last(h)) @ self.c.mT

    def readout_derivative(self, h: Tensor, dh_dt: Tensor) -> Tensor:
        """dy/dt, (..., n, output), given dh/dt: c^T dh/dt, or c^T (sigma'(h) * dh/dt) where layers emit sigma(h)."""
        derivative = self._last(dh_dt)
        if self.emits_activation:
            derivative = self.activation.slope(self._last(h)) * derivative
        return derivative @ self.c.mT

    def rest_state(self, discrete: bool = False) -> Tensor:
        """The zero-input rest state h(-inf) leads to, (..., L m): W h + U z + b = 0, layer by layer.

        `discrete` asks for the rest state of h <- W h + U z + b instead. For activations without a unique rest state
        (`Activation.rests_at_zero` false: relu, sigmoid) an rnn starts from 0. Where W is singular there is none, and NaN; but
        without a drive h = 0 rests all the same, and is then a constant without a gradient.

        Leaky forms: h = sigma(V h + tau (U z + b)), or h = V sigma(h) + tau (U z + b), with any activation: 0 where sigma(0) = 0
        and b = 0, else by `odernn.steady_states`. NaN where the flow from 0 comes to no rest.
        """
        return self._steady(None, discrete, unknown=0.0).squeeze(-2)

    def steady_state(self, x: Tensor) -> Tensor:
        """The state at which dh/dt = 0 under the constant input x, (..., batch, L m) for x (..., batch, input).

        NaN where there is no unique one: W is singular, or an rnn with relu or sigmoid; of leaky forms as in `rest_state`.
        """
        return self._steady(x, discrete=False, unknown=math.nan)

    def _steady(self, x: Tensor | None, discrete: bool, unknown: float) -> Tensor:
        states: list[Tensor] = []
        for layer in self.layers:
            drive = layer.drive(x) if x is not None else None if layer.b is None else layer.b.unsqueeze(-2)
            ensemble = torch.broadcast_shapes(*(tensor.shape[:-2] for tensor in (layer.U, self.c)))
            if self.leaky:
                h = self._leaky_steady(layer, drive, ensemble)
            elif drive is None:
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

    def _leaky_steady(self, layer: Layer, drive: Tensor | None, ensemble: torch.Size) -> Tensor:
        if drive is None:
            drive = layer.U.new_zeros(*ensemble, 1, layer.U.shape[-2])
            if self.activation.linear or not self.activation(drive[..., :1]).any():
                return drive
        if self.activation.linear:
            return 0 - torch.stack([layer.W.solve(v) for v in drive.unbind(-2)], -2)
        v, rate = self.tau * drive, self.form == "rate"
        W = self.weights_of(layer).W.to_dense()
        potential = steady_potential(W, v, self.activation, start=v if rate else torch.zeros_like(v))
        return self.activation(potential) if rate else potential

    def derivative_error(self, h: Tensor, x: Tensor, relative: float, absolute: float) -> Tensor:
        """By how much dy/dt may be off, (..., batch, output), along states that are off by `relative` |h| + `absolute`: what
        its terms, W h + U z + b or what a leaky form makes of it, round to.

        Args:
            h: (..., batch, time, L m).
            x: held, (..., batch, input).
        """
        layer, m = self.layers[-1], self.c.shape[-1]
        last = h[..., -m:].abs()
        below = x.abs().unsqueeze(-2) if len(self.layers) == 1 else h[..., -2 * m : -m].abs()
        W = layer.W.to_dense().abs()
        size = _apply(W, last) + _apply(layer.U.abs(), below)
        if layer.b is not None:
            size = size + layer.b.abs().unsqueeze(-2).unsqueeze(-2)
        rows, leaked = W.sum(-1, keepdim=True), last / self.tau
        if self.leaky:
            size, rows = size + leaked, rows + 1 / self.tau
        if self.form in ("rnn", "rate"):
            # sigma' <= 1 and |sigma(z)| <= |z| up to the constant of sigmoid
            size = size.clamp(max=self.activation.bound / self.tau)
        if self.leaky:
            size = size + leaked
        weight = self.c.abs()
        return relative * _apply(weight, size).amax(-2) + absolute * (weight @ rows).squeeze(-1).unsqueeze(-2)

    def readout_error(self, h: Tensor, relative: float, absolute: float) -> Tensor:
        """As `derivative_error`, of y."""
        weight = self.c.abs()
        gain = weight.sum(-1, keepdim=True)
        last = h[..., -self.c.shape[-1] :].abs()
        return relative * _apply(weight, last).amax(-2) + absolute * gain.squeeze(-1).unsqueeze(-2)

    def spectrum(self) -> Tensor:
        """Eigenvalues of every W, complex, (..., L m)."""
        return torch.cat([layer.W.eigenvalues() for layer in self.layers], -1)

    @property
    def spectrum_of(self) -> str:
        """Whose eigenvalues `spectrum` gives."""
        return "W"

    @property
    def linear(self) -> bool:
        """Whether dh/dt is linear in (h, x), so that it integrates in closed form."""
        return self.activation.linear or (self.form == "ssm" and len(self.layers) == 1)

    @property
    def affine(self) -> bool:
        """Whether the response is linear in x up to the zero-input response."""
        return self.activation.linear

    @property
    def autonomous(self) -> bool:
        """Whether F is the same at all times."""
        return True

    @property
    def opaque(self) -> bool:
        """Whether F is code of which nothing but its values is known."""
        return False

    def rests(self, h: Tensor) -> bool:
        """Whether F(h, 0) is as good as 0 at the rest state h, (n, state): the linearisation there then tells how memory ends."""
        return True

    @property
    def emits_activation(self) -> bool:
        """Whether layers pass on, and the readout reads, sigma(h) and not h."""
        return self.form in ("ssm", "voltage")

    @property
    def leaky(self) -> bool:
        return self.form in ("rate", "voltage")

    @property
    def weights(self) -> tuple[Layer, ...]:
        """The layers in terms of what multiplies states, inputs and 1 in the equation of the form: of leaky forms
        I + tau W, tau U, tau b."""
        return tuple(map(self.weights_of, self.layers)) if self.leaky else self.layers

    def weights_of(self, layer: Layer) -> Layer:
        """As `weights`, of one layer of a leaky field."""
        b = None if layer.b is None else self.tau * layer.b
        return Layer(layer.W.scaled_plus_identity(self.tau), self.tau * layer.U, b)

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
        return self.activation(state) if self.emits_activation else state


def _apply(matrix: Tensor, along: Tensor) -> Tensor:
    """matrix (..., p, m) on states (..., batch, time, m)."""
    return along @ matrix.mT.unsqueeze(-3)
