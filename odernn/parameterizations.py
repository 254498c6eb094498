"""Parameterisations l = f(w) of the (real part of the) eigenvalues of W, or of their modulus.

Stability asks Re l < 0 in continuous time and |l| < 1 in discrete time. A parameterisation is *stable*
when no finite perturbation of the raw weight w leaves the stable region ([IA] 3.4, [StableSSM] 3.3).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from targets import arguments

Time = Literal["continuous", "discrete"]


@dataclass(frozen=True)
class Parameterization(ABC):
    """f, its inverse and derivative, in continuous time (eigenvalue l < 0) or discrete time (0 < l < 1).

    Every method is elementwise on tensors of any shape.
    """

    name: ClassVar[str]
    stable: ClassVar[bool]
    time: Time = "continuous"

    def __post_init__(self) -> None:
        if not isinstance(self.time, str) or self.time not in ("continuous", "discrete"):
            raise ValueError(f"time must be 'continuous' or 'discrete', got {self.time!r}")

    def __call__(self, w: Tensor) -> Tensor:
        """l = f(w)."""
        return self._value(arguments.real_tensor("w", w, finite=False))

    def derivative(self, w: Tensor) -> Tensor:
        """f'(w)."""
        return self._derivative(arguments.real_tensor("w", w, finite=False))

    @abstractmethod
    def _value(self, w: Tensor) -> Tensor: ...

    @abstractmethod
    def _derivative(self, w: Tensor) -> Tensor: ...

    @abstractmethod
    def _inverse(self, value: Tensor) -> Tensor: ...

    @property
    @abstractmethod
    def range(self) -> tuple[float, float]:
        """The open interval of values that f takes (its ends may or may not be attained)."""

    def inverse(self, value: Tensor) -> Tensor:
        """A raw weight w with f(w) = value.

        Raises:
            ValueError: a value outside the range of f.
        """
        value = arguments.real_tensor("value", value)
        low, high = self.range
        outside = ~((value > low) & (value < high))
        if outside.any():
            raise ValueError(
                f"parameterization {self.name!r} ({self.time} time) reaches eigenvalues in ({low:g}, {high:g}), "
                f"got {value[outside].flatten()[0].item():g}: choose another value or parameterization"
            )
        return self._inverse(value)

    def gradient_scale(self, w: Tensor) -> Tensor:
        """The scale of the gradient in w, |f'(w)| / f(w)^2, in discrete time |f'(w)| / (1 - f(w))^2.

        The bound of [StableSSM, Thm 3.6] on |dLoss/dw| up to a constant.
        """
        w = arguments.real_tensor("w", w, finite=False)
        distance = self(w) if self.time == "continuous" else 1 - self(w)
        return self.derivative(w).abs() / distance**2

    def input_scale(self, value: Tensor) -> Tensor | None:
        """The factor that multiplies U mode by mode, given l = f(w); None for 1."""
        return None

    def config(self) -> dict[str, Any]:
        """The arguments, beside `time`, that rebuild this object by `get`."""
        return {key: value for key, value in asdict(self).items() if key != "time"} | {"name": self.name}


@dataclass(frozen=True)
class Direct(Parameterization):
    """f(w) = w: nothing keeps the eigenvalue in the stable region."""

    name = "direct"
    stable = False

    def _value(self, w: Tensor) -> Tensor:
        return w

    def _derivative(self, w: Tensor) -> Tensor:
        return torch.ones_like(w)

    def _inverse(self, value: Tensor) -> Tensor:
        return value.clone()

    @property
    def range(self) -> tuple[float, float]:
        return -math.inf, math.inf


@dataclass(frozen=True)
class Exp(Parameterization):
    """f(w) = -e^w; discrete e^{-e^w}, the modulus of the LRU."""

    name = "exp"
    stable = True

    def _value(self, w: Tensor) -> Tensor:
        return -w.exp() if self.time == "continuous" else (-w.exp()).exp()

    def _derivative(self, w: Tensor) -> Tensor:
        return -w.exp() if self.time == "continuous" else -(w - w.exp()).exp()

    def _inverse(self, value: Tensor) -> Tensor:
        return (-value).log() if self.time == "continuous" else (-value.log()).log()

    @property
    def range(self) -> tuple[float, float]:
        return (-math.inf, 0.0) if self.time == "continuous" else (0.0, 1.0)


@dataclass(frozen=True)
class Softplus(Parameterization):
    """f(w) = -log(1 + e^w); discrete 1 / (1 + e^w)."""

    name = "softplus"
    stable = True

    def _value(self, w: Tensor) -> Tensor:
        return -softplus(w) if self.time == "continuous" else torch.sigmoid(-w)

    def _derivative(self, w: Tensor) -> Tensor:
        s = torch.sigmoid(w)
        return -s if self.time == "continuous" else -s * torch.sigmoid(-w)

    def _inverse(self, value: Tensor) -> Tensor:
        if self.time == "discrete":
            return -torch.logit(value)
        # log(e^r - 1) for the rate r = -l, without overflow for large r.
        return -value + torch.log(-torch.expm1(value))

    @property
    def range(self) -> tuple[float, float]:
        return (-math.inf, 0.0) if self.time == "continuous" else (0.0, 1.0)


@dataclass(frozen=True)
class Inverse(Parameterization):
    """f(w) = -1 / (a w^2 + b); discrete 1 - 1 / (a w^2 + b): "best" in [StableSSM], gradient scale 2 a |w|.

    Rates stay below 1/b, where f' = 0. The inverse takes the branch w > 0.
    """

    name = "inverse"
    stable = True
    a: float = 1.0
    b: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("a", "b"):
            value = arguments.number(f"{name} of parameterization 'inverse'", getattr(self, name), above=0)
            object.__setattr__(self, name, value)
        if self.time == "discrete" and self.b < 0.5:
            raise ValueError(f"parameterization 'inverse' in discrete time needs b >= 1/2 (|l| < 1), got b={self.b}")

    def _value(self, w: Tensor) -> Tensor:
        value = -1 / (self.a * w**2 + self.b)
        return value if self.time == "continuous" else 1 + value

    def _derivative(self, w: Tensor) -> Tensor:
        return 2 * self.a * w / (self.a * w**2 + self.b) ** 2

    def _inverse(self, value: Tensor) -> Tensor:
        negative_rate = value if self.time == "continuous" else value - 1
        # Beside the end of the range rounding may leave less than 0.
        return ((-1 / negative_rate - self.b) / self.a).clamp_min(0).sqrt()

    @property
    def range(self) -> tuple[float, float]:
        return (-1 / self.b, 0.0) if self.time == "continuous" else (1 - 1 / self.b, 1.0)


@dataclass(frozen=True)
class LRU(Parameterization):
    """f(w) = e^{-e^w} - 1 with the input scaled by sqrt(1 - e^{-2 e^w}); discrete e^{-e^w}, scaled alike.

    The residual form of the original code of [IA] (one Euler step of it, Dt = 1, multiplies by e^{-e^w},
    the modulus of [LRU]); rates stay below 1. The input is normalised as in [LRU] Eq 7.
    """

    name = "lru"
    stable = True

    def _value(self, w: Tensor) -> Tensor:
        return torch.expm1(-w.exp()) if self.time == "continuous" else (-w.exp()).exp()

    def _derivative(self, w: Tensor) -> Tensor:
        return -(w - w.exp()).exp()

    def _inverse(self, value: Tensor) -> Tensor:
        log_modulus = torch.log1p(value) if self.time == "continuous" else value.log()
        return (-log_modulus).log()

    @property
    def range(self) -> tuple[float, float]:
        return (-1.0, 0.0) if self.time == "continuous" else (0.0, 1.0)

    def input_scale(self, value: Tensor) -> Tensor:
        # 1 - (1 + l)^2 = -l (2 + l), written so that nothing cancels for slow modes l -> 0.
        return (-value * (2 + value)).sqrt() if self.time == "continuous" else ((1 - value) * (1 + value)).sqrt()


PARAMETERIZATIONS: dict[str, type[Parameterization]] = {cls.name: cls for cls in (Direct, Exp, Softplus, Inverse, LRU)}


def get(name: str, time: Time = "continuous", **arguments: float) -> Parameterization:
    """The parameterisation of this name, e.g. get("inverse", a=1.0, b=0.5).

    Raises:
        ValueError: unknown name (lists the choices) or arguments that it does not take.
    """
    if not isinstance(name, str) or name not in PARAMETERIZATIONS:
        raise ValueError(f"unknown parameterization {name!r}: choose one of {', '.join(PARAMETERIZATIONS)}")
    try:
        return PARAMETERIZATIONS[name](time=time, **arguments)
    except TypeError:
        raise ValueError(f"parameterization {name!r} does not take {sorted(arguments)}") from None
