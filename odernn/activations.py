"""Activations sigma, elementwise, and all that is known of each: a new one is one entry of `ACTIVATIONS`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from targets.arguments import choice

# Where a derivative is compared with a difference quotient, off the round numbers that kinks stand at, and how far they may be
# apart.
_POINTS, _STEP, _TOLERANCE = [0.237 * k + 0.0137 for k in range(-16, 17)], 1e-6, 1e-4


@dataclass(frozen=True)
class Activation:
    """An elementwise activation sigma: R -> R with |sigma'| <= 1, as error estimates assume.

    Compiled code knows the activations of `ACTIVATIONS`, under whatever name; `compiled` says whether one is of them.
    Any other runs in tensor operations of PyTorch, and continuous models with it are solved by torchdiffeq.

    Args:
        name: of a name that no other activation has.
        function: sigma. A function of a module and no lambda, if models are to be pickled.
        rests_at_zero: whether z = 0 is the one point around which the flow dh/dt = sigma(W h + b) comes to rest, so that the rest
            state solves W h + b = 0; not so for relu (every z <= 0 is at rest) and sigmoid (which never is). None: whether
            sigma has the sign of z on [-4, 4].
        derivative_of_value: sigma' as a function of sigma, where there is one: the argument need then not be kept (at the kinks
            of hardtanh and relu: the value that autograd uses). None: autograd differentiates `function`.
        linear: whether sigma(z) = z.
        bound: the supremum of |sigma|.
        kernel: what the compiled kernels of `odernn.solvers.Fused` call it; None: they do not know it, and other solvers take
            their place.
        derivative: sigma' as a function of z; compared with differences of `function`.

    Raises:
        ValueError: a function that is not elementwise, or a derivative or kernel of another function.

    Example:
        >>> import torch
        >>> from odernn import Activation, ContinuousRNN
        >>> swish = Activation("swish", torch.nn.functional.silu)
        >>> ContinuousRNN(1, 16, 1, swish).activation.compiled
        False
    """

    name: str
    function: Callable[[Tensor], Tensor]
    rests_at_zero: bool | None = None
    derivative_of_value: Callable[[Tensor], Tensor] | None = None
    linear: bool = False
    bound: float = math.inf
    kernel: str | None = None
    derivative: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        known: dict[str, Activation] = globals().get("ACTIVATIONS", {})
        if known:  # not while they are made themselves
            self._check(known)

    def __call__(self, z: Tensor) -> Tensor:
        return self.function(z)

    @property
    def compiled(self) -> bool:
        """Whether compiled code knows it."""
        return self.kernel is not None

    def value_and_derivative(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """sigma(z) and sigma'(z), differentiable once more."""
        if self.derivative is not None:
            return self(z), self.derivative(z)
        if self.derivative_of_value is None:
            value, backwards = torch.func.vjp(self.function, z)[:2]
            return value, backwards(torch.ones_like(value))[0]
        value = self(z)
        return value, self.derivative_of_value(value)

    def slope(self, z: Tensor) -> Tensor:
        """sigma'(z)."""
        return self.value_and_derivative(z)[1]

    def _check(self, known: dict[str, Activation]) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"activation: the name is {self.name!r}, expected a text: give one")
        if isinstance(self.function, torch.nn.Module) and any(True for _ in self.function.parameters()):
            raise ValueError(
                f"activation {self.name!r} has weights of its own, which no model would train: give a plain function"
            )
        z = torch.tensor(_POINTS, dtype=torch.float64)
        value = self._tried(self.function, z)
        if not torch.allclose(value, torch.cat([self._tried(self.function, one) for one in z.split(1)]), rtol=1e-10):
            raise ValueError(f"activation {self.name!r} is not elementwise, or is random: give a function of single entries")
        if self.rests_at_zero is None:
            at_zero = not self._tried(self.function, torch.zeros_like(z)).any()
            object.__setattr__(self, "rests_at_zero", at_zero and torch.equal(value.sign(), z.sign()))
        if self.kernel is not None:
            theirs = known[choice("kernel", self.kernel, known)](z)
            if not torch.allclose(value, theirs, rtol=1e-12, atol=1e-12):
                raise ValueError(f"activation {self.name!r} is not the function of the kernel {self.kernel!r}: leave kernel out")
        difference = (self._tried(self.function, z + _STEP) - self._tried(self.function, z - _STEP)) / (2 * _STEP)
        for name, slopes in (("derivative", self.derivative), ("derivative_of_value", self.derivative_of_value)):
            if slopes is None:
                continue
            slope = self._tried(slopes, z if name == "derivative" else value)
            off = (slope - difference).abs() / (1 + difference.abs())
            if not bool((off <= _TOLERANCE).all()):
                k = int(off.nan_to_num(math.inf).argmax())
                raise ValueError(
                    f"activation {self.name!r}: {name} gives {float(slope[k]):.6g} at z = {float(z[k]):.4g}, where the "
                    f"function's difference quotient is {float(difference[k]):.6g}: repair it, or leave it to autograd"
                )
        same = [one for one in known.values() if one.function is self.function]
        if same and self.kernel is None:  # one of ours under another name
            for name in ("kernel", "linear", "bound"):
                object.__setattr__(self, name, getattr(same[0], name))
            if self.derivative_of_value is None and self.derivative is None:
                object.__setattr__(self, "derivative_of_value", same[0].derivative_of_value)

    def _tried(self, function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        try:
            value = function(z)
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise ValueError(f"activation {self.name!r} failed on a tensor ({reason}): give a function of tensors") from error
        if not isinstance(value, Tensor) or value.shape != z.shape or value.dtype != z.dtype or not torch.isfinite(value).all():
            found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"activation {self.name!r} gave {found} for {z.dtype} {tuple(z.shape)}, expected finite numbers of the same "
                "kind: give an elementwise function"
            )
        return value.detach()


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
