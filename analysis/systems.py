"""How each kind of system answers a probe of [IA] Def 3.1 and App F: our models, functionals, torch modules, any callable.

The probes, for an amplitude x of shape (d,):

    heaviside  u^x_t = x for t >= 0, 0 before         answer d/dt H_t(u^x)
    impulse    i^x: x for one unit of time at t = 0   answer H_t(i^x)
    reversed   r^x_t = x for t < 0, 0 from t = 0 on   answer d/dt H_t(r^x)

with the zero-input response subtracted (H_t(0) = 0 by convention). For a linear functional all three are rho(t)^T x up to sign.
What they are for a nonlinear system and a sampled one is written where it is decided, in the classes below. At t < 0 every
answer is 0: a causal system has not met the heaviside and impulse inputs, and has settled under the reversed one.
"""

from __future__ import annotations

import copy
import math
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from odernn import Exact, SequenceModel, Solver, TorchDiffEq
from odernn.fields import VectorField
from odernn.models import ContinuousModel, DiscreteModel
from odernn.paths import heaviside
from odernn.readouts import readout_along
from targets import (
    ConvolutionalFunctional,
    DifferentiableFunctional,
    Functional,
    NonlinearFunctional,
    TeacherFunctional,
    arguments,
    grids,
)

Probe = Literal["heaviside", "impulse", "reversed"]
PROBES: tuple[str, ...] = get_args(Probe)

# Tolerances (rtol, atol) that leave some 25 e-foldings of a memory function above the solver's error in float64, and are the
# tightest that dopri5's step control bears in float32.
TIGHT = {torch.float64: (1e-10, 1e-12), torch.float32: (1e-5, 1e-7)}
# For the search of the maximiser only; what it finds is evaluated again at the tolerances above.
LOOSE = {torch.float64: (1e-5, 1e-7), torch.float32: (1e-4, 1e-6)}
# Roundings that add up in one step of a sampled system and its difference quotient; measured on torch.nn.RNN, GRU and LSTM of 1
# to 4 layers in both precisions, whose plateaus lie below this many units (tests/analysis/test_memory.py).
_ROUNDINGS = 4.0
# A held input counts as settled when the rate has fallen by this factor ...
_SETTLED = 1e-9
# ... and is given up on after this many doublings of the time it is held.
_MAX_DOUBLINGS = 4
# A settled state this close to the solution of W h + U x + b = 0 (relative to its size) is that solution.
_SNAP = 1e-4
# The reversed input of a nonlinear functional is held this many horizons: its state H_0(r^x) is an integral of rho to there.
_HELD_HORIZONS = 100.0
# Samples sent through a system at once (batch times time): bounds the memory of its activations.
_SAMPLES_AT_ONCE = 2**18
# Samples of one sequence beyond which no memory holds it.
MOST_SAMPLES = 2**24
# Length and tolerance (relative to the output) of the trial for causality.
_TRIAL_LENGTH = 8
_TRIAL_ROUNDINGS = 1e4


@dataclass(frozen=True)
class Answer:
    """The answer of a system to one probe.

    Args:
        rates: (*ensemble, batch, time, output), zero-input response subtracted, not divided by |x|.
        error: (*ensemble, batch), numerical error of |rates|: rounding, tolerance of the solver, an input not held to the end.
        sequences: input sequences that the system was run on.
    """

    rates: Tensor
    error: Tensor
    sequences: int


class ProbedSystem(ABC):
    """A system together with the times at which it is asked.

    Attributes:
        name: for legends.
        input_size: d.
        ensemble: leading axes of the answer.
        linear: whether the answer is linear in x.
        dtype, device: of the amplitudes it takes.
        dt: time of one sample, for sampled systems.
    """

    name: str
    input_size: int
    ensemble: tuple[int, ...] = ()
    linear: bool = False
    dtype: torch.dtype
    device: torch.device
    dt: float | None = None

    @abstractmethod
    def respond(self, x: Tensor, probe: Probe, *, fast: bool = False) -> Answer:
        """The answers to amplitudes x, (*ensemble, batch, d), differentiable in x where the system is.

        `fast` allows a coarser solver: the search for a maximiser asks for it.
        """


def probed(
    system: Any,
    times: Tensor,
    *,
    warmup: float = 0.0,
    hold: float | None = None,
    solver: Solver | None = None,
    dt: float | None = None,
    input_size: int | None = None,
) -> ProbedSystem:
    """The adapter of a system; arguments as in `memory_function`.

    Raises:
        ValueError: no system, or one that has no memory function (not causal, wrong shapes), with the reason.
    """
    input_size = None if input_size is None else arguments.count("input_size", input_size)
    if isinstance(system, TeacherFunctional) and isinstance(system.module, SequenceModel):
        system = system.module
    if isinstance(system, SequenceModel):
        if input_size not in (None, system.input_size):
            raise ValueError(f"input_size is {input_size}, but the model takes {system.input_size}: leave it out")
        if isinstance(system, DiscreteModel):
            if solver is not None:
                raise ValueError(f"{type(system).__name__} is a map, not an ODE: leave solver out")
            return _discrete_system(system, times, warmup, dt, hold)
        if isinstance(system, ContinuousModel):
            return _ContinuousSystem(system, times, warmup, hold, solver)
    if solver is not None:
        raise ValueError(f"solver is for the continuous models of odernn, got a {type(system).__name__}: leave it out")
    if isinstance(system, ConvolutionalFunctional | NonlinearFunctional) and _known_response(system):
        return _KnownFunctional(system, times, hold, input_size)
    mapping = sequence_map(system, times, dt, input_size)
    return _SampledSystem(mapping, times, warmup=warmup, hold=hold)


# --- continuous models -------------------------------------------------------------------------------------


class _ContinuousSystem(ProbedSystem):
    """dh/dt = F(h, x): rates from the right-hand side, without finite differences.

    The state at t = 0 is the zero-input rest state W h + b = 0 (0 where there is none), after `warmup` units of time without
    input.

    heaviside: dy/dt at (h(t), F(h(t), x)); at t = 0 the rate right after the jump of the input.
    impulse: the state jumps by one unit of time of the rate that x sets in at rest,

            h(0+) = h_rest + F(h_rest, x) - F(h_rest, 0),

        and runs on without input. This is U x, the Dirac impulse, where F is linear in x. A Dirac impulse itself would not move
        an RNN whose sigma is bounded; the papers' impulse "x at the first step only" of the Euler-stepped model with Dt = 1
        makes this jump.
    reversed: from the state settled under x; then no input. Settled means W h + U z + b = 0 where F is linear. Elsewhere x is
    held, and
        held on until the rate has fallen by 1e9 or for `hold`: what is left of the rate counts as numerical error.
    """

    def __init__(self, model: ContinuousModel, times: Tensor, warmup: float, hold: float | None, solver: Solver | None) -> None:
        # a copy without gradients: backpropagation reaches the amplitudes only
        self._model = copy.deepcopy(model).requires_grad_(False)
        self.name = type(model).__name__
        self.input_size, self.ensemble = model.input_size, model.ensemble
        self.dtype, self.device = model.c.dtype, model.c.device
        self._field = self._model.field()
        self.linear = self._field.activation.name == "linear"
        self._hold, self._warmup = hold, warmup
        # in double precision whatever the model's: the steps between large times are differences of close numbers
        self._times = times.to(self.device, torch.float64)
        # the step is at t = 0, whatever the first time asked for; a solve needs two times
        asked = self._times[self._times >= 0]
        origin = self._times.new_zeros(1)
        self._grid = torch.cat([origin, asked]).unique()
        if self._grid.numel() < 2:
            self._grid = torch.cat([origin, origin + 1])
        self._positions = torch.searchsorted(self._grid, asked)
        self._solver = solver
        self._start = self._rest()

    def respond(self, x: Tensor, probe: Probe, *, fast: bool = False) -> Answer:
        solver = self._solver or self._default_solver(TIGHT)
        if fast and self._solver is None:
            solver = self._default_solver(LOOSE)
        # the last row is the zero input
        x = torch.cat([x, torch.zeros_like(x[..., :1, :])], -2)
        h0 = self._start.unsqueeze(-2).expand(*self.ensemble, x.shape[-2], -1)
        driving, unsettled = torch.zeros_like(x), x.new_zeros(x.shape[:-1])
        if probe == "heaviside":
            driving = x
        elif probe == "impulse":
            h0 = h0 + self._field(h0, x) - self._field(h0, torch.zeros_like(x))
        else:
            h0, unsettled = self._settle(h0, x, solver)
        h = self._states(h0, driving, self._grid, solver)
        if probe == "impulse":
            answer = readout_along(self._field, h)
        else:
            along = driving.unsqueeze(-2).expand(*driving.shape[:-1], h.shape[-2], -1).flatten(-3, -2)
            flat = h.flatten(-3, -2)
            answer = self._field.readout_rate(flat, self._field(flat, along)).unflatten(-2, h.shape[-3:-1])
        rates = (answer[..., :-1, :, :] - answer[..., -1:, :, :])[..., self._positions, :]
        before = self._times.numel() - rates.shape[-2]
        rates = nn.functional.pad(rates, (0, 0, before, 0))
        error = self._error(h[..., :-1, :, :].detach(), driving[..., :-1, :].detach(), solver, probe) + unsettled[..., :-1]
        return Answer(rates, error, math.prod(x.shape[:-1]))

    def _default_solver(self, tolerances: dict[torch.dtype, tuple[float, float]]) -> Solver:
        if Exact.supports(self._field):
            return Exact()
        rtol, atol = tolerances.get(self.dtype, tolerances[torch.float32])
        return TorchDiffEq("dopri5", rtol=rtol, atol=atol, adjoint=False)

    def _states(self, h0: Tensor, x: Tensor, grid: Tensor, solver: Solver) -> Tensor:
        """h along the grid under the constant input x, (*ensemble, batch, time, state)."""
        # check=False: a state that overflows is an answer, an infinite memory
        return self._model.solve(heaviside(grid, x), grid, h0, solver=solver, check=False).h

    def _rest(self) -> Tensor:
        h = self._field.rest_state()
        h = h.expand(*self.ensemble, h.shape[-1])
        if not torch.isfinite(h).all():
            if any(layer.b is not None and layer.b.any() for layer in self._field.layers) and not self._warmup:
                raise ValueError(
                    "the model has no rest state (W is singular and b is not 0): give warmup, the time for which it runs without "
                    "input from h = 0 before the probe sets in"
                )
            h = torch.zeros_like(h)
        if not self._warmup:
            return h
        x = h.new_zeros(*self.ensemble, 1, self.input_size)
        grid = self._times.new_tensor([0.0, self._warmup])
        return self._states(h.unsqueeze(-2), x, grid, self._solver or self._default_solver(TIGHT))[..., 0, -1, :]

    def _settle(self, h: Tensor, x: Tensor, solver: Solver) -> tuple[Tensor, Tensor]:
        """The state that x leads to, held long before t = 0, and the size of the output's rate left there, (*ensemble, batch)."""
        steady = _steady_state(self._field, x)
        if self.linear and torch.isfinite(steady).all():
            return steady, x.new_zeros(x.shape[:-1])
        h, near, left = self._held(h, x, steady, solver)
        # a state that was held up to, and not solved for, counts as fixed in the search for a maximiser
        return torch.where(near.unsqueeze(-1), steady.nan_to_num(), h), left

    @torch.no_grad()
    def _held(self, h: Tensor, x: Tensor, steady: Tensor, solver: Solver) -> tuple[Tensor, Tensor, Tensor]:
        """The state after x was held, whether it is `steady`, and the size of the output's rate left (0 there)."""
        first = torch.linalg.vector_norm(self._field(h, x), dim=-1)
        held = float(self._grid[-1]) if self._hold is None else self._hold
        for _ in range(1 + (_MAX_DOUBLINGS if self._hold is None else 0)):
            h = self._states(h, x, self._grid.new_tensor([0.0, held]), solver)[..., -1, :]
            rate = self._field(h, x)
            near = torch.linalg.vector_norm(h - steady, dim=-1) <= _SNAP * (1 + torch.linalg.vector_norm(steady, dim=-1))
            still = torch.linalg.vector_norm(rate, dim=-1) <= _SETTLED * first
            if (near | still).all():
                break
            held *= 2
        left = torch.linalg.vector_norm(self._field.readout_rate(h, rate), dim=-1)
        return h, near, torch.where(near, torch.zeros_like(left), left)

    def _error(self, h: Tensor, x: Tensor, solver: Solver, probe: Probe) -> Tensor:
        """Rounding of c^T (W h + U z + b), or of c^T z for the impulse, and the solver's tolerance carried through them."""
        layer, m = self._field.layers[-1], self._field.c.shape[-1]
        last = h[..., -m:].abs()
        below = x.abs().unsqueeze(-2) if len(self._field.layers) == 1 else h[..., -2 * m : -m].abs()
        relative, absolute = torch.finfo(self.dtype).eps, 0.0
        if isinstance(solver, TorchDiffEq):
            relative, absolute = relative + solver.rtol, solver.atol
        weight = self._field.c.abs()
        if probe != "impulse":
            W = layer.W.to_dense().abs()
            size = _apply(W, last) + _apply(layer.U.abs(), below)
            if layer.b is not None:
                size = size + layer.b.abs().unsqueeze(-2).unsqueeze(-2)
            if self._field.form == "rnn":
                # sigma' <= 1 and |sigma(z)| <= |z| up to the constant of sigmoid
                size = size.clamp(max=1.0) if self._field.activation.name in ("tanh", "hardtanh", "sigmoid") else size
            gain = weight @ W.sum(-1, keepdim=True)
        else:
            size, gain = last, weight.sum(-1, keepdim=True)
        error = relative * _apply(weight, size).amax(-2) + absolute * gain.squeeze(-1).unsqueeze(-2)
        return torch.linalg.vector_norm(error, dim=-1)


def _apply(matrix: Tensor, along: Tensor) -> Tensor:
    """matrix (..., p, m) on states (..., batch, time, m)."""
    return along @ matrix.mT.unsqueeze(-3)


def _steady_state(field: VectorField, x: Tensor) -> Tensor:
    """h with W h + U z + b = 0, layer by layer, under the constant input x (*ensemble, batch, d): (*ensemble, batch, state).

    NaN where there is none: W singular, or an rnn with relu or sigmoid.
    """
    states: list[Tensor] = []
    z = x
    for layer in field.layers:
        drive = layer.drive(z)
        if field.form == "rnn" and not field.activation.rests_at_zero:
            h = torch.full_like(drive, math.nan)
        else:
            dense = layer.W.to_dense()
            solved, info = torch.linalg.solve_ex(dense, -drive.mT)
            h = solved.mT.masked_fill((info != 0).unsqueeze(-1).unsqueeze(-1), math.nan)
        states.append(h)
        z = field.activation(h) if field.form == "ssm" else h
    return torch.cat(torch.broadcast_tensors(*states) if len(states) > 1 else states, -1)


# --- functionals whose response is known --------------------------------------------------------------------


def _known_response(functional: DifferentiableFunctional) -> bool:
    """Whether the functional is a convolution under static nonlinearities only."""
    while isinstance(functional, NonlinearFunctional):
        functional = functional.functional
    return isinstance(functional, ConvolutionalFunctional)


class _KnownFunctional(ProbedSystem):
    """y = psi(int rho(t-s)^T x(s) ds): answers from rho.

    With S(t) = int_0^t rho the convolution itself answers H_t(u^x) = S(t)^T x, H_t(i^x) = rho(t)^T x and
    H_t(r^x) = (S(t + A) - S(t))^T x, A the time for which x was held (100 horizons, or `hold`). psi acts on these, and
    d/dt psi(H) = psi'(H) dH/dt. Without a psi all three are rho(t)^T x exactly.
    """

    def __init__(
        self, functional: ConvolutionalFunctional | NonlinearFunctional, times: Tensor, hold: float | None, input_size: int | None
    ) -> None:
        self._chain: list[NonlinearFunctional] = []
        inner: Any = functional
        while isinstance(inner, NonlinearFunctional):
            self._chain.insert(0, inner)
            inner = inner.functional
        self._convolution: ConvolutionalFunctional = inner
        self.name = inner.kernel.label if not self._chain else f"{type(functional).__name__}({inner.kernel.label})"
        self.input_size = inner.kernel.size
        if input_size not in (None, self.input_size):
            raise ValueError(f"input_size is {input_size}, but the functional takes {self.input_size}: leave it out")
        self.linear = not self._chain
        self.dtype, self.device = torch.float64, times.device
        self._times = times.to(torch.float64)
        self._held = _HELD_HORIZONS * max(float(times[-1]), 1.0) if hold is None else hold

    def respond(self, x: Tensor, probe: Probe, *, fast: bool = False) -> Answer:
        t, H = self._times, self._convolution
        rate = H.rate(t, x)
        y: Tensor | None = None
        left = x.new_zeros(x.shape[:-1])
        if probe == "impulse":
            rate = self._transform(rate)
        elif self._chain:
            y = H.step(t, x)
            if probe == "reversed":
                before = H.step(torch.cat([t + self._held, t]).unique(), x)
                both = torch.cat([t + self._held, t]).unique()
                y = before[..., torch.searchsorted(both, t + self._held), :] - y
                left = self._slope_times(y, H.rate(t + self._held, x))[..., 0, :].detach().abs().sum(-1)
                rate = -rate
            rate = self._slope_times(y, rate)
        rate = torch.where((t >= 0).unsqueeze(-1), rate, torch.zeros_like(rate))
        # rho is exact to rounding of its own value: only the smallest numbers are a floor
        error = left + torch.finfo(torch.float64).tiny * x.abs().amax(-1)
        return Answer(rate, error, math.prod(x.shape[:-1]))

    def _transform(self, y: Tensor) -> Tensor:
        for functional in self._chain:
            y = functional.psi(y) - functional.psi(torch.zeros_like(y))
        return y

    def _slope_times(self, y: Tensor, rate: Tensor) -> Tensor:
        """psi'(y) dy/dt, outermost last, differentiable in y."""
        for functional in self._chain:
            if functional.derivative is not None:
                slope = functional.derivative(y)
            else:
                with torch.enable_grad():
                    at = y if y.requires_grad else y.detach().requires_grad_()
                    (slope,) = torch.autograd.grad(functional.psi(at).sum(), at, create_graph=y.requires_grad)
            rate = slope * rate
            y = functional.psi(y) - functional.psi(torch.zeros_like(y))
        return rate


# --- sampled systems ---------------------------------------------------------------------------------------


class _SampledSystem(ProbedSystem):
    """A map from sequences to sequences, sample k at time k dt.

    With D_k = y_k(x) - y_k(0), the zero-input response subtracted, and y_{k+1} the output that has consumed x_0, ..., x_k:

        heaviside, reversed:  (D_{k+1} - D_k) / dt at t_k;      impulse (x at the first step only):  D_{k+1} / dt at t_k

    so that for a linear system all three are the discrete kernel, c^T W^k U / dt. The outputs of torch modules and of most
    callables have consumed the sample of the same index, those of our discrete models and of functionals (`delayed`) have not.

    The reversed input is held for `hold`, or until the output is still (at most 16 horizons); the rate left counts as numerical
    error.
    """

    def __init__(
        self,
        mapping: SequenceMap,
        times: Tensor,
        *,
        ensemble: tuple[int, ...] = (),
        linear: bool = False,
        warmup: float,
        hold: float | None,
    ) -> None:
        self._run, self.name, self._delayed = mapping.run, mapping.name, mapping.delayed
        self.input_size, self.dtype, self.device = mapping.input_size, mapping.dtype, mapping.device
        self.ensemble, self.linear = ensemble, linear
        self._dt, self._index = sample_index(times.to(self.device), mapping.dt)
        self.dt = self._dt
        longest = max(warmup, 0.0 if hold is None else hold, float(times[-1])) / self._dt
        if longest > MOST_SAMPLES:
            raise ValueError(
                f"times, warmup or hold ask for {longest:.3g} samples of dt = {self._dt:g}, expected at most {MOST_SAMPLES}: "
                "take shorter ones or a larger dt"
            )
        self._warmup = round(warmup / self._dt)
        self._hold = None if hold is None else max(1, round(hold / self._dt))

    def respond(self, x: Tensor, probe: Probe, *, fast: bool = False) -> Answer:
        # the last row is the zero input
        x = torch.cat([x, torch.zeros_like(x[..., :1, :])], -2)
        steps = max(int(self._index.max()), 0) + 1 + self._delayed
        held = 0
        if probe == "reversed":
            held = max(steps, 2) if self._hold is None else self._hold
        D, rounding = self._differences(x, probe, held, steps)
        sequences, left = math.prod(x.shape[:-1]), torch.zeros_like(rounding)
        if probe == "reversed":
            left = self._still_moving(D, held)
            for _ in range(0 if self._hold is not None else _MAX_DOUBLINGS):
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
        answer = (D[..., 1:, :] if probe == "impulse" else D.diff(dim=-2)) / self._dt
        rates = answer[..., self._index.clamp(min=0), :]
        rates = torch.where((self._index >= 0).unsqueeze(-1), rates, torch.zeros_like(rates))
        return Answer(rates, rounding + torch.where(left > rounding, left, torch.zeros_like(left)), sequences)

    def _differences(self, x: Tensor, probe: Probe, held: int, steps: int) -> tuple[Tensor, Tensor]:
        """D along warmup, hold and the steps asked for, (*ensemble, batch, time, output); its rounding, (*ensemble, batch)."""
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
        rounding = (_ROUNDINGS * eps * size / self._dt).nan_to_num(nan=math.inf, posinf=math.inf)
        return y[..., :-1, :, :] - y[..., -1:, :, :], rounding

    def _still_moving(self, D: Tensor, held: int) -> Tensor:
        """The rate just before the held input ends, (*ensemble, batch)."""
        last = self._warmup + held - 1
        change = D[..., last, :] - D[..., last - 1, :] if last >= 1 else D[..., last, :]
        return torch.linalg.vector_norm(change.detach(), dim=-1) / self._dt

    def _chunked(self, x: Tensor) -> Tensor:
        rows = max(1, _SAMPLES_AT_ONCE // x.shape[-2])
        return torch.cat([self._run(part) for part in x.split(rows, dim=-3)], -3)


def sample_index(times: Tensor, dt: float | None) -> tuple[float, Tensor]:
    """The time of one sample and the sample each time falls on; the first sample of a probe is number 0.

    Raises:
        ValueError: times that are no multiples of dt.
    """
    times = grids.tensor(times)
    if dt is None:
        steps = times.double().diff()
        dt = float(steps.min()) if steps.numel() else 1.0
    dt = arguments.number("dt", dt, above=0)
    index = (times.double() / dt).round()
    # times written in single precision, or as sums of dt, are multiples of it up to this
    deviation = float((times.double() / dt - index).abs().max())
    if not deviation <= 1e-3 or float(index.abs().max()) > arguments.MOST:
        raise ValueError(
            f"a sampled system is asked at multiples of its sample time dt = {dt:g}, got times up to {deviation:.2g} dt off "
            "them: give times that are, or dt"
        )
    if not (index.diff() > 0).all():
        raise ValueError(f"times are closer together than a sample of dt = {dt:g}: give times a sample apart, or a smaller dt")
    return dt, index.long()


def _discrete_system(model: DiscreteModel, times: Tensor, warmup: float, dt: float | None, hold: float | None) -> ProbedSystem:
    model = copy.deepcopy(model).requires_grad_(False)
    c = model.c
    dt, _ = sample_index(times, dt)

    def run(x: Tensor) -> Tensor:
        t = dt * torch.arange(x.shape[-2], dtype=torch.float64, device=x.device)
        return model.respond(x, t, check=False).y

    linear = model.activation.name == "linear"
    mapping = SequenceMap(run, type(model).__name__, True, model.input_size, c.dtype, c.device, dt)
    return _SampledSystem(mapping, times, ensemble=model.ensemble, linear=linear, warmup=warmup, hold=hold)


@dataclass(frozen=True)
class SequenceMap:
    """A map from sequences (batch, time, d) to sequences (batch, time, output), checked for shapes and causality.

    Args:
        run: the map.
        name: for legends.
        delayed: whether output k has not consumed sample k.
        input_size: d.
        dtype, device: of the inputs it takes.
        dt: time of one sample.
    """

    run: Callable[[Tensor], Tensor]
    name: str
    delayed: bool
    input_size: int
    dtype: torch.dtype
    device: torch.device
    dt: float

    def __call__(self, x: Tensor) -> Tensor:
        return self.run(x)


def sequence_map(system: Any, times: Tensor, dt: float | None, input_size: int | None) -> SequenceMap:
    """Modules, callables and functionals as maps between sequences; arguments as in `memory_function`.

    Raises:
        ValueError: not callable, not causal, or of another shape, with the reason.
    """
    dt, _ = sample_index(times, dt)
    if not callable(system) or isinstance(system, type):
        came = f"the class {system.__name__}" if isinstance(system, type) else f"a {type(system).__name__}"
        raise ValueError(
            f"system: {came} has no memory function: give a model, a functional, a torch module, or a callable on "
            "(batch, time, channel)"
        )
    call: Callable[[Tensor], Any] = system
    module = system
    delayed = False
    size = input_size
    name = getattr(system, "__name__", type(system).__name__)
    if isinstance(system, Functional):
        sample_time = dt
        # a functional of the interpolated input: the output at t_k knows nothing of what comes after t_k
        delayed = not isinstance(system, TeacherFunctional) or system.pass_times
        module = getattr(system, "module", system)
        size = input_size or system.input_size or getattr(module, "input_size", None)

        def call(x: Tensor) -> Tensor:
            return system(x, sample_time * torch.arange(x.shape[-2], dtype=torch.float64, device=x.device))

    elif isinstance(system, nn.RNNBase):
        if system.bidirectional:
            raise ValueError(
                f"a bidirectional {type(system).__name__} is not causal: its output at t depends on inputs after t, so it has "
                "no memory function; give the module with bidirectional=False"
            )
        size = system.input_size
        call = system if system.batch_first else _time_first(system)
    elif isinstance(system, nn.TransformerEncoder | nn.TransformerEncoderLayer):
        attention: Any = (system if isinstance(system, nn.TransformerEncoderLayer) else system.layers[0]).self_attn
        size = attention.embed_dim

        def masked(x: Tensor) -> Tensor:
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1 if attention.batch_first else 0], x.device, x.dtype)
            return system(x, mask, is_causal=True)

        call = masked if attention.batch_first else _time_first(masked)
    if input_size is not None and size != input_size:
        raise ValueError(f"input_size is {input_size}, but {name} takes {size}: leave it out")
    if size is None:
        attribute = getattr(system, "input_size", None)
        size = attribute if isinstance(attribute, int) else 1
    if size < 1:
        raise ValueError(f"input_size must be at least 1, got {size}")
    like = next((p for p in module.parameters() if p.is_floating_point()), None) if isinstance(module, nn.Module) else None
    dtype = like.dtype if like is not None else times.dtype
    device = like.device if like is not None else times.device

    def run(x: Tensor) -> Tensor:
        with _evaluating(module):
            y = call(x)
        return _first_tensor(y, x, name)

    _try(run, size, dtype, device, name)
    return SequenceMap(run, name, delayed, size, dtype, device, dt)


def _time_first(module: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    def call(x: Tensor) -> Any:
        y = module(x.transpose(0, 1))
        return (y[0] if isinstance(y, tuple) else y).transpose(0, 1)

    return call


def _first_tensor(y: Any, x: Tensor, name: str) -> Tensor:
    y = y[0] if isinstance(y, tuple | list) and y else y
    if not isinstance(y, Tensor):
        raise ValueError(
            f"{name} returned a {type(y).__name__}, expected (batch, time, channel) or a tuple that begins with it: return that"
        )
    if not y.is_floating_point():
        raise ValueError(f"{name} returned {y.dtype} values, expected a floating-point tensor: return y.double()")
    if y.ndim == 2:
        y = y.unsqueeze(-1)
    if y.ndim != 3 or y.shape[:2] != x.shape[:2]:
        raise ValueError(
            f"{name} returned shape {tuple(y.shape)} for an input {tuple(x.shape)}, expected (batch, time, channel) with the "
            "same batch and time: return an output for every time"
        )
    return y


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """The module without dropout, and as it was afterwards."""
    if not isinstance(module, nn.Module):
        yield
        return
    were = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        # cuDNN has no backward pass in evaluation mode
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        for part, training in were:
            part.training = training


def _is_ours(error: Exception) -> bool:
    """Whether this project raised it, about shapes say, and not a system of the user's."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").partition(".")[0] in ("analysis", "odernn", "targets")


@torch.no_grad()
def _try(run: Callable[[Tensor], Tensor], size: int, dtype: torch.dtype, device: torch.device, name: str) -> None:
    """One small run, so that a wrong shape, an input of the wrong size and a system that is not causal are met in the user's
    terms."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, _TRIAL_LENGTH, size, generator=generator, dtype=torch.float64).to(device, dtype)
    x[1, : _TRIAL_LENGTH // 2] = x[0, : _TRIAL_LENGTH // 2]
    try:
        y = run(x)
    except Exception as error:
        if isinstance(error, ValueError) and _is_ours(error):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        raise ValueError(
            f"{name} failed on an input (batch, time, channel) = (2, {_TRIAL_LENGTH}, {size}) of {dtype} "
            f"({type(error).__name__}: {reason}): give input_size, or wrap it in a function that takes such an input"
        ) from error
    if not torch.isfinite(y).all():
        raise ValueError(
            f"{name} gave NaN or infinite outputs for random inputs of size 1, expected finite ones: repair the system"
        )
    past = y[:, : _TRIAL_LENGTH // 2]
    tolerance = _TRIAL_ROUNDINGS * torch.finfo(dtype).eps * max(float(y.abs().max()), torch.finfo(dtype).tiny)
    if not float((past[0] - past[1]).abs().max()) <= tolerance:
        raise ValueError(
            f"{name} is not causal (or is random): its outputs changed where only later inputs did, so it has no memory "
            "function; give a transformer a causal mask, and call .eval() on modules with dropout that a function hides"
        )
