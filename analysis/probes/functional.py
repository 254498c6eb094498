"""Probes of convolutions under static nonlinearities, whose responses are known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from targets import ConvolutionalFunctional, StepResponseFunctional

from .base import Probe, ProbedSystem, ProbeResponse

# The reversed probe holds x for this many horizons: the state H_0(r^x) is an integral of rho to there.
_HELD_HORIZONS = 100.0


class KnownFunctional(ProbedSystem):
    """y = psi(int rho(t-s)^T x(s) ds): responses from rho.

    With S(t) = int_0^t rho the convolution itself has H_t(u^x) = S(t)^T x, H_t(i^x) = rho(t)^T x and
    H_t(r^x) = (S(t + A) - S(t))^T x, A the time for which x was held (100 horizons, or `hold`). psi acts on these, and
    d/dt psi(H) = psi'(H) dH/dt. Without a psi all three are rho(t)^T x exactly.
    """

    def __init__(
        self, functional: StepResponseFunctional, convolution: ConvolutionalFunctional, times: Tensor, hold: float | None
    ) -> None:
        self._functional, self._convolution = functional, convolution
        self.linear = functional is convolution
        label = convolution.kernel.label
        self.name = label if self.linear else f"{type(functional).__name__}({label})"
        self.input_size = convolution.kernel.size
        self.dtype, self.device = torch.float64, times.device
        self._times = times.to(torch.float64)
        self._hold = _HELD_HORIZONS * max(float(times[-1]), 1.0) if hold is None else hold

    def respond(self, x: Tensor, probe: Probe, *, fast: bool = False) -> ProbeResponse:
        t, H, convolution = self._times, self._functional, self._convolution
        values = convolution.rate(t, x)
        left = x.new_zeros(x.shape[:-1])
        if probe == "impulse":
            values = H.transform(values)
        elif not self.linear:
            y = convolution.step(t, x)
            if probe == "reversed":
                both = torch.cat([t + self._hold, t]).unique()
                y = convolution.step(both, x)[..., torch.searchsorted(both, t + self._hold), :] - y
                left = H.transform_rate(convolution.rate(t + self._hold, x), y)[..., 0, :].detach().abs().sum(-1)
                values = -values
            values = H.transform_rate(values, y)
        values = torch.where((t >= 0).unsqueeze(-1), values, torch.zeros_like(values))
        # rho is exact to rounding of its own value: only the smallest numbers are a floor
        error = left + torch.finfo(torch.float64).tiny * x.abs().amax(-1)
        return ProbeResponse(values, error, math.prod(x.shape[:-1]))
