"""Second moments of linear modes under a stationary input, and of their derivatives in the eigenvalue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from odernn.parameterizations import Time
from targets import arguments

from .noise import WHITE, Noise


@dataclass(frozen=True)
class PairMoments:
    """Of modes h_i under one input and S_i = dh_i/dz_i, for each pair, complex, (..., P, P).

    Args:
        hh: E h_i h_j.
        Sh: E S_i h_j.
        SS: E S_i S_j.
        stationary: whether they exist, bool; where not, they are 0.
    """

    hh: Tensor
    Sh: Tensor
    SS: Tensor
    stationary: Tensor


def pair_moments(z: Tensor, noise: Noise, time: Time, step: float = 1.0) -> PairMoments:
    """The stationary moments of modes dh/dt = z h + x, of maps h_{k+1} = z h_k + x_k. With F as in `Noise`

        E h_i h_j = (F(z_i) + F(z_j) - R) / D,   D = -(z_i + z_j), R = 0,   of maps D = 1 - z_i z_j, R = R(0),

    without conjugates: E |h_i|^2 has z_j = conj(z_i). The others are its derivatives, d/dz_i and d2/dz_i dz_j.

    Args:
        z: (..., P), complex.
        noise: the input.
        time, step: as in `Noise.transform`.

    Source: for one mode of a map [VEG] Eqs. 5 and 6 (Zucchet and Orvieto, NeurIPS 2024); here for pairs, and in continuous time.
    """
    a, b = z.unsqueeze(-1), z.unsqueeze(-2)
    decays = z.real < 0 if time == "continuous" else z.abs() < 1
    stationary = decays.unsqueeze(-1) & decays.unsqueeze(-2)
    # What does not decay is replaced before it is divided by: a gradient of inf times 0 would be NaN.
    D = torch.where(stationary, -(a + b) if time == "continuous" else 1 - a * b, 1.0)
    F, dF, twice = noise.transform(torch.where(decays, z, -1.0 if time == "continuous" else 0.0), time, step)
    B, dF_a, dF_b = F.unsqueeze(-1) + F.unsqueeze(-2) - twice, dF.unsqueeze(-1), dF.unsqueeze(-2)
    # -dD/dz_i, -dD/dz_j and -d2D/dz_i dz_j
    one = torch.ones_like(D)
    D_a, D_b, D_ab = (one, one, torch.zeros_like(D)) if time == "continuous" else (b * one, a * one, one)
    hh = B / D
    Sh = dF_a / D + B * D_a / D**2
    SS = (dF_a * D_b + dF_b * D_a + B * D_ab) / D**2 + 2 * B * D_a * D_b / D**3
    hh, Sh, SS = (torch.where(stationary, moment, 0.0) for moment in (hh, Sh, SS))
    return PairMoments(hh, Sh, SS, stationary)


@dataclass(frozen=True)
class ModeMoments:
    """Of single modes, real, of the shape of z; inf where the mode does not decay.

    Args:
        state: E |h|^2.
        cross: Re E S conj(h), S = dh/dz.
        sensitivity: E |S|^2.
    """

    state: Tensor
    cross: Tensor
    sensitivity: Tensor


def mode_moments(
    eigenvalues: Tensor | Sequence[float], noise: Noise = WHITE, time: Time = "continuous", step: float = 1.0
) -> ModeMoments:
    """The stationary moments of single modes, each with its own conjugate.

    White noise, n = |z| and rho = -Re z:

        E |h|^2 = 1 / (2 rho),       E |dh/dz|^2 = 1 / (4 rho^3)                    in continuous time,
        E |h|^2 = 1 / (1 - n^2),     E |dh/dz|^2 = (1 + n^2) / (1 - n^2)^3          of maps.

    Args:
        eigenvalues: z, real or complex, of any shape.
        noise: the input.
        time: 'continuous', or 'discrete' for maps.
        step: time between two samples of a map.

    Raises:
        ValueError: eigenvalues that are no numbers, or a noise that is none.

    Source: as `pair_moments`.

    Example:
        mode_moments([-0.01]).sensitivity                                             # 250,000
        mode_moments([0.99], Correlated(0.9), "discrete").state
    """
    arguments.instance("noise", noise, Noise, "give WhiteNoise() or OrnsteinUhlenbeck(timescale)")
    arguments.choice("time", time, ("continuous", "discrete"))
    z = arguments.real_tensor("eigenvalues", eigenvalues, or_complex=True).to(torch.complex128)
    moments = pair_moments(torch.stack([z, z.conj()], -1), noise, time, arguments.number("step", step, above=0))
    exists = moments.stationary[..., 0, 1]

    def real(moment: Tensor) -> Tensor:
        return torch.where(exists, moment[..., 0, 1].real, math.inf)

    return ModeMoments(real(moments.hh), real(moments.Sh), real(moments.SS))
