"""Tanh RNNs dh/dt = tanh(W h + U x) whose memory does not decay ([IA] Fig 11a)."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from odernn.models import ContinuousRNN

from ...decay import fit_decay
from ...memory import memory_function
from ..engine.figure import job
from .phase_plane import periodic_orbit

Family = Literal["unstable", "antisymmetric"]
# Standard deviation of the entries of W times sqrt(m): eigenvalues fill a disc of this radius.
_GAIN = 2.0


@job("lasting-memory-random")
def random_memory(family: Family, size: int, horizon: float, samples: int, seeds: list[int]) -> dict[str, Any]:
    """Memory of RNNs with random W and U, at |x| = 1: {"curves": [{"seed", "times", "values", "law", "abscissa"}]}.

    unstable: gaussian W, its eigenvalues in a disc of radius 2, so that h = 0 repels: no motion ever ends there.
    antisymmetric: W = (G - G^T) / sqrt(m). With u = W h + U x the sum of log cosh u_i is constant,

        d/dt sum_i log cosh u_i = tanh(u)^T W tanh(u) = 0,

    so that |dh/dt| = |tanh(u)| can never fall to 0.

    Args:
        family: of W.
        size: m.
        horizon, samples: of the window.
        seeds: one network each.
    """
    curves = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        G = torch.randn(size, size, generator=generator, dtype=torch.float64) / math.sqrt(size)
        U = torch.randn(size, 1, generator=generator, dtype=torch.float64)
        curves.append({"seed": seed, **_memory(_GAIN * G if family == "unstable" else G - G.T, U, 1.0, horizon, samples)})
    return {"curves": curves}


@job("lasting-memory-plane")
def plane_memory(W: list[list[float]], scales: list[float], horizon: float, samples: int) -> dict[str, Any]:
    """Memory of the two-dimensional RNN with a stable W and a periodic orbit, at inputs that start on, inside and outside of it:
    {"curves": [{"scale", "times", "values", "law", "abscissa"}]}.

    Args:
        W: with the orbit of `phase_plane.periodic_orbit`.
        scales: |x|; U x at |x| = 1 is a point of the orbit in u = W h + U x.
        horizon, samples: of the window.
    """
    U = torch.tensor([[0.0], [periodic_orbit(W, 2)["crossing"]]], dtype=torch.float64)
    matrix = torch.tensor(W, dtype=torch.float64)
    return {"curves": [{"scale": scale, **_memory(matrix, U, scale, horizon, samples)} for scale in scales]}


def _memory(W: Tensor, U: Tensor, amplitude: float, horizon: float, samples: int) -> dict[str, Any]:
    """M of the whole state, y = h."""
    m = W.shape[0]
    model = ContinuousRNN(1, m, m, "tanh", bias=False, seed=0, dtype=torch.float64)
    model.set_matrix(W)
    with torch.no_grad():
        model.layer_weights[0].U.copy_(U)
        model.c.copy_(torch.eye(m))
    M = memory_function(model, torch.linspace(0, horizon, samples, dtype=torch.float64), amplitudes=[amplitude])
    above = M.above_floor
    return {
        "times": M.times[above],
        "values": M.values[above],
        "law": fit_decay(M).law,
        "abscissa": float(torch.linalg.eigvals(W).real.max()),
    }
