"""Ensembles of inputs: seeded gaussian or near-gaussian processes of mean zero and unit variance.

Every function takes t (time,) and returns (batch, time, channels) in the dtype and on the device of t;
channels and sequences are independent. Numbers are drawn in float64 on the generator's device (the CPU for an
integer seed), so that one seed gives the same inputs for every dtype and device of t.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from targets import arguments, grids

Seed = int | torch.Generator

# The square root of the covariance costs time^3; above this it takes minutes, and random_fourier is the way.
_MAX_GAUSSIAN_PROCESS_TIMES = 4000


def white_noise(t: Tensor, batch: int, *, channels: int = 1, seed: Seed = 0, amplitude: float = 1.0) -> Tensor:
    """Independent N(0, amplitude^2) at every sample, whatever the step.

    Args:
        t: (time,) increasing times.
        batch: number of sequences.
        channels: number of channels.
        seed: integer seed, or a generator, which is advanced.
        amplitude: standard deviation.

    Returns:
        (batch, time, channels).

    Raises:
        ValueError: t is not increasing, or a size or number is out of range.
    """
    n, generator, amplitude = _prepare(t, batch, channels, seed, amplitude)
    return (amplitude * _normal(generator, batch, n, channels)).to(t)


def ornstein_uhlenbeck(
    t: Tensor,
    batch: int,
    *,
    channels: int = 1,
    seed: Seed = 0,
    amplitude: float = 1.0,
    timescale: float = 1.0,
) -> Tensor:
    """Stationary Ornstein-Uhlenbeck process, exact on any grid.

        E x(t) x(s) = amplitude^2 e^{-|t-s|/timescale};   x_{k+1} = a x_k + sqrt(1 - a^2) xi,  a =
        e^{-Dt/timescale}

    Args:
        timescale: correlation time, > 0.
        t, batch, channels, seed, amplitude: as in `white_noise`.

    Returns:
        (batch, time, channels).

    Raises:
        ValueError: as `white_noise`.
    """
    n, generator, amplitude = _prepare(t, batch, channels, seed, amplitude)
    timescale = arguments.number("timescale", timescale, above=0)
    noise = _normal(generator, batch, n, channels)
    steps = t.detach().to(noise).diff() / timescale
    # expm1: 1 - a^2 loses digits for small Dt
    keep, renew = torch.exp(-steps), torch.sqrt(-torch.expm1(-2 * steps))
    x = [noise[:, 0]]  # drawn from the stationary law
    for k in range(n - 1):
        x.append(keep[k] * x[-1] + renew[k] * noise[:, k + 1])
    return (amplitude * torch.stack(x, dim=1)).to(t)


def gaussian_process(
    t: Tensor,
    batch: int,
    *,
    channels: int = 1,
    seed: Seed = 0,
    amplitude: float = 1.0,
    length_scale: float = 1.0,
) -> Tensor:
    """Smooth gaussian process.

        E x(t) x(s) = amplitude^2 e^{-(t-s)^2 / (2 length_scale^2)}

    Args:
        length_scale: time, > 0.
        t, batch, channels, seed, amplitude: as in `white_noise`.

    Returns:
        (batch, time, channels).

    Raises:
        ValueError: as `white_noise`, or more times than the dense covariance allows.
    """
    n, generator, amplitude = _prepare(t, batch, channels, seed, amplitude)
    length_scale = arguments.number("length_scale", length_scale, above=0)
    if n > _MAX_GAUSSIAN_PROCESS_TIMES:
        raise ValueError(
            f"t has {n} times, expected at most {_MAX_GAUSSIAN_PROCESS_TIMES} for a gaussian process; use random_fourier"
        )
    noise = _normal(generator, batch, n, channels)
    times = t.detach().to(noise)
    covariance = torch.exp(-0.5 * ((times[:, None] - times) / length_scale) ** 2)
    # The covariance is singular to rounding once samples are much denser than the length scale, where a
    # Cholesky factor needs a jitter on the diagonal, which is white noise in x. The symmetric root needs
    # none: eigenvalues that rounding made negative are zero. It is unique, so that the sign of eigenvectors
    # does not matter.
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    root = vectors * eigenvalues.clamp(min=0).sqrt() @ vectors.mT
    return (amplitude * (root @ noise)).to(t)


def random_fourier(
    t: Tensor,
    batch: int,
    *,
    channels: int = 1,
    seed: Seed = 0,
    amplitude: float = 1.0,
    length_scales: tuple[float, float] = (0.3, 30.0),
    features: int = 64,
) -> Tensor:
    """Random Fourier series whose length scale differs from sequence to sequence ("multi-scale").

        x(t) = amplitude sqrt(2/F) sum_f cos(w_f t + phi_f),   w_f ~ N(0, 1/l^2),   phi_f ~ U(0, 2 pi)

    Near a gaussian process of length scale l, log-uniform over `length_scales`, one l for each sequence and
    channel. Slow sequences show the tail of a memory, which white noise averages out.

    Args:
        length_scales: smallest and largest l, times, 0 < smallest <= largest.
        features: F, number of cosines.
        t, batch, channels, seed, amplitude: as in `white_noise`.

    Returns:
        (batch, time, channels).

    Raises:
        ValueError: as `white_noise`.
    """
    _, generator, amplitude = _prepare(t, batch, channels, seed, amplitude)
    features = arguments.count("features", features)
    pair = arguments.real_tensor("length_scales", length_scales).tolist()
    if not isinstance(pair, list) or len(pair) != 2 or not 0 < pair[0] <= pair[1]:
        raise ValueError(f"length_scales are {length_scales}, expected 0 < smallest <= largest; give (0.3, 30.0)")
    shortest, longest = pair
    spread = math.log(longest / shortest)
    scale = shortest * torch.exp(spread * _uniform(generator, batch, 1, channels))
    frequency = _normal(generator, features, batch, 1, channels) / scale
    phase = 2 * math.pi * _uniform(generator, features, batch, 1, channels)
    times = t.detach().to(scale)[:, None]
    x = torch.zeros(batch, len(t), channels, dtype=scale.dtype, device=scale.device)
    # one by one: (features, batch, time, channels) may not fit
    for w, phi in zip(frequency, phase, strict=True):
        x += torch.cos(w * times + phi)
    return (amplitude * math.sqrt(2 / features) * x).to(t)


INPUTS: dict[str, Callable[..., Tensor]] = {
    "white_noise": white_noise,
    "ornstein_uhlenbeck": ornstein_uhlenbeck,
    "gaussian_process": gaussian_process,
    "random_fourier": random_fourier,
}


def get(name: str) -> Callable[..., Tensor]:
    """The ensemble of that name.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    return INPUTS[arguments.choice("input", name, INPUTS)]


def _prepare(t: Tensor, batch: int, channels: int, seed: Seed, amplitude: float) -> tuple[int, torch.Generator, float]:
    """Checks what all ensembles share; the number of times, the generator and the amplitude."""
    n = len(grids.times(t))
    arguments.count("batch", batch)
    arguments.count("channels", channels)
    return n, arguments.generator(seed), arguments.number("amplitude", amplitude)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)
