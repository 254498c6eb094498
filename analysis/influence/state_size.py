"""How many directions of the state carry the past into the future while the system is driven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odernn import Solver
from odernn.citations import record
from odernn.paths import Interpolation
from targets import arguments, grids

from ..results import Result
from .derivatives import derivatives

# Singular values below this part of the largest count as zero, by the precision of the system.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
# Blocks are cut out at so many times where the user names none.
_PLACES = 9


@dataclass(frozen=True, eq=False, repr=False)
class EffectiveStateSize(Result):
    """The singular values of dy_future/dx_past at some times along a batch of inputs.

    Args:
        times: (place,), the times that part past and future.
        singular_values: (*ensemble, batch, place, number), the largest first, with 0 where a block has fewer.
        tolerance: part of the largest below which a singular value counts as zero.
        system: what it belongs to, for legends.
    """

    times: Tensor
    singular_values: Tensor
    tolerance: float
    system: str

    @property
    def rank(self) -> Tensor:
        """How many singular values are above tolerance times the largest, (*ensemble, batch, place)."""
        largest = self.singular_values[..., :1]
        return ((self.singular_values > self.tolerance * largest) & (largest > 0)).sum(-1)

    @property
    def entropy(self) -> Tensor:
        """exp(-sum p log p), p = sigma / sum sigma, (*ensemble, batch, place): from 1, one direction rules, to the rank, all
        count alike; 0 of a block of zeros."""
        total = self.singular_values.sum(-1, keepdim=True)
        p = self.singular_values / total.clamp(min=torch.finfo(total.dtype).tiny)
        size = torch.special.entr(p).sum(-1).exp()
        return torch.where(total.squeeze(-1) > 0, size, torch.zeros_like(size))


def effective_state_size(
    system: Any,
    times: Any,
    background: Any,
    *,
    at: Sequence[float] | Tensor | None = None,
    tolerance: float | None = None,
    solver: Solver | str | None = None,
    interpolation: Interpolation = "linear",
    input_size: int | None = None,
    progress: bool = True,
) -> EffectiveStateSize:
    """The effective state size along an input x: rank and entropy of the block

        H_i = [dy_t/dx_s],   t >= t_i > s,

    (in continuous time s = t_i as well), which carries the past of time t_i into its future. H_i = (outputs from t_i on by the
    state) (state at t_i by past inputs), so that its rank is at most the size of the state; less where the system does not use
    all of it. For a linear system it does not depend on x, and the singular values are its Hankel singular values on the window:
    in continuous time the derivatives are per unit of time, and each entry is weighted by sqrt(w_t w_s), the weights of the
    trapezoidal rule on future and past.

    Args:
        system, times, background, solver, interpolation, input_size, progress: as in `background_memory`. Every output time has
            its own gradient: some hundred times are plenty.
        at: the times t_i, among times[1:]; None for nine of them, evenly spread.
        tolerance: part of the largest singular value below which one counts as zero; None for 1e-6 (float64) or 1e-4.

    Returns:
        An `EffectiveStateSize`: .rank and .entropy, (*ensemble, batch, place), at .times.

    Raises:
        ValueError: as in `background_memory`; fewer than three times; times in `at` that are not among `times`.

    Source: [ESS] Parnichkun et al., Quantifying memory utilization with effective state-size, ICML 2025 (arXiv:2504.19561), with
    the derivative in place of the operator of a linear input-varying system.

    Example:
        >>> import torch
        >>> from analysis import effective_state_size
        >>> lstm, t = torch.nn.LSTM(1, 16, batch_first=True).double(), torch.arange(60.0, dtype=torch.float64)
        >>> effective_state_size(lstm, t, torch.zeros(4, 60, 1, dtype=torch.float64), at=[30]).rank.shape
        torch.Size([4, 1])
    """
    record(effective_state_size)
    times = grids.tensor(times, least=3).detach()
    count = times.numel()
    places = _places(times, at)
    found = derivatives(
        system,
        times,
        background,
        list(range(places[0], count)),
        solver=solver,
        interpolation=interpolation,
        input_size=input_size,
        exponents=False,
        progress=progress,
    )
    if tolerance is None:
        tolerance = _TOLERANCE.get(found.dtype, _TOLERANCE[torch.float32])
    tolerance = arguments.number("tolerance", tolerance, above=0, below=1)
    values = found.values.double()
    if not torch.isfinite(values).all():
        raise ValueError(f"the derivatives of {found.system} are not finite along the background: give a stable system")
    t = times.double().to(values.device)
    sizes = []
    for place in places:
        continuous = found.per == "unit of time"
        # (*ensemble, batch, future, past, output, d); a moment has no weight: in continuous time both sides have that of t_i
        block = values[..., place - places[0] :, : place + continuous, :, :]
        if continuous:
            future, past = _trapezoid(t[place:]), _trapezoid(t[: place + 1])
            block = block * (future.unsqueeze(-1) * past).sqrt()[..., None, None]
        sizes.append(torch.linalg.svdvals(block.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)))
    most = max(size.shape[-1] for size in sizes)
    padded = [torch.nn.functional.pad(size, (0, most - size.shape[-1])) for size in sizes]
    return EffectiveStateSize(times[places], torch.stack(padded, -2), tolerance, found.system)


def _places(times: Tensor, at: Sequence[float] | Tensor | None) -> list[int]:
    """Where past and future part, increasing; each has at least one time."""
    count = times.numel()
    if at is None:
        return torch.linspace(1, count - 1, min(_PLACES, count - 1)).round().long().unique().tolist()
    wanted = arguments.real_tensor("at", at).double().flatten()
    distance = (wanted.unsqueeze(-1) - times.double().to(wanted.device)).abs()
    nearest, index = distance.min(-1) if wanted.numel() else (wanted, wanted.long())
    step = float(times.double().diff().min())
    if not wanted.numel() or not (nearest <= 1e-6 * step).all() or not (index > 0).all():
        raise ValueError(f"at = {at!r} are not among the times after the first: give some of times[1:]")
    return index.unique().tolist()


def _trapezoid(t: Tensor) -> Tensor:
    """Weights (time,); of a single time 1."""
    if t.numel() == 1:
        return torch.ones_like(t)
    half = t.diff() / 2
    return torch.cat([half, half.new_zeros(1)]) + torch.cat([half.new_zeros(1), half])
