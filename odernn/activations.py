"""Activations sigma, elementwise, by name, each with its derivative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Activation:
    """An elementwise activation sigma: R -> R.

    `derivative` is sigma' as a function of the argument (at the kinks of hardtanh and relu: the value
    that autograd uses). `rests_at_zero` says whether z = 0 is the one point around which the flow
    dh/dt = sigma(W h + b) comes to rest, so that the rest state solves W h + b = 0; not so for relu
    (every z <= 0 is at rest) and sigmoid (which never is).
    """

    name: str
    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    rests_at_zero: bool

    def __call__(self, z: Tensor) -> Tensor:
        return self.function(z)


def _sigmoid_derivative(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 - s)


ACTIVATIONS: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        Activation("linear", lambda z: z, torch.ones_like, True),
        Activation("hardtanh", torch.nn.functional.hardtanh, lambda z: (z.abs() < 1).to(z.dtype), True),
        Activation("tanh", torch.tanh, lambda z: 1 - torch.tanh(z) ** 2, True),
        Activation("relu", torch.relu, lambda z: (z > 0).to(z.dtype), False),
        Activation("sigmoid", torch.sigmoid, _sigmoid_derivative, False),
    )
}


def get(name: str) -> Activation:
    """The activation of this name.

    Raises:
        ValueError: unknown name; the message lists the choices.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}: choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
