"""Gradients that differentiate once: a second derivative is refused, where PyTorch would silently leave it out.

A backward pass that runs outside autograd gives gradients without a history. Differentiated again, in the penalty on a gradient
say, they count as constants, and the penalty as 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..fields import VectorField
from ..paths import Path

ONCE = (
    "the gradient of this solve cannot be differentiated again (a penalty on a gradient, a Hessian): "
    "take TorchDiffEq(..., adjoint=False), or of a discrete model backend = 'torch', whose gradients can"
)


class _Once(torch.autograd.Function):
    """The identity on a gradient that depends on what it was computed from; differentiating it raises an error."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *_computed_from: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise RuntimeError(ONCE)


def _once(gradient: Tensor | None, computed_from: list[Tensor]) -> Tensor | None:
    return gradient if gradient is None or not computed_from else _Once.apply(gradient, *computed_from)


def first_order_only(backward: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """For the `backward` of an autograd function, in place of PyTorch's `once_differentiable`, which refuses only where the
    incoming gradient has a history of its own."""

    def guarded(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        with torch.no_grad():
            found = backward(ctx, *gradients)
        if not torch.is_grad_enabled():  # no create_graph: nobody can differentiate again
            return found
        computed_from = [tensor for tensor in (*ctx.saved_tensors, *gradients) if tensor is not None and tensor.requires_grad]
        return tuple(_once(gradient, computed_from) for gradient in found)

    return guarded


class _Incoming(torch.autograd.Function):
    """The identity; its backward pass notes the gradient that comes in."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, incoming: list[Tensor]) -> Tensor:
        ctx.incoming = incoming
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        ctx.incoming[:] = [gradient for gradient in gradients if torch.is_grad_enabled() and gradient.requires_grad]
        return gradients[0], None


class _Outgoing(torch.autograd.Function):
    """The identity, whose gradient depends on every input and on what `incoming` noted."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, inputs: list[Tensor], incoming: list[Tensor]) -> Tensor:
        ctx.inputs, ctx.incoming = inputs, incoming
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        if not torch.is_grad_enabled():
            return gradients[0], None, None
        return _once(gradients[0], [*ctx.inputs, *ctx.incoming]), None, None


class FirstOrder:
    """The same for an operation of a library: what goes in through `field`, `path` and `state` and comes out through `result` has
    a gradient that differentiates once."""

    def __init__(self) -> None:
        self._inputs: list[Tensor] = []
        self._incoming: list[Tensor] = []

    def state(self, h: Tensor) -> Tensor:
        if not h.requires_grad:
            return h
        self._inputs.append(h)
        return _Outgoing.apply(h, self._inputs, self._incoming)

    def field(self, field: VectorField) -> VectorField:
        return field.mapped(self.state)

    def path(self, path: Path) -> Path:
        return path.mapped(self.state)

    def result(self, h: Tensor) -> Tensor:
        return _Incoming.apply(h, self._incoming)
