"""Memory around a background: how much of an input is left in the output while the system is driven."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from odernn import Solver
from odernn.citations import record
from odernn.paths import Interpolation
from targets import arguments, grids

from ..results import Result
from .derivatives import Per, derivatives

# The band: this part of the influences lies below it, and above.
_TAIL = 0.1


@dataclass(frozen=True, eq=False, repr=False)
class BackgroundMemory(Result):
    """The influence |dy_t/dx_s| along a batch of inputs, by the lag t - s.

    Args:
        times: (lag,), the lags t - s, increasing from 0.
        influence: (*ensemble, sequence, lag), of every sequence, and of every output time that was averaged over, sequence by
            sequence.
        kernel: (*ensemble, lag, output, d), the mean of dy_t/dx_s itself, with its sign.
        exponents: (*ensemble, batch), 1/time, the conditional Lyapunov exponent along each sequence, at whose rate the geometric
            mean decays in the end; None where the system shows no state equation (a transformer, a callable), is a map of
            which there is an ensemble, or has fewer than eight steps in the middle half of the times.
        floor: (*ensemble,), the level below which rounding rules: where numbers of the system's precision end, or, of a system
            that mixes its samples in rounding (a convolution by FFT), the largest derivative by an input after the output.
        per: what the input is counted in: "unit of time" (models in continuous time and functionals: the functional derivative)
            or "sample" (all others).
        ends: output times averaged over.
        system: what it belongs to, for legends.
    """

    times: Tensor
    influence: Tensor
    kernel: Tensor
    exponents: Tensor | None
    floor: Tensor
    per: Per
    ends: int
    system: str

    def moment(self, p: float) -> Tensor:
        """(E |dy_t/dx_s|^p)^(1/p), (*ensemble, lag); rare sequences rule large p. p = 0 is the geometric mean: 0 where one
        sequence has influence 0."""
        p = arguments.number("p", p, least=0)
        # by logarithms, so that no power overflows
        logs = self.influence.double().log()
        if p == 0:
            return logs.mean(-2).exp().to(self.influence)
        count = self.influence.shape[-2]
        return ((torch.logsumexp(p * logs, -2) - math.log(count)) / p).exp().to(self.influence)

    @property
    def values(self) -> Tensor:
        """The mean over the sequences, (*ensemble, lag)."""
        return self.influence.mean(-2)

    @property
    def mean(self) -> Tensor:
        """The same as `values`."""
        return self.values

    @property
    def geometric_mean(self) -> Tensor:
        """exp E log |dy_t/dx_s|, (*ensemble, lag): what a typical sequence does."""
        return self.moment(0)

    @property
    def spread(self) -> tuple[Tensor, Tensor]:
        """The quantiles 10 % and 90 % over the sequences, each (*ensemble, lag)."""
        # torch.quantile takes no large tensors; between inf and inf lies nan
        with np.errstate(invalid="ignore"):
            ends = np.quantile(self.influence.double().cpu().numpy(), (_TAIL, 1 - _TAIL), axis=-2)
        low, high = torch.from_numpy(ends).to(self.influence)
        return low, high

    @property
    def exponent(self) -> Tensor | None:
        """The mean of the exponents over the sequences, (*ensemble,)."""
        return None if self.exponents is None else self.exponents.mean(-1)

    @property
    def exponent_stderr(self) -> Tensor | None:
        """Its standard error by the scatter of the sequences, (*ensemble,); nan of a single one."""
        if self.exponents is None:
            return None
        count = self.exponents.shape[-1]
        return self.exponents.std(-1) / math.sqrt(count) if count > 1 else torch.full_like(self.exponents[..., 0], math.nan)

    @property
    def above_floor(self) -> Tensor:
        """Where the mean may be trusted, (*ensemble, lag)."""
        return self.values > self.floor.unsqueeze(-1)

    def __getitem__(self, member: int | tuple[int, ...]) -> BackgroundMemory:
        """One member of an ensemble; of one of several axes by a tuple."""
        if isinstance(member, tuple):
            return reduce(BackgroundMemory.__getitem__, member, self)
        if self.influence.ndim == 2:
            raise IndexError("this memory belongs to one system, not to an ensemble")
        size = self.influence.shape[0]
        if not -size <= arguments.count("member", member, least=-arguments.MOST) < size:
            raise IndexError(f"member {member} is outside of the ensemble of {size}: give an index in it")
        exponents = None if self.exponents is None else self.exponents[member]
        return replace(
            self,
            influence=self.influence[member],
            kernel=self.kernel[member],
            exponents=exponents,
            floor=self.floor[member],
        )


def background_memory(
    system: Any,
    times: Any,
    background: Any,
    *,
    ends: int = 1,
    solver: Solver | str | None = None,
    interpolation: Interpolation = "linear",
    input_size: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> BackgroundMemory:
    """The influence of the input on the output while the system is driven,

        M(tau) = |dy_t/dx_{t - tau}|    along an input x,

    in the Frobenius norm over outputs and input channels, with its mean, geometric mean and quantiles over a batch of inputs. The
    probes of `memory_function` start from rest; a nonlinear system remembers otherwise while it is driven. For a linear one all
    are |c^T e^{W tau} U|, whatever x is.

    A model in continuous time and a functional of a kernel have the functional derivative, per unit of time: it does not depend
    on how finely x is sampled. The model is computed in double precision. All others have the derivative with respect to one
    sample. Lag 0 is then the first output that has consumed the sample: y_k of torch modules and callables for x_k, y_{k+1} of
    our discrete models, as for the probes.

    The output is the one at times[-1]; nothing is taken to be stationary. Where the background is stationary and the start from
    rest forgotten, `ends` averages over the last so many output times as well, each at its own lags. The longest lags end at
    times[0], where the system has only begun to be driven: give a background that is longer than the lags of interest.

    Args:
        system: a model of `odernn` (with leading ensemble axes or none), a functional of `targets`, torch.nn.RNN / GRU / LSTM,
            torch.nn.TransformerEncoder, any causal torch module or differentiable callable on (batch, time, channel). Modules
            run in evaluation mode.
        times: (time,), of the samples; evenly spaced unless the system is a model in continuous time or a functional.
        background: x, (batch, time, d), one or more inputs; (*ensemble, batch, time, d) for an input of each member.
        ends: how many of the last output times are averaged over; of more than one the times must be evenly spaced.
        solver: of the continuous models; None or 'auto' for `odernn.solvers.automatic` at rtol 1e-13, atol 1e-15 (of a
            `NeuralODE` 1e-10, 1e-12).
        interpolation: of the background of a continuous model, 'linear' or 'hold'.
        input_size: d of a callable that does not tell; None for that of the background.
        seed: of the tangent for the exponent.
        progress: of a model in continuous time: a bar on a terminal where it takes more than two seconds.

    Returns:
        A `BackgroundMemory`: .times (the lags), .values (the mean), .geometric_mean, .spread, .exponent, .influence.

    Raises:
        ValueError: shapes or values that do not fit, too few times, a system that is not causal or has no gradient.
        DivergedSolve: the state of a model did not stay finite.

    Source: the Frechet derivative of H_t at x; its decay rate is the conditional Lyapunov exponent (Pecora, Carroll, Phys. Rev.
    Lett. 64, 1990), negative where the network has the echo state property for that input ([ESP] Manjunath, Jaeger, Neural
    Computation 25, 2013). For white Gaussian samples `kernel` is E[y_t x_s] / var(x) (Bussgang, Price), the first Wiener kernel.

    Example:
        >>> import torch
        >>> from analysis import background_memory
        >>> t = torch.linspace(0, 5, 51, dtype=torch.float64)
        >>> M = background_memory(torch.nn.GRU(1, 4, batch_first=True).double(), t, torch.zeros(2, 51, 1, dtype=torch.float64))
        >>> M.geometric_mean.shape
        torch.Size([51])
    """
    record(background_memory)
    times = grids.tensor(times, least=2).detach()
    ends = arguments.count("ends", ends)
    if ends > times.numel() - 1:
        raise ValueError(f"ends = {ends} of {times.numel()} times leave no lag for all of them: give at most {times.numel() - 1}")
    if ends > 1 and grids.even_step(times) is None:
        raise ValueError("times are not evenly spaced, and ends > 1 averages at fixed lags: give evenly spaced ones, or ends=1")
    last = range(times.numel() - ends, times.numel())
    found = derivatives(
        system,
        times,
        background,
        list(last),
        solver=solver,
        interpolation=interpolation,
        input_size=input_size,
        seed=seed,
        progress=progress,
    )
    lags = times.numel() - ends + 1
    by_lag = torch.stack([found.values[..., one, e + 1 - lags : e + 1, :, :].flip(-3) for one, e in enumerate(last)], -4)
    norm = torch.linalg.vector_norm(by_lag, dim=(-2, -1)).flatten(-3, -2)
    kernel = by_lag.flatten(-5, -4).mean(-4)
    exponents = None if found.exponents is None else found.exponents.to(found.dtype)
    limits = torch.finfo(found.dtype)
    floor = torch.full(norm.shape[:-2], limits.tiny / limits.eps, dtype=found.dtype, device=norm.device)
    if found.noise is not None:
        floor = floor.maximum(found.noise)
    elapsed = (times[-1].double() - times[times.numel() - lags :].double()).flip(0)
    return BackgroundMemory(
        elapsed, norm.to(found.dtype), kernel.to(found.dtype), exponents, floor, found.per, ends, found.system
    )
