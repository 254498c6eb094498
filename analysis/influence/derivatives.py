"""dy_t/dx_s of a system while an input drives it: backwards through the states of a model, or through a map between samples.

Of a model dh/dt = F(h, x), y = r(h), along the input x and its states h,

    k_x(t, s) = r'(h_t) Phi(t, s) F_x(h_s, x_s),    d/dt Phi(t, s) = F_h(h_t, x_t) Phi(t, s),  Phi(s, s) = 1

is the functional derivative of y_t with respect to x(s), per unit of time. The row r' Phi(t, s) is carried from t back to s, over
one interval of the grid after the other, by the gradient of the solve of that interval. For a linear model k_x(t, s) =
c^T e^{W (t - s)} U whatever x is. Where x jumps (interpolation 'hold'), F_x is that to the right of the jump.

A map between samples has the derivative with respect to one sample, by backpropagation.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from odernn import SequenceModel, Solver
from odernn.fields import VectorField
from odernn.paths import Interpolation, Path, interpolate
from odernn.progress import Progress
from odernn.solvers import automatic, own_default
from odernn.solvers.base import check_finite, check_start
from targets import ConvolutionalFunctional, StepResponseFunctional, arguments, grids

from ..dynamics import Dynamics
from ..probes import differentiable, dynamics
from ..probes.sequence_maps import SequenceMap, sample_index

Per = Literal["unit of time", "sample"]
# Of the solves of continuous models, in double precision whatever the model's. The gradient of a smooth solve is as good as the
# solve; a kink of sigma (relu, hardtanh) is placed within a step, so that there it is good to some sqrt(rtol) only.
_RTOL, _ATOL = 1e-13, 1e-15
# Of fields of the user's own, which torchdiffeq solves, some hundred times slower.
_RTOL_OWN, _ATOL_OWN = 1e-10, 1e-12
# Samples that a map is run on at once (sequences times time), which bounds the memory of its activations; numbers in a result.
_SAMPLES_AT_ONCE, _MOST_NUMBERS = 2**16, 2**28
# Part of the grid at either end that an exponent leaves out: the start from rest, and the turning of a tangent to the slowest
# direction. What is left must have so many steps.
_TRANSIENT, _FEWEST_STEPS = 0.25, 8
# A map whose outputs depend on later inputs by more than this many roundings is not causal (a convolution by FFT rounds).
_ROUNDINGS = 1e4
# Of 2, within the range of double precision.
_LARGEST_POWER = 1000


@dataclass(frozen=True)
class Derivatives:
    """dy_t/dx_s along a batch of inputs.

    Args:
        values: (*ensemble, batch, end, time, output, d): of the output at each of the ends, by the input at each time; 0 for
            inputs after it.
        exponents: (*ensemble, batch), 1/time, the conditional Lyapunov exponent along each sequence; None where the system shows
            no state equation.
        per: what the input is counted in.
        system: name.
        dtype: of the system.
        noise: (*ensemble,), the size of derivatives by inputs after the output, which are rounding; None where there are none.
    """

    values: Tensor
    exponents: Tensor | None
    per: Per
    system: str
    dtype: torch.dtype
    noise: Tensor | None = None


def derivatives(
    system: Any,
    times: Tensor,
    background: Any,
    ends: Sequence[int],
    *,
    solver: Solver | str | None = None,
    interpolation: Interpolation = "linear",
    input_size: int | None = None,
    exponents: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> Derivatives:
    """The derivatives of the outputs at times[e], e in `ends`; arguments as in `background_memory`.

    Raises:
        ValueError: shapes or values that do not fit, a system without gradients.
        DivergedSolve: the state of a model did not stay finite.
    """
    solver = own_default(solver)
    arguments.choice("interpolation", interpolation, get_args(Interpolation))
    x = arguments.real_tensor("background", background).detach()
    if x.ndim < 3 or x.shape[-2] != times.numel() or 0 in x.shape:
        raise ValueError(
            f"background must be (batch, time, channel) with {times.numel()} times, got {tuple(x.shape)}: "
            "give the samples of one or more inputs at `times`"
        )
    generator = arguments.generator(seed) if exponents else None
    if isinstance(system, StepResponseFunctional) and isinstance(system.innermost, ConvolutionalFunctional):
        return _of_functional(system, system.innermost, times, _fitting(x, (), system.input_size), ends)
    found = differentiable(system, times, x, input_size)
    if isinstance(found, SequenceModel):
        return _of_model(found, times, x, ends, solver, interpolation, generator, progress)
    if solver is not None:
        raise ValueError(f"solver is for the continuous models of odernn, got a {type(system).__name__}: leave it out")
    dt, index = sample_index(times - times[0], None)
    if not (index.diff() == 1).all():
        raise ValueError("times are not evenly spaced, and this system moves one sample at a time: give evenly spaced ones")
    values, noise = _of_map(found, _fitting(x, found.ensemble, found.input_size).to(found.device, found.dtype), ends)
    rates = None if generator is None or found.ensemble else _map_exponents(system, dt, x, generator)
    return Derivatives(values, rates, "sample", found.name, found.dtype, noise)


def _fitting(x: Tensor, ensemble: tuple[int, ...], input_size: int | None) -> Tensor:
    """The background with the axes of the ensemble, (*ensemble, batch, time, d)."""
    if input_size is not None and x.shape[-1] != input_size:
        raise ValueError(
            f"background has {x.shape[-1]} channels, the system takes {input_size}: give (batch, time, {input_size})"
        )
    if x.shape[:-3] not in (torch.Size(), torch.Size(ensemble)):
        raise ValueError(
            f"background is {tuple(x.shape)}, expected (batch, time, channel), the same for all, or the axes {ensemble} of the "
            "ensemble before them"
        )
    return x.expand(*ensemble, *x.shape[-3:])


def _refuse_large(*shape: int) -> None:
    if math.prod(shape) > _MOST_NUMBERS:
        raise ValueError(f"that asks for {math.prod(shape):.2g} derivatives of at most {_MOST_NUMBERS:.2g}: give fewer times")


# --- models in continuous time ------------------------------------------------------------------------------


def _of_model(
    model: SequenceModel,
    times: Tensor,
    x: Tensor,
    ends: Sequence[int],
    solver: Solver | None,
    interpolation: Interpolation,
    generator: torch.Generator | None,
    progress: bool,
) -> Derivatives:
    field = copy.deepcopy(model).double().requires_grad_(False).eval().field()
    t = times.to(model.c.device, torch.float64)
    grids.check_resolution(t)
    x = _fitting(x, model.ensemble, model.input_size).to(t)
    path = interpolate(t, x, interpolation)
    tolerances = (_RTOL_OWN, _ATOL_OWN) if field.opaque else (_RTOL, _ATOL)
    solver = (solver or automatic(field, *tolerances)).unchecked()
    rest = field.rest_state()
    check_start(rest)
    with torch.no_grad():
        solution = solver.solve(field, path, t, rest.unsqueeze(-2).expand(*x.shape[:-2], -1))
        check_finite(solution, field)
    h = solution.h
    outputs, batch, d = model.output_size, x.shape[-3], x.shape[-1]
    _refuse_large(*x.shape[:-2], len(ends), t.numel(), outputs, d)
    values = x.new_zeros(*x.shape[:-2], len(ends), t.numel(), outputs, d)
    # rows of cotangents, (*ensemble, rows, batch, state): outputs at the ends passed so far, the latest end first
    rows = h.new_empty(*h.shape[:-3], 0, batch, h.shape[-1])
    waiting = sorted(range(len(ends)), key=lambda one: -ends[one])
    passed: list[int] = []
    growth = _Growth(h[..., 0, :], t, generator)
    last = max(ends) if generator is None else t.numel() - 1
    with Progress("memory around a background", last, "intervals", shown=progress) as bar:
        for k in range(last, -1, -1):
            if k < t.numel() - 1:
                pulled = _pulled(field, solver, path.interval(k), t[k : k + 2], h[..., k, :], growth.beside(rows))
                rows = growth.taken(pulled, k)
                bar.advance()
            while waiting and ends[waiting[0]] == k:
                passed.append(waiting.pop(0))
                rows = torch.cat([rows, _readout_rows(field, h[..., k, :])], -3)
            if passed:
                drive = path.start[..., k, :] if k < t.numel() - 1 else path.end[..., -1, :]
                moved = _by_input(field.at(t[k]), h[..., k, :], drive, rows).unflatten(-3, (len(passed), outputs))
                values[..., passed, k, :, :] = moved.movedim(-2, -4)
    return Derivatives(values, growth.exponents(), "unit of time", type(model).__name__, model.c.dtype)


def _readout_rows(field: VectorField, h: Tensor) -> Tensor:
    """r'(h), (*ensemble, output, batch, state)."""
    with torch.enable_grad():
        at = h.detach().requires_grad_()
        y = field.readout(at)
        rows = [_gradient(one, at, torch.ones_like(one)) for one in y.unbind(-1)]
    return torch.stack(rows, -3)


def _pulled(field: VectorField, solver: Solver, piece: Path, span: Tensor, h: Tensor, rows: Tensor) -> Tensor:
    """rows times dh(end of the interval)/dh(its start)."""
    count = rows.shape[-3]
    if not count:
        return rows
    # torchdiffeq differentiates the lengths of its steps, too, which all rows share: all of one size, no large row is left in a
    # small one, and none in a row of zeros. By powers of 2, which are exact.
    size = rows.abs().amax(-1, keepdim=True)
    exponent = torch.frexp(size).exponent.clamp(-_LARGEST_POWER, _LARGEST_POWER)
    with torch.enable_grad():
        start = h.detach().unsqueeze(-3).expand(rows.shape).flatten(-3, -2).requires_grad_()
        repeated = piece.mapped(lambda x: x.repeat(*[1] * (x.ndim - 3), count, 1, 1))
        end = solver.solve(field, repeated, span, start).h[..., -1, :]
        back = _gradient(end, start, torch.ldexp(rows, -exponent).flatten(-3, -2))
    return torch.ldexp(back.unflatten(-2, rows.shape[-3:-1]), exponent).masked_fill(size == 0, 0)


def _by_input(field: VectorField, h: Tensor, x: Tensor, rows: Tensor) -> Tensor:
    """rows times F_x(h, x), (*ensemble, rows, batch, d)."""
    with torch.enable_grad():
        drive = x.unsqueeze(-3).expand(*rows.shape[:-1], -1).flatten(-3, -2).detach().requires_grad_()
        value = field(h.unsqueeze(-3).expand(rows.shape).flatten(-3, -2), drive)
        back = _gradient(value, drive, rows.flatten(-3, -2))
    return back.unflatten(-2, rows.shape[-3:-1])


def _gradient(value: Tensor, leaf: Tensor, row: Tensor) -> Tensor:
    """row times dvalue/dleaf; 0 where a field or readout of the user's leaves it out."""
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    return torch.autograd.grad(value, leaf, row, retain_graph=True, materialize_grads=True)[0]


class _Growth:
    """The leading conditional Lyapunov exponent along each sequence: the rate at which one random cotangent, carried from the end
    of the grid to its start, changes its length, over the middle of the grid."""

    def __init__(self, h: Tensor, t: Tensor, generator: torch.Generator | None) -> None:
        first = int(_TRANSIENT * (t.numel() - 1))
        self._first, self._last = first, t.numel() - 1 - first
        self._t, self._logs = t, torch.zeros_like(h[..., 0])
        self._row: Tensor | None = None
        if generator is not None and self._last - first >= _FEWEST_STEPS:
            row = torch.randn(h.shape[-1], generator=generator, dtype=torch.float64).to(h)
            self._row = (row / row.norm()).expand(*h.shape[:-2], 1, *h.shape[-2:])

    def beside(self, rows: Tensor) -> Tensor:
        """The rows with the tangent as the last."""
        return rows if self._row is None else torch.cat([rows, self._row], -3)

    def taken(self, pulled: Tensor, k: int) -> Tensor:
        """The rows at time k without the tangent, whose length is noted."""
        if self._row is None:
            return pulled
        row = pulled[..., -1:, :, :]
        size = torch.linalg.vector_norm(row, dim=-1, keepdim=True)
        if self._first <= k < self._last:
            self._logs = self._logs + size.squeeze(-1).squeeze(-2).log()
        # a direction that is lost altogether (a relu that is off) has the exponent -inf, and stays lost
        self._row = torch.where(size > 0, row / size, row)
        return pulled[..., :-1, :, :]

    def exponents(self) -> Tensor | None:
        if self._row is None:
            return None
        return self._logs / float(self._t[self._last] - self._t[self._first])


# --- maps between samples -----------------------------------------------------------------------------------


def _of_map(system: SequenceMap, x: Tensor, ends: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The derivatives of a map; of one that is `delayed`, of the first output that has consumed the sample at the end. And the
    size of those by later inputs, for which an output in the middle is looked at as well."""
    if system.delayed:
        x = torch.cat([x, torch.zeros_like(x[..., :1, :])], -2)
    batch, steps, d = x.shape[-3:]
    y = _outputs(system, x.detach().requires_grad_())
    outputs = y.shape[-1]
    length = steps - system.delayed
    middle = (length - 1) // 2
    places = [*ends, middle]
    _refuse_large(*x.shape[:-2], len(places), length, outputs, d)
    wanted = [[(e, one) for e in some for one in range(outputs)] for some in (ends, [middle])]
    at_once = max(1, _SAMPLES_AT_ONCE // (batch * steps))
    found = []
    for part in [rows[first : first + at_once] for rows in wanted for first in range(0, len(rows), at_once)]:
        leaf = x.repeat(*[1] * (x.ndim - 3), len(part), 1, 1).requires_grad_()
        with torch.enable_grad():
            y = _outputs(system, leaf).unflatten(-3, (len(part), batch))
            picked = torch.stack([y[..., row, :, e + system.delayed, one].sum() for row, (e, one) in enumerate(part)]).sum()
        (back,) = torch.autograd.grad(picked, leaf)
        found.append(back[..., :length, :].unflatten(-3, (len(part), batch)))
    values = torch.cat(found, -4).unflatten(-4, (len(places), outputs)).movedim(-3, -5).movedim(-3, -2)
    if not values.any():
        _refuse_steps(system, x)
    later = (torch.arange(length) > torch.tensor(places).unsqueeze(-1)).to(values.device)
    size = torch.linalg.vector_norm(values, dim=(-2, -1))
    noise, largest = (one.amax((-3, -2, -1)) for one in (size.masked_fill(~later, 0), size))
    if (noise > _ROUNDINGS * torch.finfo(values.dtype).eps * largest).any():
        raise ValueError(
            f"{system.name} is not causal: an output depends on inputs after it; give a transformer a causal mask, a convolution "
            "its padding on the left"
        )
    return values.masked_fill(later[..., None, None], 0)[..., : len(ends), :, :, :], noise


def _outputs(system: SequenceMap, x: Tensor) -> Tensor:
    with torch.enable_grad():
        try:
            y = system.run(x)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{system.name} cannot be differentiated in its input ({reason}): let it work on tensors alone, without .numpy()"
            ) from error
    if not y.requires_grad:
        raise ValueError(
            f"{system.name} has no gradient in its input: let it work on tensors alone, without .detach() or torch.no_grad()"
        )
    if not torch.isfinite(y).all():
        raise ValueError(
            f"{system.name} gave NaN or infinite outputs along the background: give a smaller one, or another system"
        )
    return y


@torch.no_grad()
def _refuse_steps(system: SequenceMap, x: Tensor) -> None:
    """All derivatives are 0: refuses a system whose output changes all the same."""
    generator = torch.Generator().manual_seed(0)
    moved = x + (1 + x.abs().max()) * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
    if not torch.equal(system.run(x), system.run(moved)):
        raise ValueError(
            f"{system.name} has the gradient 0 and yet depends on its input (it rounds, or compares): give a smooth one"
        )


def _map_exponents(system: Any, dt: float, x: Tensor, generator: torch.Generator) -> Tensor | None:
    try:
        flow = dynamics(system, dt=dt)
    except ValueError:  # no state equation to be seen
        return None
    x = x.to(flow.rest())
    t = dt * torch.arange(x.shape[-2] + 1, dtype=torch.float64)
    with torch.no_grad():
        states = [flow.rest().expand(x.shape[0], -1)]
        for drive in x.unbind(-2):
            states.append(flow(states[-1], drive))
    growth = _Growth(states[0], t, generator)
    none = states[0].new_empty(0, *states[0].shape)
    for k in range(x.shape[-2] - 1, -1, -1):
        growth.taken(_step_back(flow, states[k], x[:, k], growth.beside(none)), k)
    return growth.exponents()


def _step_back(flow: Dynamics, h: Tensor, x: Tensor, rows: Tensor) -> Tensor:
    """The one row there is, or none, times dF/dh."""
    if not rows.shape[0]:
        return rows
    # cuDNN has no backward pass in evaluation mode
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        at = h.detach().requires_grad_()
        (back,) = torch.autograd.grad(flow(at, x), at, rows[0])
    return back.unsqueeze(0)


# --- functionals --------------------------------------------------------------------------------------------


def _of_functional(
    system: StepResponseFunctional, convolution: ConvolutionalFunctional, times: Tensor, x: Tensor, ends: Sequence[int]
) -> Derivatives:
    """psi'(H_t(x)) rho(t - s), exactly."""
    t, x = times.double().cpu(), x.double().cpu()
    y = convolution(x, t)
    label = convolution.kernel.label
    name = label if system is convolution else f"{type(system).__name__}({label})"
    _refuse_large(*x.shape[:-2], len(ends), t.numel(), x.shape[-1])
    values = x.new_zeros(x.shape[0], len(ends), t.numel(), 1, x.shape[-1])
    channels = torch.eye(x.shape[-1], dtype=torch.float64)
    for one, e in enumerate(ends):
        lags = (t[e] - t[: e + 1]).flip(0)
        rho = convolution.rate(lags, channels).flip(-2)  # (d, time, 1)
        for channel, rate in enumerate(rho):
            along = y[:, e : e + 1].expand(-1, e + 1, -1)
            values[:, one, : e + 1, :, channel] = system.transform_rate(rate.expand_as(along), along)
    return Derivatives(values, None, "unit of time", name, torch.float64)
