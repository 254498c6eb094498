"""The memory function of any system, M(H)(t) = sup_{x != 0} |d/dt H_t(u^x)| / |x|_inf ([IA] Def 3.1)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor

from odernn import SequenceModel, Solver
from odernn.progress import Progress
from odernn.solvers import own_default
from targets import arguments, grids

from .influence import BackgroundMemory, background_memory
from .linearisation import spectrum_rate
from .probes import PROBES, Probe, ProbedSystem, ProbeResponse, probed
from .results import Result

# The unit of the models' inputs, and one small enough for the linear regime of the usual activations. The supremum over x != 0
# contains both, and all others: see `memory_function`.
AMPLITUDES = (0.1, 1.0)
# Up to a largest amplitude they are tried at this ratio: of a unit that saturates M is found to within it.
_AMPLITUDE_RATIO, _ROUNDING = math.sqrt(2.0), 1e-9
# Up to this many input channels every sign vector is a start of the search: 2^6 = 64.
_ALL_SIGNS = 6
# Beyond that, this many random ones; and in either case a few points inside the faces.
_RANDOM_SIGNS = 64
_FACE_STARTS = 8
# The ascent runs towards this many times, from the best this many starts at each.
_ASCENT_TIMES = 8
_ASCENT_STARTS = 3
# Step length of the ascent, in units of the amplitude, and how it grows after success and shrinks after failure.
_STEP, _GROW, _SHRINK = 0.5, 1.5, 0.3
# For a vector output of a linear system all sign vectors are tried up to this d; a fixed-point iteration goes on from there.
_ALL_SIGNS_LINEAR = 12
# A response less than this times its own numerical error may not displace one with a smaller error.
_TRUSTED = 10.0
# More amplitudes than this are told by their ends.
_LISTED = 4
# Times that begin so many of their spans after 0 are those of a clock.
_CLOCK = 1e4


@dataclass(frozen=True, eq=False, repr=False)
class MemoryFunction(Result):
    """A sampled memory function with its maximisers and its noise floor.

    Args:
        times: (time,).
        values: M, (*ensemble, time).
        maximizer: the x that attains it at each time, (*ensemble, time, d).
        floor: (*ensemble,), the level below which rounding (or the tolerance of the solver) rules: `fit_decay` and pictures
            stop there.
        probe: "heaviside", "impulse" or "reversed".
        system: what it belongs to, for legends.
        sequences: input sequences that the system was run on.
        amplitudes: the |x|_inf that the supremum is over, increasing; None where M does not depend on |x| (linear systems).
        spectrum_rate: 1/time, rate of the slowest observable mode of the linearisation at rest, where the system is a model of
            `odernn` without ensemble axes (`analysis.linearisation`); None otherwise.

    Example:
        >>> import torch
        >>> from analysis import memory_function
        >>> M = memory_function(torch.nn.LSTM(1, 8, batch_first=True).double(), torch.arange(50.0))
        >>> M.probe, M.values.shape, M.amplitudes
        ('heaviside', torch.Size([50]), (0.1, 1.0))
    """

    times: Tensor
    values: Tensor
    maximizer: Tensor
    floor: Tensor
    probe: Probe
    system: str
    sequences: int
    spectrum_rate: float | None = None
    amplitudes: tuple[float, ...] | None = None

    @property
    def amplitudes_text(self) -> str:
        """Over which |x| the supremum is, in words."""
        if self.amplitudes is None:
            return "all |x|"
        if len(self.amplitudes) > _LISTED:
            return f"|x| from {self.amplitudes[0]:.3g} to {self.amplitudes[-1]:.3g}, {len(self.amplitudes)} of them"
        return "|x| = " + ", ".join(f"{a:.3g}" for a in self.amplitudes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MemoryFunction:
        """The inverse of `to_dict`; earlier versions did not write the amplitudes."""
        return super().from_dict({"amplitudes": None, **values})

    @property
    def above_floor(self) -> Tensor:
        """Where M may be trusted, (*ensemble, time)."""
        return self.values > self.floor.unsqueeze(-1)

    def __getitem__(self, member: int | tuple[int, ...]) -> MemoryFunction:
        """One member of an ensemble."""
        if self.values.ndim == 1:
            raise IndexError("this memory function belongs to one system, not to an ensemble")
        index = member if isinstance(member, tuple) else (member,)
        for axis, one in enumerate(index):
            size = self.values.shape[axis] if axis < self.values.ndim - 1 else 0
            if not -size <= arguments.count("member", one, least=-arguments.MOST) < size:
                raise IndexError(
                    f"member {member} is outside of the ensemble {tuple(self.values.shape[:-1])}: give an index in it"
                )
        member = tuple(int(one) for one in index)
        return replace(self, values=self.values[member], maximizer=self.maximizer[member], floor=self.floor[member])


@overload
def memory_function(system: Any, times: Any, *, background: None = None, **probing: Any) -> MemoryFunction: ...
@overload
def memory_function(system: Any, times: Any, *, background: Tensor, **driving: Any) -> BackgroundMemory: ...
def memory_function(  # type: ignore[misc]  # the arguments in full stand here alone
    system: Any,
    times: Any,
    *,
    probe: Probe = "heaviside",
    amplitudes: Sequence[float] | None = None,
    max_amplitude: float | None = None,
    directions: Tensor | None = None,
    warmup: float = 0.0,
    hold: float | None = None,
    solver: Solver | str | None = None,
    dt: float | None = None,
    input_size: int | None = None,
    ascent_steps: int = 15,
    seed: int = 0,
    progress: bool = True,
    background: Tensor | None = None,
) -> MemoryFunction | BackgroundMemory:
    """The memory function

        heaviside  M(t) = sup_{x != 0} |d/dt H_t(u^x)| / |x|_inf,   u^x_t = x for t >= 0
        impulse    M(t) = sup_{x != 0} |H_t(i^x)| / |x|_inf,        i^x: x at t = 0 only
        reversed   M(t) = sup_{x != 0} |d/dt H_t(r^x)| / |x|_inf,   r^x_t = x for t < 0

    with |.| of an output vector its Euclidean norm and H_t(x) the response less the zero-input response. All three are |rho(t)|_1
    for a linear functional; what they mean for each kind of nonlinear system is written in `analysis.probes`.

    The supremum is exact for linear systems of one output (sum of |rho_j|, attained at a sign vector). For others it runs over
    `amplitudes` and over directions: +-1 for d = 1; for d > 1 all sign vectors (d <= 6) or random ones, points of the faces, and
    projected gradient ascent on the sphere |x|_inf = amplitude from the best of these. It is a lower bound, never below the
    best start.

    The definition's supremum is over every x != 0, and of a nonlinear system it may rest on large ones. An activation that
    saturates bounds the speed of its state, so that a step of size |x| takes a time like |x| to pass: the unit
    dh/dt = tanh(x - h) has

        |d/dt h(u^x)| / |x| = tanh(asinh(sinh(|x|) e^-t)) / |x|,

    e^-t for small x, but about 1 / |x| until t = |x|. The supremum over all x then falls like 1/t, though every single x is
    forgotten exponentially: the law belongs to the amplitudes, and the result names them. `max_amplitude` bounds them.

    Args:
        system: a model of `odernn` (with leading ensemble axes or none), a functional of `targets`, torch.nn.RNN / GRU / LSTM,
            torch.nn.TransformerEncoder (given its causal mask), or any callable on (batch, time, channel) that returns a tensor
            (batch, time, output) or a tuple that begins with one. Modules run in evaluation mode, and are left as they were.
        times: (time,) increasing; M = 0 before t = 0, where the probe sets in. Multiples of `dt` for sampled systems.
        amplitudes: values of |x|_inf > 0; by default 0.1 and 1. Ignored for linear systems.
        max_amplitude: in place of them, a bound A of |x|_inf: amplitudes from min(0.1, A) to A, a factor sqrt(2) apart.
        directions: (n, d), the only x / |x|_inf to try, in place of the search; None for the search.
        warmup: time for which the system runs without input before the probe.
        hold: time for which the reversed probe holds x before t = 0; None: until the system has settled.
        solver: of the continuous models; None or 'auto' for `odernn.solvers.automatic` at rtol 1e-10, atol 1e-12 (in float64).
        dt: time of one sample of a sampled system; None for the smallest step of `times`.
        input_size: d of a callable that does not tell; 1 by default.
        ascent_steps: of the gradient ascent (d > 1, nonlinear); 0 for none.
        seed: of the random starts.
        progress: a bar on a terminal, of what takes more than two seconds.
        background: in place of a probe an input, (batch, time, d) at `times`, along which the system is driven: the influence
            |dy_t/dx_s| over the lag, see `analysis.influence.background_memory`.

    Returns:
        A `MemoryFunction`; with a background a `BackgroundMemory`.

    Raises:
        ValueError: an unknown probe, times or amplitudes that make no sense, a system without a memory function (with the
            reason).
        DivergedSolve: an adaptive solver gave up.

    Example:
        >>> import torch
        >>> from analysis import memory_function
        >>> from targets import make_target
        >>> M = memory_function(make_target("exponential"), torch.arange(4.0))
        >>> [round(value, 3) for value in M.values.tolist()]
        [1.0, 0.368, 0.135, 0.05]

    Source: [IA] Def 3.1, Eq 4, App F and G.
    """
    if background is not None:
        probing = {"amplitudes": amplitudes, "max_amplitude": max_amplitude, "directions": directions, "hold": hold, "dt": dt}
        given = [name for name, value in probing.items() if value is not None] + ["probe"] * (probe != "heaviside")
        if given := given + ["warmup"] * (warmup != 0):
            raise ValueError(f"{given[0]} is for the probes, which start from rest: leave it out, or the background")
        return background_memory(system, times, background, solver=solver, input_size=input_size, seed=seed, progress=progress)
    if not isinstance(probe, str) or probe not in PROBES:
        raise ValueError(f"unknown probe {probe!r}: choose one of {', '.join(PROBES)}")
    times = _checked_times(times)
    levels = _levels(amplitudes, max_amplitude)
    warmup = arguments.number("warmup", warmup, least=0)
    hold = None if hold is None else arguments.number("hold", hold, above=0)
    ascent_steps, generator = arguments.count("ascent_steps", ascent_steps, least=0), arguments.generator(seed)
    settings: dict[str, Any] = {"warmup": warmup, "hold": hold, "solver": own_default(solver), "input_size": input_size}
    whole = probed(system, times, dt=dt, **settings)
    if directions is not None:
        directions = _checked_directions(directions, whole)
    if whole.linear and directions is None:
        found = _linear_supremum(whole, probe)
    else:
        probe_at = partial(probed, system, dt=whole.dt, **settings)
        found = _supremum(whole, probe_at, times, probe, levels, directions, ascent_steps, generator, progress)
    rate = spectrum_rate(system, whole.dt or 1.0) if isinstance(system, SequenceModel) else None
    searched = None if whole.linear else tuple(sorted(set(levels)))
    return MemoryFunction(times, found.values, found.maximizer, found.floor, probe, whole.name, found.sequences, rate, searched)


def _levels(amplitudes: Sequence[float] | None, most: float | None) -> list[float]:
    """The amplitudes to try."""
    if most is not None:
        if amplitudes is not None:
            raise ValueError("amplitudes and max_amplitude both came: give the amplitudes, or the largest of them")
        most = arguments.number("max_amplitude", most, above=0)
        least = min(AMPLITUDES[0], most)
        steps = math.ceil(math.log(most / least) / math.log(_AMPLITUDE_RATIO) - _ROUNDING)
        return [most * (least / most) ** (k / steps) for k in range(steps, -1, -1)] if steps else [most]
    levels = arguments.real_tensor("amplitudes", AMPLITUDES if amplitudes is None else amplitudes).tolist()
    if not isinstance(levels, list) or not levels or not all(isinstance(a, float) and a > 0 for a in levels):
        raise ValueError(f"amplitudes must be positive numbers, got {amplitudes!r}: give for example (0.1, 1.0)")
    return levels


def _checked_times(times: Any) -> Tensor:
    times = grids.tensor(times).detach()
    if not times[-1] >= 0:
        raise ValueError(f"all times lie before 0, where the probe sets in (the last is {float(times[-1]):g}): give times >= 0")
    first, span = float(times[0]), float(times[-1] - times[0])
    if first > _CLOCK * span > 0:
        raise ValueError(
            f"times begin at {first:.9g} and span {span:.3g}: they are the time since the probe set in, at 0, and not that of a "
            "clock; give times - times[0]"
        )
    return times


def _checked_directions(directions: Tensor, system: ProbedSystem) -> Tensor:
    directions = arguments.real_tensor("directions", directions).to(system.device, system.dtype)
    if directions.ndim != 2 or directions.shape[0] == 0 or directions.shape[1] != system.input_size:
        raise ValueError(f"directions must be (n, {system.input_size}) for this system, got {tuple(directions.shape)}")
    size = directions.abs().amax(-1, keepdim=True)
    if not (size > 0).all():
        raise ValueError("directions must be finite and not 0: x = 0 is no probe")
    return directions / size


@dataclass(frozen=True)
class _Supremum:
    values: Tensor
    maximizer: Tensor
    floor: Tensor
    sequences: int


# --- linear systems ----------------------------------------------------------------------------------------


@torch.no_grad()
def _linear_supremum(system: ProbedSystem, probe: Probe) -> _Supremum:
    """max over sign vectors of |R(t) x|_2, with R(t) = (rho_1(t), ..., rho_d(t)) of shape (output, d): the maximum of a convex
    function over a cube is at a corner. One output: x = sign(rho), |rho|_1."""
    d = system.input_size
    basis = torch.eye(d, dtype=system.dtype, device=system.device).expand(*system.ensemble, d, d)
    response = system.respond(basis, probe)
    R = response.values.movedim(-3, -1)  # (*ensemble, time, output, d)
    if R.shape[-2] == 1:
        x = _signs(R.squeeze(-2))
    elif d <= _ALL_SIGNS_LINEAR:
        # x and -x do the same
        corners = torch.tensor([(1.0, *rest) for rest in itertools.product((1.0, -1.0), repeat=d - 1)]).to(R)
        best = torch.linalg.vector_norm(R @ corners.mT, dim=-2).argmax(-1)
        x = corners[best]
    else:
        x = _corner_iteration(R)
    # the sum of |rho_j| itself where that is what |R x| is, free of the rounding of a product
    values = R.abs().sum((-2, -1)) if R.shape[-2] == 1 else torch.linalg.vector_norm(R @ x.unsqueeze(-1), dim=(-2, -1))
    # what overflowed, or came to inf - inf, counts as infinite
    values = values.nan_to_num(nan=math.inf, posinf=math.inf)
    return _Supremum(values, x, response.error.sum(-1), response.sequences)


def _signs(v: Tensor) -> Tensor:
    return torch.where(v < 0, -torch.ones_like(v), torch.ones_like(v))


def _corner_iteration(R: Tensor) -> Tensor:
    """x <- sign(R^T R x), which never lowers |R x|_2, from the signs of every row of R and of its leading singular vector."""
    leading = torch.linalg.svd(R.nan_to_num(), full_matrices=False).Vh[..., :1, :]
    x = _signs(torch.cat([R, leading], -2)).mT  # (*ensemble, time, d, starts)
    while True:
        following = _signs(R.mT @ (R @ x))
        gain = torch.linalg.vector_norm(R @ following, dim=-2) > torch.linalg.vector_norm(R @ x, dim=-2)
        if not gain.any():
            break
        x = torch.where(gain.unsqueeze(-2), following, x)
    best = torch.linalg.vector_norm(R @ x, dim=-2).argmax(-1)
    return x.gather(-1, best[..., None, None].expand(*x.shape[:-1], 1)).squeeze(-1)


# --- nonlinear systems -------------------------------------------------------------------------------------


def _supremum(
    system: ProbedSystem,
    probe_at: Callable[[Tensor], ProbedSystem],
    times: Tensor,
    probe: Probe,
    amplitudes: list[float],
    directions: Tensor | None,
    ascent_steps: int,
    generator: torch.Generator,
    progress: bool,
) -> _Supremum:
    starts = _starts(system, generator) if directions is None else directions
    x = torch.cat([amplitude * starts for amplitude in amplitudes])
    x = x.expand(*system.ensemble, *x.shape)
    with torch.no_grad():
        response = system.respond(x, probe)
    candidates, values, error = x, _ratio(response, x), response.error / _size(x)
    sequences = response.sequences
    if directions is None and system.input_size > 1 and ascent_steps > 0:
        climbed, cost = _ascend(probe_at, times, probe, candidates, values, error, ascent_steps, generator, progress)
        with torch.no_grad():
            response = system.respond(climbed, probe)
        candidates = torch.cat([candidates, climbed], -2)
        values = torch.cat([values, _ratio(response, climbed)], -2)
        error = torch.cat([error, response.error / _size(climbed)], -1)
        sequences += cost + response.sequences
    # small amplitudes have the larger rounding error: where their response drowns in it they do not count
    floor, clean = error.min(-1)
    trusted = values > _TRUSTED * error.unsqueeze(-1)
    trusted.scatter_(-2, clean[..., None, None].expand(*clean.shape, 1, values.shape[-1]), True)
    values, best = values.masked_fill(~trusted, -math.inf).max(-2)
    maximizer = candidates.gather(-2, best.unsqueeze(-1).expand(*best.shape, candidates.shape[-1]))
    return _Supremum(values, maximizer, floor, sequences)


def _size(x: Tensor) -> Tensor:
    return x.abs().amax(-1)


def _ratio(response: ProbeResponse, x: Tensor) -> Tensor:
    """|response| / |x|_inf, (*ensemble, batch, time); what overflowed counts as infinite."""
    norm = torch.linalg.vector_norm(response.values, dim=-1)
    return (norm / _size(x).unsqueeze(-1)).nan_to_num(nan=math.inf, posinf=math.inf)


def _starts(system: ProbedSystem, generator: torch.Generator) -> Tensor:
    """Points of the unit max-norm sphere, (n, d)."""
    d = system.input_size
    if d <= _ALL_SIGNS:
        signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=d)), dtype=torch.float64)
    else:
        signs = 2.0 * torch.randint(0, 2, (_RANDOM_SIGNS, d), generator=generator).double() - 1
        signs = torch.cat([torch.ones(1, d, dtype=torch.float64), signs])
    if d > 1:
        faces = 2 * torch.rand(_FACE_STARTS, d, generator=generator, dtype=torch.float64) - 1
        signs = torch.cat([signs, faces / faces.abs().amax(-1, keepdim=True)])
    return signs.to(system.device, system.dtype)


def _ascend(
    probe_at: Callable[[Tensor], ProbedSystem],
    times: Tensor,
    probe: Probe,
    x: Tensor,
    values: Tensor,
    error: Tensor,
    steps: int,
    generator: torch.Generator,
    progress: bool,
) -> tuple[Tensor, int]:
    """Projected gradient ascent of |response at t| / |x| on the sphere |x|_inf = amplitude, from the best starts at a few t.

    Every row climbs towards one time and moves only where it gains. A system without gradients (numpy inside) is climbed by
    random steps instead.

    Returns:
        Where the rows came to, (*ensemble, rows, d), and the number of sequences run.
    """
    finite = values.isfinite() & (values > _TRUSTED * error.unsqueeze(-1))
    usable = finite.flatten(0, -2).any(0).nonzero().squeeze(-1)
    if usable.numel() == 0:
        return x[..., :1, :], 0
    picks = torch.linspace(0, usable.numel() - 1, min(_ASCENT_TIMES, usable.numel()), device=usable.device)
    goals = usable[picks.round().long()]  # (goals,)
    best = values.masked_fill(~finite, -math.inf)[..., goals].topk(min(_ASCENT_STARTS, x.shape[-2]), dim=-2).indices
    rows = best.flatten(-2)  # (*ensemble, starts * goals)
    x = x.gather(-2, rows.unsqueeze(-1).expand(*rows.shape, x.shape[-1]))
    amplitude = _size(x).unsqueeze(-1)
    sequences = 0
    # only these times are looked at on the way
    system = probe_at(times[goals.to(times.device)])
    goal = torch.arange(goals.numel(), device=goals.device).repeat(best.shape[-2])

    def evaluate(point: Tensor) -> tuple[Tensor, Tensor, bool]:
        nonlocal sequences
        with torch.enable_grad():
            point = point.detach().requires_grad_()
            response = system.respond(point, probe, fast=True)
            sequences += response.sequences
            value = _ratio(response, point).gather(-1, goal.expand(point.shape[:-1]).unsqueeze(-1)).squeeze(-1)
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value.sum(), point)
            else:
                gradient = torch.randn(point.shape, generator=generator, dtype=torch.float64).to(point)
        return value.detach(), gradient.nan_to_num(0.0, 0.0, 0.0), value.requires_grad

    with Progress("memory function", steps, "steps of ascent", shown=progress) as bar:
        value, gradient, exact = evaluate(x)
        step = torch.full_like(amplitude, _STEP)
        for _ in range(steps):
            bar.advance()
            uphill = gradient / _size(gradient).unsqueeze(-1).clamp(min=torch.finfo(x.dtype).tiny)
            trial = (x + step * amplitude * uphill).clamp(-amplitude, amplitude)
            trial = trial * (amplitude / _size(trial).unsqueeze(-1).clamp(min=torch.finfo(x.dtype).tiny))
            trial_value, trial_gradient, _ = evaluate(trial)
            gained = (trial_value > value).unsqueeze(-1)
            x = torch.where(gained, trial, x)
            # a random direction that failed is not tried again
            gradient = torch.where(gained, trial_gradient, gradient) if exact else trial_gradient
            value = torch.maximum(value, trial_value)
            step = torch.where(gained, _GROW * step, _SHRINK * step)
    return x.detach(), sequences
