"""Activations sigma, elementwise, by name, each with its derivative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from targets.arguments import choice


@dataclass(frozen=True)
class Activation:
    """An elementwise activation sigma: R -> R.

    `derivative_of_value` is sigma' as a function of sigma: all five allow it, so that the argument need not be kept (at the
    kinks of hardtanh and relu: the value that autograd uses). `rests_at_zero` says whether z = 0 is the one point around which
    the flow dh/dt = sigma(W h + b) comes to rest, so that the rest state solves W h + b = 0; not so for relu (every z <= 0 is at
    rest) and sigmoid (which never is).
    """

    name: str
    function: Callable[[Tensor], Tensor]
    derivative_of_value: Callable[[Tensor], Tensor]
    rests_at_zero: bool

    def __call__(self, z: Tensor) -> Tensor:
        return self.function(z)

    def derivative(self, z: Tensor) -> Tensor:
        """sigma'(z)."""
        return self.derivative_of_value(self(z))


# Functions of this module and not lambdas: a model must pickle, for joblib, spawned workers and torch.save(model).
def _identity(z: Tensor) -> Tensor:
    return z


def _hardtanh_slope(k: Tensor) -> Tensor:
    return (k.abs() < 1).to(k.dtype)


def _tanh_slope(k: Tensor) -> Tensor:
    return 1 - k * k


def _relu_slope(k: Tensor) -> Tensor:
    return (k > 0).to(k.dtype)


def _sigmoid_slope(k: Tensor) -> Tensor:
    return k * (1 - k)


ACTIVATIONS: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        Activation("linear", _identity, torch.ones_like, True),
        Activation("hardtanh", torch.nn.functional.hardtanh, _hardtanh_slope, True),
        Activation("tanh", torch.tanh, _tanh_slope, True),
        Activation("relu", torch.relu, _relu_slope, False),
        Activation("sigmoid", torch.sigmoid, _sigmoid_slope, False),
    )
}


def get(name: str) -> Activation:
    """The activation of this name.

    Raises:
        ValueError: unknown name; the message lists the choices.
    """
    return ACTIVATIONS[choice("activation", name, ACTIVATIONS)]
