"""Probes of maps between sequences: the discrete models of odernn, torch modules, functionals, callables."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .base import MAX_DOUBLINGS, Probe, ProbedSystem, ProbeResponse, with_zero_input
from .sequence_maps import MOST_SAMPLES, SequenceMap

# Roundings that add up in one step of a sampled system and its difference quotient; measured on torch.nn.RNN, GRU and LSTM of 1
# to 4 layers in both precisions, whose plateaus lie below this many units (tests/analysis/probes/test_sampled.py).
_ROUNDINGS = 4.0
# By how much inputs differ, relatively, whose responses show the steps of a quantised system.
_NUDGES = (-2e-2, -1e-2, 1e-2, 2e-2)
# Samples sent through a system at once (batch times time): bounds the memory of its activations.
_SAMPLES_AT_ONCE = 2**18


class SampledSystem(ProbedSystem):
    """A map from sequences to sequences, sample k at time k dt.

    With D_k = y_k(x) - y_k(0), the zero-input response subtracted, and y_{k+1} the output that has consumed x_0, ..., x_k:

        heaviside, reversed:  (D_{k+1} - D_k) / dt at t_k;      impulse (x at the first step only):  D_{k+1} / dt at t_k

    so that for a linear system all three are the discrete kernel, c^T W^k U / dt. The outputs of torch modules and of most
    callables have consumed the sample of the same index, those of our discrete models and of functionals (`delayed`) have not.

    The reversed probe holds x for the time `hold`, or until the output is still (at most 16 horizons); what is left of its
    derivative counts as numerical error.
    """

    dt: float

    def __init__(self, sequence_map: SequenceMap, samples: Tensor, warmup: float, hold: float | None) -> None:
        self._run, self.name, self._delayed = sequence_map.run, sequence_map.name, sequence_map.delayed
        self.input_size, self.dtype, self.device = sequence_map.input_size, sequence_map.dtype, sequence_map.device
        self.ensemble, self.linear, self.dt = sequence_map.ensemble, sequence_map.linear, sequence_map.dt
        self._quantised = sequence_map.quantised
        self._samples = samples.to(self.device)
        longest = max(warmup / self.dt, 0.0 if hold is None else hold / self.dt, float(samples[-1]))
        if longest > MOST_SAMPLES:
            raise ValueError(
                f"times, warmup or hold ask for {longest:.3g} samples of dt = {self.dt:g}, expected at most {MOST_SAMPLES}: "
                "take shorter ones or a larger dt"
            )
        self._warmup = round(warmup / self.dt)
        self._held = None if hold is None else max(1, round(hold / self.dt))

    def respond(self, x: Tensor, probe: Probe, *, fast: bool = False) -> ProbeResponse:
        x = with_zero_input(x)
        steps = max(int(self._samples.max()), 0) + 1 + self._delayed
        held = 0
        if probe == "reversed":
            held = max(steps, 2) if self._held is None else self._held
        D, rounding = self._differences(x, probe, held, steps)
        sequences, left = math.prod(x.shape[:-1]), torch.zeros_like(rounding)
        if probe == "reversed":
            left = self._still_moving(D, held)
            for _ in range(0 if self._held is not None else MAX_DOUBLINGS):
                if (left <= rounding).all():
                    break
                held *= 2
                D, rounding = self._differences(x, probe, held, steps)
                sequences, left = sequences + math.prod(x.shape[:-1]), self._still_moving(D, held)
        first = self._warmup + held
        before = D[..., first - 1 : first, :] if first else torch.zeros_like(D[..., :1, :])
        D = torch.cat([before, D[..., first:, :]], -2)
        if self._delayed:  # the output at the step itself has not consumed anything of the probe
            D = D[..., 1:, :]
        every = (D[..., 1:, :] if probe == "impulse" else D.diff(dim=-2)) / self.dt
        values = every[..., self._samples.clamp(min=0), :]
        values = torch.where((self._samples >= 0).unsqueeze(-1), values, torch.zeros_like(values))
        return ProbeResponse(values, rounding + torch.where(left > rounding, left, torch.zeros_like(left)), sequences)

    def _differences(self, x: Tensor, probe: Probe, held: int, steps: int) -> tuple[Tensor, Tensor]:
        """D along warmup, held input and steps after it, (*ensemble, batch, time, output); its rounding, (*ensemble, batch)."""
        first = self._warmup + held
        on = x.new_zeros(first + steps, 1)
        if probe == "reversed":
            on[self._warmup : first] = 1
        else:
            on[first : first + 1 if probe == "impulse" else None] = 1
        y = self._chunked(x.unsqueeze(-2) * on)
        size = torch.linalg.vector_norm(y.detach(), dim=-1).amax(-1)[..., :-1]
        # an output that is coarser than the input rounds more; one that overflowed can be trusted nowhere
        eps = max(torch.finfo(self.dtype).eps, torch.finfo(y.dtype).eps)
        rounding = (_ROUNDINGS * eps * size / self.dt).nan_to_num(nan=math.inf, posinf=math.inf)
        D = y[..., :-1, :, :] - y[..., -1:, :, :]
        if self._quantised:
            # Its steps are told by inputs that hardly differ.
            for nudge in _NUDGES:
                other = self._chunked((1 + nudge) * x.unsqueeze(-2) * on)
                step = torch.linalg.vector_norm((other[..., :-1, :, :] - other[..., -1:, :, :] - D).detach(), dim=-1).amax(-1)
                rounding = torch.maximum(rounding, 2 * step / self.dt)
        return D, rounding

    def _still_moving(self, D: Tensor, held: int) -> Tensor:
        """|dD/dt| just before the held input ends, (*ensemble, batch)."""
        last = self._warmup + held - 1
        change = D[..., last, :] - D[..., last - 1, :] if last >= 1 else D[..., last, :]
        return torch.linalg.vector_norm(change.detach(), dim=-1) / self.dt

    def _chunked(self, x: Tensor) -> Tensor:
        # What is quantised as it runs takes its scale from all of a batch.
        rows = 1 if self._quantised else max(1, _SAMPLES_AT_ONCE // x.shape[-2])
        return torch.cat([self._run(part) for part in x.split(rows, dim=-3)], -3)
