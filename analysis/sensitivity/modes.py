"""Second moments of linear modes under a stationary input, and of their derivatives in the eigenvalue."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from odernn.parameterizations import Time

from .noise import Noise


@dataclass(frozen=True)
class PairMoments:
    """Moments of every pair of modes i, j, complex, (..., P, P): h_i and S_i = dh_i/dl_i under one input.

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


def pair_moments(l: Tensor, noise: Noise, time: Time, step: float = 1.0) -> PairMoments:
    """The stationary moments of modes dh/dt = l h + x, of maps h_{k+1} = l h_k + x_k. With F as in `Noise`

        E h_i h_j = (F(l_i) + F(l_j) - R) / D,   D = -(l_i + l_j) and R = 0,   of maps D = 1 - l_i l_j and R = R(0),

    and the others are its derivatives d/dl_i and d2/dl_i dl_j. (Without conjugates: for E |h_i|^2 take the partner
    l_j = conj(l_i).)

    Args:
        l: (..., P) complex.
        noise: the input.
        time, step: as in `Noise.transform`.

    Source: for maps and one mode Zucchet and Orvieto (2024), Eqs. 5 and 6; here for pairs, and in continuous time.
    """
    a, b = l.unsqueeze(-1), l.unsqueeze(-2)
    D = -(a + b) if time == "continuous" else 1 - a * b
    decays = l.real < 0 if time == "continuous" else l.abs() < 1
    stationary = decays.unsqueeze(-1) & decays.unsqueeze(-2)
    D = torch.where(stationary, D, 1.0)
    F, dF, twice = noise.transform(torch.where(decays, l, 0.0 if time == "discrete" else -1.0), time, step)
    B, dFa, dFb = F.unsqueeze(-1) + F.unsqueeze(-2) - twice, dF.unsqueeze(-1), dF.unsqueeze(-2)
    # Of D: -dD/dl_i, -dD/dl_j and -d2D/dl_i dl_j.
    one = torch.ones_like(D)
    Da, Db, Dab = (one, one, 0 * one) if time == "continuous" else (b * one, a * one, one)
    hh = B / D
    Sh = dFa / D + B * Da / D**2
    SS = (dFa * Db + dFb * Da + B * Dab) / D**2 + 2 * B * Da * Db / D**3
    return PairMoments(*(torch.where(stationary, moment, 0.0) for moment in (hh, Sh, SS)), stationary)


@dataclass(frozen=True)
class ModeMoments:
    """Moments of single modes, real, shape of l: E |h|^2, Re E S conj(h), E |S|^2; inf where the mode does not decay."""

    state: Tensor
    cross: Tensor
    sensitivity: Tensor


def mode_moments(l: Tensor, noise: Noise, time: Time, step: float = 1.0) -> ModeMoments:
    """`pair_moments` of each mode with its own conjugate.

        mode_moments(torch.tensor([-0.01]), WhiteNoise(), "continuous").sensitivity      # 1 / (4 * 0.01^3)

    Args:
        l: eigenvalues, real or complex, any shape.
        noise, time, step: as in `pair_moments`.

    Returns:
        With n = |l|, white noise: E |h|^2 = 1 / (1 - n^2), E |dh/dl|^2 = (1 + n^2) / (1 - n^2)^3 for maps; 1 / (2 rho) and
        1 / (4 rho^3), rho = -Re l, in continuous time.
    """
    z = l if l.is_complex() else torch.complex(l, torch.zeros_like(l))
    moments = pair_moments(torch.stack([z, z.conj()], -1), noise, time, step)
    exists = moments.stationary[..., 0, 1]

    def real(moment: Tensor) -> Tensor:
        return torch.where(exists, moment[..., 0, 1].real, math.inf)

    return ModeMoments(real(moments.hh), real(moments.Sh), real(moments.SS))
