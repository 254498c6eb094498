"""Stationary inputs by their autocorrelation R(s) = E x(t) x(t + s), in continuous time and for maps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from odernn.parameterizations import Time
from targets import arguments


@dataclass(frozen=True)
class Noise(ABC):
    """A stationary input of mean 0; the channels of x are independent and alike.

    Of a mode l only the transform of R matters, and its derivative:

        F(l) = int_0^inf e^{l s} R(s) ds,   of maps F(l) = sum_{d >= 0} l^d R(d).
    """

    @abstractmethod
    def transform(self, l: Tensor, time: Time, step: float = 1.0) -> tuple[Tensor, Tensor, float]:
        """F(l), F'(l) and what E h^2 counts twice, R(0) of maps and 0 in continuous time.

        Args:
            l: eigenvalues, complex, Re l < 0 in continuous time and |l| < 1 of maps.
            time: 'continuous' or 'discrete'.
            step: time between two samples of a map.
        """


@dataclass(frozen=True)
class WhiteNoise(Noise):
    """R = delta in continuous time (unit intensity), independent samples of variance 1 for maps."""

    def transform(self, l: Tensor, time: Time, step: float = 1.0) -> tuple[Tensor, Tensor, float]:
        # half of the delta lies at s >= 0
        level, twice = (0.5, 0.0) if time == "continuous" else (1.0, 1.0)
        return torch.full_like(l, level), torch.zeros_like(l), twice


@dataclass(frozen=True)
class OrnsteinUhlenbeck(Noise):
    """R(s) = e^{-|s| / timescale}: variance 1, in `targets.inputs` the input of that name.

    Args:
        timescale: correlation time, > 0; inf for an input that is constant in time.
    """

    timescale: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "timescale", arguments.number("timescale", self.timescale, above=0, finite=False))

    def transform(self, l: Tensor, time: Time, step: float = 1.0) -> tuple[Tensor, Tensor, float]:
        if time == "discrete":
            return _geometric(l, math.exp(-step / self.timescale))
        F = 1 / (1 / self.timescale - l)
        return F, F.square(), 0.0


@dataclass(frozen=True)
class Correlated(Noise):
    """Samples with given autocorrelation, for maps: R(d) = r^d for a number r, or R(0), R(1), ..., R(D) and 0 beyond.

    Args:
        R: a number in [-1, 1], or the list, R(0) > 0 and its spectrum R(0) + 2 sum R(d) cos(d w) >= 0.

    Raises:
        ValueError: neither, or a list that is no autocorrelation.
    """

    R: float | tuple[float, ...]

    def __post_init__(self) -> None:
        if isinstance(self.R, Sequence | Tensor) and not isinstance(self.R, str):
            R = arguments.real_tensor("R", self.R).double().flatten()
            frequencies = torch.linspace(0, math.pi, 64 * max(len(R), 1) + 1, dtype=torch.float64)
            lags = torch.arange(1, len(R), dtype=torch.float64)
            if len(R) and R[0] > 0:
                spectrum = R[0] + 2 * (R[1:] * torch.cos(frequencies[:, None] * lags)).sum(-1)
            if not len(R) or R[0] <= 0 or float(spectrum.min()) < -1e-9 * float(R[0]):
                raise ValueError(
                    f"R is {_brief(R.tolist())}, expected an autocorrelation R(0) > 0, R(1), ... whose spectrum "
                    "R(0) + 2 sum R(d) cos(d w) is nowhere negative; give for example 0.9 for R(d) = 0.9^d"
                )
            object.__setattr__(self, "R", tuple(R.tolist()))
        else:
            r = arguments.number("R", self.R, least=-1)
            if r > 1:
                raise ValueError(f"R is {r:g}, expected a correlation in [-1, 1]; give for example 0.9 for R(d) = 0.9^d")
            object.__setattr__(self, "R", r)

    def transform(self, l: Tensor, time: Time, step: float = 1.0) -> tuple[Tensor, Tensor, float]:
        if time == "continuous":
            raise ValueError("Correlated(R) is for maps, got a model in continuous time; give OrnsteinUhlenbeck or WhiteNoise")
        if isinstance(self.R, float):
            return _geometric(l, self.R)
        F, derivative = torch.zeros_like(l), torch.zeros_like(l)
        for value in reversed(self.R):  # Horner's scheme
            derivative = derivative * l + F
            F = F * l + value
        return F, derivative, self.R[0]


def _geometric(l: Tensor, r: float) -> tuple[Tensor, Tensor, float]:
    F = 1 / (1 - r * l)
    return F, r * F.square(), 1.0


def _brief(values: list[float]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:4])
    return f"[{shown}{', ...' if len(values) > 4 else ''}]"
