"""Stationary inputs, known by their autocorrelation R(s) = E x(t) x(t + s)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from odernn.parameterizations import Time
from targets import arguments

# Frequencies for each entry of a list R at which its spectrum is looked at, and what rounding may leave below 0.
_FREQUENCIES, _ROUNDING = 64, 1e-9


@dataclass(frozen=True)
class Noise(ABC):
    """A stationary input of mean 0, whose channels are independent and alike.

    A mode z sees of it the transform, and its derivative in z:

        F(z) = int_0^inf e^{z s} R(s) ds,   of maps F(z) = sum_{d >= 0} z^d R(d).
    """

    @abstractmethod
    def transform(self, z: Tensor, time: Time, step: float = 1.0) -> tuple[Tensor, Tensor, float]:
        """F(z), F'(z), and the part of R that F(z) + F(conj z) has twice: R(0) of maps, 0 in continuous time.

        Args:
            z: eigenvalues, complex, of any shape; Re z < 0 in continuous time, |z| < 1 of maps.
            time: 'continuous' or 'discrete'.
            step: time between two samples of a map.

        Raises:
            ValueError: a noise that this kind of time does not know.
        """


@dataclass(frozen=True)
class WhiteNoise(Noise):
    """R = delta, unit intensity, in continuous time; of maps independent samples of variance 1.

    Samples of variance 1 / Dt, held for Dt each, are white noise of unit intensity to all modes slower than 1 / Dt.
    """

    def transform(self, z: Tensor, time: Time, step: float = 1.0) -> tuple[Tensor, Tensor, float]:
        # half of the delta lies at s >= 0
        level, twice = (0.5, 0.0) if time == "continuous" else (1.0, 1.0)
        return torch.full_like(z, level), torch.zeros_like(z), twice


WHITE = WhiteNoise()


@dataclass(frozen=True)
class OrnsteinUhlenbeck(Noise):
    """R(s) = e^{-|s| / timescale}, variance 1: `targets.inputs.ornstein_uhlenbeck`.

    Args:
        timescale: correlation time, > 0; inf for an input that is constant in time.
    """

    timescale: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "timescale", arguments.number("timescale", self.timescale, above=0, finite=False))

    def transform(self, z: Tensor, time: Time, step: float = 1.0) -> tuple[Tensor, Tensor, float]:
        if time == "discrete":
            return _geometric(z, math.exp(-step / self.timescale))
        F = 1 / (1 / self.timescale - z)
        return F, F.square(), 0.0


@dataclass(frozen=True)
class Correlated(Noise):
    """Samples with a given autocorrelation, for maps.

    Args:
        R: a number r in [-1, 1] for R(d) = r^d, variance 1; or R(0), R(1), ..., R(D), 0 beyond.

    Raises:
        ValueError: neither, or a list that no stationary input has: R(0) <= 0, or a spectrum R(0) + 2 sum R(d) cos(d w) that is
            negative somewhere.
    """

    R: float | tuple[float, ...]

    def __post_init__(self) -> None:
        if isinstance(self.R, Sequence | Tensor) and not isinstance(self.R, str):
            R = arguments.real_tensor("R", self.R).double().flatten()
            if not len(R) or _least_power(R) < -_ROUNDING * float(R[0]) or R[0] <= 0:
                shown = ", ".join(f"{value:g}" for value in R.tolist()[:4])
                raise ValueError(
                    f"R is [{shown}{', ...' if len(R) > 4 else ''}], expected R(0) > 0, R(1), ... whose spectrum "
                    "R(0) + 2 sum R(d) cos(d w) is nowhere negative; give for example 0.9 for R(d) = 0.9^d"
                )
            object.__setattr__(self, "R", tuple(R.tolist()))
            return
        r = arguments.number("R", self.R, least=-1)
        if r > 1:
            raise ValueError(f"R is {r:g}, expected a number in [-1, 1] or a list; give for example 0.9 for R(d) = 0.9^d")
        object.__setattr__(self, "R", r)

    def transform(self, z: Tensor, time: Time, step: float = 1.0) -> tuple[Tensor, Tensor, float]:
        if time == "continuous":
            raise ValueError("Correlated(R) is for maps, got a model in continuous time; give OrnsteinUhlenbeck or WhiteNoise")
        if isinstance(self.R, float):
            return _geometric(z, self.R)
        F, derivative = torch.zeros_like(z), torch.zeros_like(z)
        for value in reversed(self.R):  # Horner's scheme
            derivative = derivative * z + F
            F = F * z + value
        return F, derivative, self.R[0]


def _geometric(z: Tensor, r: float) -> tuple[Tensor, Tensor, float]:
    """Of R(d) = r^d."""
    F = 1 / (1 - r * z)
    return F, r * F.square(), 1.0


def _least_power(R: Tensor) -> float:
    frequencies = torch.linspace(0, math.pi, _FREQUENCIES * len(R) + 1, dtype=torch.float64)
    lags = torch.arange(1, len(R), dtype=torch.float64)
    return float((R[0] + 2 * (R[1:] * torch.cos(frequencies.unsqueeze(-1) * lags)).sum(-1)).min())
