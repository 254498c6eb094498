"""Leading Lyapunov exponents along a driven trajectory, by repeated QR decomposition."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torchdiffeq
from torch import Tensor

from odernn.citations import record
from odernn.paths import Interpolation, interpolate
from targets import arguments, grids

from .dynamics import Dynamics
from .probes import dynamics
from .results import Result

# Tolerances of the joint integration of the state and its tangent vectors.
_RTOL, _ATOL = 1e-6, 1e-9
# Blocks of the trajectory from whose scatter the standard errors are taken.
_BLOCKS = 8


@dataclass(frozen=True, eq=False, repr=False)
class LyapunovExponents(Result):
    """Growth rates of infinitesimal perturbations, 1/time, the largest first.

    Args:
        exponents: (count,), the mean over the trajectory after the transient.
        stderr: (count,), from the scatter of blocks of it.
        times: ends of the intervals averaged over, (intervals,).
        running: the mean up to each, (intervals, count): whether it has settled.

    Example:
        >>> import torch
        >>> from analysis import lyapunov_exponents
        >>> found = lyapunov_exponents(lambda h: h - h**3, torch.linspace(0, 20, 201), h0=torch.tensor([0.5]), size=1)
        >>> [round(value, 1) for value in found.exponents.tolist()]  # that of the state h = 1
        [-2.0]
    """

    exponents: Tensor
    stderr: Tensor
    times: Tensor
    running: Tensor


@torch.no_grad()
def lyapunov_exponents(
    system: Any,
    times: Any,
    *,
    x: Tensor | None = None,
    h0: Tensor | None = None,
    count: int | None = None,
    transient: float = 0.25,
    interpolation: Interpolation = "linear",
    size: int | None = None,
    seed: int = 0,
) -> LyapunovExponents:
    """With dQ/dt = J(h(t)) Q along dh/dt = F(h, x), or Q <- J Q along a map, and QR = Q at every time of the grid,

        lambda_i = lim 1/T sum log R_ii.

    A negative leading exponent under an input is the echo state property along it: the state forgets where it started.

    Args:
        system: a model of `odernn`, torch.nn.RNN / GRU / LSTM, or a vector field F(h) on (n, size) (a flow).
        times: (time,) increasing: where Q is made orthogonal again; choose steps over which no tangent grows by more than some
            1e6. One step per sample for a map, so evenly spaced there.
        x: (time, d), the input at these times; None for none.
        h0: (size,), the state at times[0]; None for the rest state.
        count: how many exponents; None for all.
        transient: part of the trajectory that is left out at the start.
        interpolation: of x, for a flow.
        size: of the state of a vector field.
        seed: of the first Q.

    Raises:
        ValueError: shapes that do not fit, a system without a state equation.
        ArithmeticError: the state did not stay finite.

    Example:
        >>> import torch
        >>> from analysis import lyapunov_exponents
        >>> found = lyapunov_exponents(lambda h: -h * torch.tensor([1.0, 3.0]).to(h), torch.linspace(0, 10, 101), size=2)
        >>> [round(value, 3) for value in found.exponents.tolist()]
        [-1.0, -3.0]

    Source: Benettin et al., Meccanica 15 (1980) [Benettin1980]; Engelken, Wolf, Abbott, Phys. Rev. Research 5 (2023) for
    recurrent networks [Engelken2023].
    """
    record(lyapunov_exponents)
    # in double precision whatever the system's: the steps between large times are differences of close numbers
    times = grids.tensor(times, least=2).double()
    transient = arguments.number("transient", transient, least=0, below=1)
    generator = arguments.generator(seed)
    steps = times.diff()
    flow = dynamics(system, size=size, dt=float(steps.mean()))
    if flow.kind == "map" and float((steps / flow.dt - 1).abs().max()) > 1e-3:
        raise ValueError("a map moves one sample at a time: give evenly spaced times")
    number = flow.size if count is None else arguments.count("count", count, most=flow.size)
    times, like = times.to(flow.device), flow.rest()
    x = like.new_zeros(times.numel(), flow.input_size) if x is None else arguments.real_tensor("x", x).to(like)
    if x.shape != (times.numel(), flow.input_size):
        raise ValueError(f"x must be (time, d) = ({times.numel()}, {flow.input_size}), got {tuple(x.shape)}")
    h = flow.rest() if h0 is None else arguments.real_tensor("h0", h0).to(like)
    if h.shape != (flow.size,):
        raise ValueError(f"h0 must be ({flow.size},), got {tuple(h.shape)}")
    Q = torch.linalg.qr(torch.randn(flow.size, number, generator=generator, dtype=torch.float64).to(h)).Q
    path = interpolate(times, x.unsqueeze(0), interpolation)
    logs = []
    for k in range(times.numel() - 1):
        if flow.kind == "map":
            drive, state = x[k : k + 1], h.unsqueeze(0)
            Q = flow.jacobian(state, drive)[0] @ Q
            h = flow(state, drive)[0]
        else:
            piece = path.start[0, k], path.end[0, k]
            try:
                h, Q = _flow(flow, h, Q, times[k : k + 2], piece)
            except AssertionError:  # torchdiffeq's step size underflowed
                h = torch.full_like(h, math.nan)
        if not torch.isfinite(h).all():
            raise ArithmeticError(f"the state is not finite after t = {float(times[k]):g}: use a stable system or smaller inputs")
        Q, R = torch.linalg.qr(Q)
        # a direction that is lost altogether (a relu that is off) has the exponent -inf
        logs.append(R.diagonal().abs().log())
    first = min(int(transient * len(logs)), len(logs) - 1)
    grown = torch.stack(logs)[first:]
    lengths = times.diff()[first:].unsqueeze(-1).to(grown)
    running = grown.cumsum(0) / lengths.cumsum(0)
    order = running[-1].argsort(descending=True)
    blocks = [(g.sum(0) / w.sum()) for g, w in zip(grown.tensor_split(_BLOCKS), lengths.tensor_split(_BLOCKS)) if len(g)]
    scatter = torch.stack(blocks).std(0) / math.sqrt(len(blocks)) if len(blocks) > 1 else torch.full_like(running[-1], math.nan)
    return LyapunovExponents(running[-1][order], scatter[order], times[first + 1 :], running[:, order])


def _flow(system: Dynamics, h: Tensor, Q: Tensor, span: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The state and its tangent vectors over one interval, on which the input runs linearly from x[0] to x[1]."""

    def rate(s: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        drive = torch.lerp(*x, ((s - span[0]) / (span[1] - span[0])).to(h.dtype)).unsqueeze(0)
        at = state[0].unsqueeze(0)
        now = system.at(origin + s)
        return now(at, drive)[0], now.jacobian(at, drive)[0] @ state[1]

    origin = torch.zeros_like(span[0])
    loosened = 1.0 if h.dtype == torch.float64 else 1e3
    if h.dtype != torch.float64:
        # torchdiffeq takes times in the precision of the state
        origin = span[0]
        span = span - origin
    after = torchdiffeq.odeint(rate, (h, Q), span, rtol=_RTOL * loosened, atol=_ATOL * loosened, method="dopri5")
    return after[0][-1], after[1][-1]
