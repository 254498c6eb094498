"""The memory of random models while inputs of some amplitude drive them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from odernn.models import ContinuousRNN, StateSpaceModel
from targets import inputs

from ...influence.background import background_memory
from ...influence.state_size import effective_state_size
from ..engine.figure import job
from .teachers import load_teacher

# Rates of the continuous models, 1/time: one slowest, the others log-uniform between these. The gap decides how soon the slowest
# rules an influence.
_SLOWEST, _OTHERS = 0.1, (0.2, 1.0)
# The forget gates of torch's initial LSTM forget within two samples; the usual bias makes it remember (Jozefowicz et al. 2015).
_FORGET_BIAS = 1.0
# Of a long curve so many lags are kept; the state size takes so many of the sequences, and of the samples.
_LAGS, _FEW, _WINDOW = 121, 4, 161


@job("background-memory")
def driven_memory(
    model: str, amplitude: float, seed: int, units: int, horizon: float, samples: int, sequences: int
) -> dict[str, Any]:
    """Influence over the lag, conditional exponent and effective state size, at the middle of the first 161 samples, of a random
    model under Gaussian noise of this standard deviation.

    Args:
        model: 'rnn' or 'ssm' (tanh, in continuous time), 'lstm' or 'transformer' (which count samples).

    Returns:
        {"lags", "mean", "rms", "geometric", "low", "high", "exponents", "rank", "entropy"}
    """
    times = torch.linspace(0, horizon, samples, dtype=torch.float64)
    x = amplitude * inputs.white_noise(times, batch=sequences, seed=1000 + seed)
    system = _system(model, units, seed)
    if model in ("lstm", "transformer"):
        times = torch.arange(samples, dtype=torch.float64)
    M = background_memory(system, times, x)
    kept = np.unique(np.linspace(0, len(M.times) - 1, _LAGS).round().astype(int))
    low, high = M.spread
    curves = {"lags": M.times, "mean": M.mean, "rms": M.moment(2), "geometric": M.geometric_mean, "low": low, "high": high}
    result: dict[str, Any] = {name: values[kept].tolist() for name, values in curves.items()}
    result["exponents"] = None if M.exponents is None else M.exponents.tolist()
    first = times[:_WINDOW]
    size = effective_state_size(system, first, x[:_FEW, :_WINDOW], at=[float(first[len(first) // 2])])
    return result | {"rank": size.rank[:, 0].tolist(), "entropy": size.entropy[:, 0].tolist()}


def _system(model: str, units: int, seed: int) -> Any:
    if model == "transformer":
        return load_teacher("transformer", seed)
    if model == "lstm":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            lstm = nn.LSTM(1, units, batch_first=True).double()
        bias = lstm.get_parameter("bias_ih_l0").detach()  # shares its memory
        bias[units : 2 * units] += _FORGET_BIAS
        return lstm
    made = ContinuousRNN if model == "rnn" else StateSpaceModel
    system = made(1, units, 1, "tanh", "dense", "direct", bias=False, seed=seed, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    P, _ = torch.linalg.qr(torch.randn(units, units, generator=generator, dtype=torch.float64))
    slow, fast = _OTHERS
    rates = slow * (fast / slow) ** torch.rand(units, generator=generator, dtype=torch.float64)
    rates[0] = _SLOWEST
    W = P.mT @ (-rates.unsqueeze(-1) * P)
    system.set_matrix((W + W.mT) / 2)
    return system
