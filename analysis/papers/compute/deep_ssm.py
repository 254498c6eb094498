"""Memory functions of randomly initialised state-space models of several layers."""

from __future__ import annotations

from typing import Any

import torch

from odernn.models import StateSpaceModel
from odernn.solvers import Adaptive

from ...memory import memory_function
from ..engine.figure import job
from .memory_bands import band, verdict

# Tighter than the default, for some 25 e-foldings above the solver's error.
_SOLVER = Adaptive(rtol=1e-12, atol=1e-15)


@job("deep-ssm-memory")
def deep_ssm_memory(
    layers: int, units: int, activation: str, amplitude: float, horizon: float, samples: int, seeds: list[int]
) -> dict[str, Any]:
    """Heaviside memory of dh_l/dt = W_l h_l + U_l z_{l-1}, z_l = sigma(h_l), y = c^T z_L with as many outputs as units:

        {"curve": `band`, "fits": `verdict` of each seed with its "seed" and "slowest", the rate of the slowest mode of any W_l}

    W = P^T diag(-softplus) P with P orthogonal and rates log-uniform in [0.3, 2]; |y| is the Euclidean norm.

    Args:
        layers, units, activation: of the models.
        amplitude: |x|.
        horizon, samples: of the window.
        seeds: one model each.
    """
    times = torch.linspace(0, horizon, samples, dtype=torch.float64)
    # One layer is linear in its state, and solved exactly.
    solver = _SOLVER if layers > 1 else None
    memories, fits = [], []
    for seed in seeds:
        model = StateSpaceModel(
            1, units, units, activation, "symmetric", "softplus", num_layers=layers, seed=seed, dtype=torch.float64
        )
        M = memory_function(model, times, amplitudes=[amplitude], solver=solver)
        memories.append(M)
        fits.append({"seed": seed, **verdict(M), "slowest": float(model.slowest_rate().detach())})
    return {"curve": band(memories), "fits": fits}
