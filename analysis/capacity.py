"""Linear memory capacity: how much of each past input a linear readout can recover from the state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odernn.citations import record
from targets import arguments, grids

from .probes import states
from .probes.sequence_maps import MOST_SAMPLES, sample_index
from .results import Result

# Independent sequences that share the samples: they run side by side.
_SEQUENCES = 16
# Directions of the state that hold less than this part of its largest variation are rounding.
_RANK = {torch.float64: 1e-12, torch.float32: 1e-5}
# States to regress on: this many, or this many for each coefficient.
_SAMPLES, _SAMPLES_EACH = 4000, 10


@dataclass(frozen=True, eq=False, repr=False)
class MemoryCapacity(Result):
    """The linear memory capacity MC_k at each delay.

    Args:
        delays: (time,).
        values: MC_k, in [0, 1] for each input channel and summed over them, (time,); corrected for chance, so
            values for a nonlinear system scatter around 0 where nothing is left.
        total: the sum over every delay up to the largest: at most the rank, and equal to it for a linear system once the delays
            reach far.
        rank: linearly independent directions of the state that vary.
        samples: states that were regressed on.

    Example:
        >>> import torch
        >>> from analysis import memory_capacity
        >>> from odernn import DiscreteSSM
        >>> model = DiscreteSSM(1, 3, 1, "linear", "diagonal", "exp", seed=0, dtype=torch.float64)
        >>> found = memory_capacity(model, torch.arange(5.0))
        >>> found.values.shape, found.rank
        (torch.Size([5]), 3)
    """

    delays: Tensor
    values: Tensor
    total: float
    rank: int
    samples: int


@torch.no_grad()
def memory_capacity(
    system: Any,
    times: Any,
    *,
    amplitude: float = 1.0,
    warmup: float | None = None,
    samples: int | None = None,
    dt: float | None = None,
    input_size: int | None = None,
    seed: int = 0,
) -> MemoryCapacity:
    """Jaeger's linear memory capacity

        MC_k = max_w corr^2(u(n - k), w^T h(n)) = s^2 g_k^T C^-1 g_k,    MC = sum_k MC_k

    under independent inputs u, uniform in [-amplitude, amplitude] (variance s^2) and held for dt each. Delay 0 is the last input
    that h(n) has consumed. Here h(n) = sum_k g_k u(n - k) + rest by least squares, and C = s^2 sum_k g_k g_k^T + cov(rest). The
    known covariance of the inputs takes the place of its estimate, so a linear system scores its rank with no sampling error.

    Args:
        system: a model of `odernn` (its state is regressed on), or what else `memory_function` takes (its outputs are: give a
            module that shows its state).
        times: (time,), delays >= 0, multiples of dt.
        amplitude: of the inputs.
        warmup: time left out at the start; None for the largest delay.
        samples: states to regress on; None for 4000, or 10 for each coefficient if these are more.
        dt: time of one input; None for the smallest step of `times`.
        input_size: d of a callable that does not tell.
        seed: of the inputs.

    Raises:
        ValueError: times, sizes or a system that do not fit.

    Example:
        >>> import torch
        >>> from analysis import memory_capacity
        >>> from odernn import DiscreteSSM
        >>> model = DiscreteSSM(1, 3, 1, "linear", "diagonal", "exp", seed=0, dtype=torch.float64)
        >>> round(float(memory_capacity(model, torch.arange(100.0)).total), 2)  # the rank of the state
        3.0

    Source: H. Jaeger, Short term memory in echo state networks, GMD Report 152 (2001) [Jaeger2001].
    """
    record(memory_capacity)
    times = grids.tensor(times)
    if not times[0] >= 0:
        raise ValueError(f"times are delays >= 0, got {float(times[0]):g}: leave out the negative ones")
    amplitude = arguments.number("amplitude", amplitude, above=0)
    warmup = None if warmup is None else arguments.number("warmup", warmup, least=0)
    samples = None if samples is None else arguments.count("samples", samples)
    generator = arguments.generator(seed)
    dt, delays = sample_index(times, dt)
    observed = states(system, dt, times, input_size)
    reach = int(delays[-1]) + 1
    coefficients = 1 + reach * observed.input_size
    wanted = max(_SAMPLES, _SAMPLES_EACH * coefficients) if samples is None else samples
    if wanted < 2 * coefficients:
        raise ValueError(f"samples = {wanted} are too few for {coefficients} coefficients: give at least {2 * coefficients}")
    if max(wanted, 0.0 if warmup is None else warmup / dt) > MOST_SAMPLES:
        raise ValueError(f"samples or warmup ask for more than {MOST_SAMPLES} inputs of dt = {dt:g}: give less, or a larger dt")
    left_out = max(reach - 1, 0 if warmup is None else round(warmup / dt))
    length = left_out + -(-wanted // _SEQUENCES)
    u = 2 * torch.rand(_SEQUENCES, length, observed.input_size, generator=generator, dtype=torch.float64) - 1
    u = u.to(observed.device, observed.dtype)
    h = observed.run(amplitude * u)[:, left_out:].flatten(0, 1).to(u)
    if not torch.isfinite(h).all():
        raise ValueError("the system's states are not finite under these inputs: use a stable system or a smaller amplitude")
    past = [u[:, left_out - k : length - k].flatten(0, 1) for k in range(reach)]
    X = torch.cat([*past, torch.ones_like(h[:, :1])], -1)
    G = torch.linalg.lstsq(X, h).solution
    rest = h - X @ G
    freedom = h.shape[0] - X.shape[1]
    # rows whose Gram matrix is C: the standard deviation of a uniform input is 1 / sqrt(3) of its bound
    noise = torch.linalg.qr(rest, mode="r").R / math.sqrt(freedom)
    rows = torch.cat([G[:-1] / math.sqrt(3), noise])
    left, size, _ = torch.linalg.svd(rows, full_matrices=False)
    rank = int((size > _RANK.get(h.dtype, 1e-5) * size[0]).sum()) if size[0] > 0 else 0
    leverage = left[:, :rank].square().sum(-1)
    # what a coefficient that is zero scores by chance
    chance = leverage[G.shape[0] - 1 :].sum() / h.shape[0]
    every = (leverage[: G.shape[0] - 1] - chance).unflatten(0, (reach, observed.input_size)).sum(-1)
    return MemoryCapacity(times, every[delays.to(every.device)], float(every.sum()), rank, h.shape[0])
