"""Activations sigma, elementwise, and all that is known of each: a new one is one entry of `ACTIVATIONS`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from targets.arguments import choice


@dataclass(frozen=True)
class Activation:
    """An elementwise activation sigma: R -> R with |sigma'| <= 1, as error estimates assume.

    Args:
        name: of a name that no other activation has.
        function: sigma. A function of a module and no lambda, if models are to be pickled.
        rests_at_zero: whether z = 0 is the one point around which the flow dh/dt = sigma(W h + b) comes to rest, so that the rest
            state solves W h + b = 0; not so for relu (every z <= 0 is at rest) and sigmoid (which never is).
        derivative_of_value: sigma' as a function of sigma, where there is one: the argument need then not be kept (at the kinks
            of hardtanh and relu: the value that autograd uses). None: autograd differentiates `function`.
        linear: whether sigma(z) = z.
        bound: the supremum of |sigma|.
        kernel: what the compiled kernels of `odernn.solvers.Fused` call it; None: they do not know it, and other solvers take
            their place.

    Example:
        softsign = Activation("softsign", torch.nn.functional.softsign, rests_at_zero=True, bound=1.0)
        model = ContinuousRNN(1, 16, 1, softsign)
    """

    name: str
    function: Callable[[Tensor], Tensor]
    rests_at_zero: bool
    derivative_of_value: Callable[[Tensor], Tensor] | None = None
    linear: bool = False
    bound: float = math.inf
    kernel: str | None = None

    def __call__(self, z: Tensor) -> Tensor:
        return self.function(z)

    def value_and_derivative(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """sigma(z) and sigma'(z), differentiable once more."""
        if self.derivative_of_value is None:
            value, backwards = torch.func.vjp(self.function, z)[:2]
            return value, backwards(torch.ones_like(value))[0]
        value = self(z)
        return value, self.derivative_of_value(value)

    def derivative(self, z: Tensor) -> Tensor:
        """sigma'(z)."""
        return self.value_and_derivative(z)[1]


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
        Activation("linear", _identity, True, torch.ones_like, linear=True, kernel="linear"),
        Activation("hardtanh", torch.nn.functional.hardtanh, True, _hardtanh_slope, bound=1.0, kernel="hardtanh"),
        Activation("tanh", torch.tanh, True, _tanh_slope, bound=1.0, kernel="tanh"),
        Activation("relu", torch.relu, False, _relu_slope, kernel="relu"),
        Activation("sigmoid", torch.sigmoid, False, _sigmoid_slope, bound=1.0, kernel="sigmoid"),
    )
}


def get(activation: str | Activation) -> Activation:
    """The activation of this name; one of your own is given back.

    Raises:
        ValueError: unknown name (the message lists the choices), or one of your own under a name that is taken.
    """
    if not isinstance(activation, Activation):
        return ACTIVATIONS[choice("activation", activation, ACTIVATIONS)]
    if ACTIVATIONS.get(activation.name, activation) != activation:
        raise ValueError(f"there is another activation of the name {activation.name!r}: give yours a name of its own")
    return activation
