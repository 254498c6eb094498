"""Vector fields that are code of the user's: what `odernn.neural_ode` is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from .fields import VectorField
from .steady_states import settled_flow

Initial = Literal["rest", "zero"]
# |f| at rest, relative to what f is made of there.
_AT_REST = 1e-6
# States along a trajectory at which its derivatives are taken for an estimate of rounding.
_SAMPLED_STATES = 5


@dataclass(frozen=True)
class Code:
    """A module or function of the user's, with the weights it is called with.

    Args:
        function: of tensors whose last but one axis is the batch.
        values: weights and floating-point buffers by name, with every axis of the ensemble.
    """

    function: Callable[..., Tensor]
    values: dict[str, Tensor]

    def __call__(self, axes: int, *given: Tensor) -> Tensor:
        """Its value for tensors (*ensemble, batch, ...), with `axes` axes of the ensemble, and scalars."""
        if not isinstance(self.function, nn.Module) or not axes:
            flat = [one.flatten(0, axes) if axes and one.ndim else one for one in given]
            value = self._at(self.values, *flat)
            return value.unflatten(0, given[-1].shape[: axes + 1]) if axes else value
        ensemble = given[-1].shape[:axes]
        names = list(self.values)
        stacked = [self.values[name].flatten(0, axes - 1) for name in names]
        flat = [one.flatten(0, axes - 1) if one.ndim else one for one in given]

        def member(*tensors: Tensor) -> Tensor:
            return self._at(dict(zip(names, tensors)), *tensors[len(names) :])

        along = tuple(0 if one.ndim else None for one in (*stacked, *flat))
        return torch.func.vmap(member, along)(*stacked, *flat).unflatten(0, ensemble)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Code:
        return replace(self, values={name: change(value) for name, value in self.values.items()})

    def _at(self, values: dict[str, Tensor], *given: Tensor) -> Tensor:
        if not isinstance(self.function, nn.Module):
            return self.function(*given)
        return torch.func.functional_call(self.function, values, given)


@dataclass(frozen=True, kw_only=True)
class OwnField(VectorField):
    """F(h, x) = f(t, h, x) at one time t, with the readout y = c^T h or one of the user's own.

    Args:
        rate: f.
        head: the readout; None for c.
        states, inputs: entries of h and x.
        ensemble: leading axes of every weight.
        steady: whether f does not depend on t.
        initial: see `NeuralODE`.
        time: t, in double precision.
    """

    rate: Code
    head: Code | None
    states: int
    inputs: int
    ensemble: tuple[int, ...]
    steady: bool
    initial: Initial
    time: Tensor | float = 0.0

    def __call__(self, h: Tensor, x: Tensor) -> Tensor:
        x = x.expand(*h.shape[:-1], x.shape[-1])
        return self.rate(len(self.ensemble), torch.as_tensor(self.time).to(h), h, x)

    def at(self, time: Tensor) -> OwnField:
        return replace(self, time=time)  # always: that f is steady was seen at some times alone

    def readout(self, h: Tensor) -> Tensor:
        return h @ self.c.mT if self.head is None else self.head(len(self.ensemble), h)

    def readout_derivative(self, h: Tensor, dh_dt: Tensor) -> Tensor:
        if self.head is None:
            return dh_dt @ self.c.mT
        create = torch.is_grad_enabled()
        with torch.enable_grad():  # J dh/dt as the derivative of J^T v in v: forward mode would take longer to load than to run
            at = h if h.requires_grad else h.detach().requires_grad_()
            y = self.readout(at)
            v = torch.zeros_like(y).requires_grad_()
            (back,) = torch.autograd.grad(y, at, v, create_graph=True)
            (derivative,) = torch.autograd.grad(back, v, dh_dt, create_graph=create)
        return derivative

    def rest_state(self, discrete: bool = False) -> Tensor:
        """Where the flow from h = 0 comes to rest without input, (*ensemble, state): 0 where it comes to no rest, where f depends
        on t, and with `initial` 'zero'. First derivatives in the weights are those of the solution."""
        zero = self.c.new_zeros(*self.ensemble, 1, self.states)
        if self.initial == "zero" or not self.autonomous:
            return zero.squeeze(-2)
        x = self._no_input(zero)
        with torch.no_grad():
            if not self(zero, x).any():
                return zero.squeeze(-2)
            h, settled = settled_flow(lambda h: self(h, x), lambda h: self.jacobian(h, x), zero)
            J = self.jacobian(h, x)
        if torch.is_grad_enabled():
            h = h - torch.linalg.solve_ex(J, self(h, x).unsqueeze(-1)).result.squeeze(-1)
        return torch.where(settled.unsqueeze(-1), h, zero).squeeze(-2)

    def steady_state(self, x: Tensor) -> Tensor:
        return x.new_full((*self.ensemble, x.shape[-2], self.states), math.nan)

    def rests(self, h: Tensor) -> bool:
        with torch.no_grad():
            h = h.expand(*self.ensemble, *h.shape[-2:])
            value, J = self(h, self._no_input(h)), self.jacobian(h, self._no_input(h))
            size = (J.abs() @ h.abs().unsqueeze(-1)).squeeze(-1).amax() + J.abs().amax()
            return self.autonomous and bool(value.abs().amax() <= _AT_REST * size)

    def jacobian(self, h: Tensor, x: Tensor) -> Tensor:
        """dF/dh, (*ensemble, n, state, state), differentiable where gradients are recorded."""
        return self._derivative(lambda at: self(at, x.repeat_interleave(self.states, -2)), h, self.states)

    def spectrum(self) -> Tensor:
        """Eigenvalues of df/dh at rest without input, complex, (*ensemble, state); NaN where there is no rest."""
        h = self.rest_state().unsqueeze(-2)
        J = self.jacobian(h, self._no_input(h)).squeeze(-3)
        if not torch.isfinite(J).all() or not self.rests(h.detach()):
            return torch.full_like(J[..., 0], math.nan).to(torch.complex(J.real, J.real).dtype)
        return torch.linalg.eigvals(J)

    @property
    def spectrum_of(self) -> str:
        return "df/dh at rest"

    @property
    def autonomous(self) -> bool:
        return self.steady

    @property
    def linear(self) -> bool:
        return False

    @property
    def affine(self) -> bool:
        return False

    @property
    def opaque(self) -> bool:
        return True

    def derivative_error(self, h: Tensor, x: Tensor, relative: float, absolute: float) -> Tensor:
        """As of other fields; what F is made of is told by its derivatives at some of the states."""
        some = torch.linspace(0, h.shape[-2] - 1, min(_SAMPLED_STATES, h.shape[-2])).round().long()
        at = h[..., some, :]
        drive = x.unsqueeze(-2).expand(*x.shape[:-1], len(some), -1).flatten(-3, -2)
        flat = at.flatten(-3, -2)

        def change(states: Tensor) -> Tensor:
            return self.readout_derivative(states, self(states, drive.repeat_interleave(states.shape[-2] // flat.shape[-2], -2)))

        with torch.enable_grad():
            J = self._derivative(change, flat, change(flat).shape[-1]).abs()
            through = self._derivative(
                lambda u: self.readout_derivative(
                    flat.repeat_interleave(u.shape[-2] // flat.shape[-2], -2),
                    self(flat.repeat_interleave(u.shape[-2] // flat.shape[-2], -2), u),
                ),
                drive,
                J.shape[-2],
            ).abs()
        size = (J @ flat.abs().unsqueeze(-1) + through @ drive.abs().unsqueeze(-1)).squeeze(-1) + change(flat).abs()
        error = relative * size + absolute * J.sum(-1)
        return error.unflatten(-2, (h.shape[-3], len(some))).amax(-2).detach()

    def readout_error(self, h: Tensor, relative: float, absolute: float) -> Tensor:
        flat = h[..., -1:, :].flatten(-3, -2)
        y = self.readout(flat)
        J = self._derivative(self.readout, flat, y.shape[-1]).abs()
        size = (J @ h.abs().amax(-2).unsqueeze(-1)).squeeze(-1) + y.abs()
        return (relative * size + absolute * J.sum(-1)).detach()

    @property
    def size(self) -> int:
        return self.states

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(self.rate.values.values())

    def mapped(self, change: Callable[[Tensor], Tensor]) -> OwnField:
        head = None if self.head is None else self.head.mapped(change)
        return replace(self, rate=self.rate.mapped(change), head=head, c=change(self.c))

    def _derivative(self, function: Callable[[Tensor], Tensor], at: Tensor, rows: int) -> Tensor:
        """The derivatives of `rows` values, (..., n, rows, entries): each state once for every row, and one backward pass."""
        create = torch.is_grad_enabled()
        with torch.enable_grad():
            states = at.repeat_interleave(rows, -2)
            states = states if states.requires_grad else states.detach().requires_grad_()
            value = function(states)
            pick = torch.eye(rows).to(at).repeat(at.shape[-2], 1)
            total = (value * pick).sum()
            if not total.requires_grad:
                return at.new_zeros(*at.shape[:-1], rows, at.shape[-1])
            (gradient,) = torch.autograd.grad(total, states, create_graph=create, allow_unused=True)
        gradient = torch.zeros_like(states) if gradient is None else gradient
        return gradient.unflatten(-2, (at.shape[-2], rows))

    def _no_input(self, h: Tensor) -> Tensor:
        return h.new_zeros(*h.shape[:-1], self.inputs)
