"""Memory functions of randomly initialised RNN, GRU, LSTM and S4D networks under both probes."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...memory import memory_function
from ...probes import dynamics
from ..engine.figure import job
from .memory_bands import band, verdict
from .s4d import S4D

Kind = Literal["RNN", "GRU", "LSTM", "S4D"]
PROBES: tuple[Literal["heaviside", "impulse"], ...] = ("heaviside", "impulse")


def network(kind: Kind, units: int, layers: int, states: int, seed: int) -> nn.Module:
    """A network of input size 1 in float64 as it is initialised; `states` of each channel are for S4D only."""
    if kind == "S4D":
        return S4D(1, units, layers, states=states, seed=seed)
    # torch.nn takes its initial weights from the global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}[kind](1, units, layers, batch_first=True, dtype=torch.float64)


@job("random-network-memory")
def network_memory(
    kind: Kind,
    units: int,
    layers: int,
    states: int,
    amplitudes: list[float],
    samples: int,
    fit_from: int,
    warmup: int,
    seeds: list[int],
) -> dict[str, Any]:
    """{"curves": `band` with its amplitude and probe, "fits": `verdict` of each seed, amplitude and probe, "slowest": the rate of
    the slowest mode of each seed (S4D only)}.

    The memory function is that of the output vector, in its Euclidean norm, one sample as the unit of time.

    Args:
        kind, units, layers, states: as in `network`.
        amplitudes: |x|, each on its own (x and -x).
        samples: of the window.
        fit_from: samples that the fits leave out: faster modes.
        warmup: samples without input before the probe.
        seeds: one network each.
    """
    times = torch.arange(samples, dtype=torch.float64)
    networks = [network(kind, units, layers, states, seed) for seed in seeds]
    curves, fits = [], []
    for amplitude in amplitudes:
        for probe in PROBES:
            memories = [memory_function(net, times, probe=probe, amplitudes=[amplitude], warmup=warmup) for net in networks]
            setting = {"amplitude": amplitude, "probe": probe}
            curves.append({**setting, **band(memories)})
            fits += [{**setting, "seed": seed, **verdict(M, fit_from)} for seed, M in zip(seeds, memories)]
    slowest = [
        {"seed": seed, "rate": min(float(layer.ssm.slowest_rate().detach().amin()) for layer in net.blocks)}
        for seed, net in zip(seeds, networks)
        if isinstance(net, S4D)
    ]
    return {"curves": curves, "fits": fits, "slowest": slowest}


@job("random-network-rates")
@torch.no_grad()
def settled_rates(kind: Kind, units: int, amplitudes: list[float], samples: int, seeds: list[int]) -> dict[str, Any]:
    """The rates that linearisation gives one-layer networks: -log of the spectral radius of the Jacobian dh_{k+1}/dh_k at the
    state that a held input leads to.

    The impulse response ends at the state without input, the Heaviside one at that of x; of x and -x the slower counts.

    Returns:
        {"rates": for each seed and amplitude (0 for no input) the rate, 1/sample, and "change" of the last step: 0 if settled}.
    """
    rates = []
    for seed in seeds:
        step = dynamics(network(kind, units, 1, 0, seed))
        inputs = [sign * amplitude for amplitude in (0.0, *amplitudes) for sign in (1.0, -1.0)]
        x = torch.tensor(inputs, dtype=torch.float64).unsqueeze(-1)
        h = step.rest().expand(len(inputs), -1)
        before: Tensor = h
        for _ in range(samples):
            before, h = h, step(h, x)
        radius = torch.linalg.eigvals(step.jacobian(h, x)).abs().amax(-1)
        slowest = (-radius.log()).unflatten(0, (-1, 2)).amin(-1)
        change = float((h - before).abs().max())
        rates += [
            {"seed": seed, "amplitude": amplitude, "rate": float(rate), "change": change}
            for amplitude, rate in zip((0.0, *amplitudes), slowest)
        ]
    return {"rates": rates}
