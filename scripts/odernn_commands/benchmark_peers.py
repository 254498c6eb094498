"""The contenders of `benchmark.py` from other libraries than torchdiffeq, which `odernn.TorchDiffEq` wraps."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from odernn import SequenceModel

from .benchmark_cases import Case, data, model_of, small, weights_of

NEEDS = {"diffrax": ("jax", "diffrax"), "torchode": ("torchode",), "lax.scan": ("jax",)}


@dataclass(frozen=True)
class Trial:
    """A prepared contender: `run` does the work once; `found`, where it has some, gives y and the gradients of all weights on
    the problem that errors are compared on. It has `share` of the case's work, and its time is divided by that.

    Args:
        note: on how it was set, for the table.
    """

    run: Callable[[], None]
    found: Callable[[], dict[str, np.ndarray]] | None = None
    share: float = 1.0
    note: str = ""


def missing(contender: str) -> tuple[str, ...]:
    """Packages that a contender needs and that are not installed."""
    needed = NEEDS.get(contender.partition(" ")[0], ())
    return tuple(name for name in needed if importlib.util.find_spec(name) is None)


def torch_trial(
    case: Case,
    answer_of: Callable[[SequenceModel, Tensor, Tensor], Tensor],
    dtype: torch.dtype = torch.float32,
    prepared: Callable[[SequenceModel], SequenceModel] = lambda model: model,
    note: str = "",
) -> Trial:
    """`answer_of(model, t, x)` gives y; the mean square of its distance to the targets is what is differentiated."""
    model, problem = prepared(model_of(case, dtype)), data(case, dtype)

    def backpropagate(model: SequenceModel, t: Tensor, x: Tensor, y: Tensor) -> Tensor:
        found = answer_of(model, t, x)
        ((found - y) ** 2).mean().backward()
        return found

    def run() -> None:
        model.zero_grad()
        backpropagate(model, *problem)

    def found() -> dict[str, np.ndarray]:
        model = prepared(model_of(case, dtype))
        y = backpropagate(model, *data(small(case), dtype))
        gradients = {name: weight.grad for name, weight in weights_of(model).items() if weight.grad is not None}
        return {name: value.detach().double().cpu().numpy() for name, value in ({"y": y} | gradients).items()}

    return Trial(run, found, note=note)


# --- JAX --------------------------------------------------------------------------------------------------------------


def _jax_trial(case: Case, states: Callable[..., Any]) -> Trial:
    """`states(jax, jnp, weights, x)` gives h, (time, batch, m), from 0."""
    import jax
    import jax.numpy as jnp

    weights = {name: jnp.asarray(weight.detach().numpy()) for name, weight in weights_of(model_of(case)).items()}

    def problem(case: Case) -> list[Any]:
        return [jnp.asarray(value.numpy()) for value in data(case)[1:]]

    def value(weights: Mapping[str, Any], x: Any, y: Any) -> Any:
        h = states(jax, jnp, weights, x)
        found = jnp.swapaxes(h, 0, 1) @ weights["c"].T
        return jnp.mean((found - y) ** 2), found

    step, given = jax.jit(jax.value_and_grad(value, has_aux=True)), problem(case)

    def run() -> None:
        jax.block_until_ready(step(weights, *given))

    def found() -> dict[str, np.ndarray]:
        (_, y), gradients = step(weights, *problem(small(case)))
        return {name: np.asarray(g, np.float64) for name, g in ({"y": y} | gradients).items()}

    return Trial(run, found)


def lax_scan_rk4(case: Case) -> Trial:
    """A hand-written RK4 (3/8 rule) in jax.lax.scan, the drive of all times in one product."""

    def states(jax: Any, jnp: Any, weights: Mapping[str, Any], x: Any) -> Any:
        drive = jnp.swapaxes(x @ weights["U"].T + weights["b"], 0, 1)  # (time, batch, m)
        W, D = weights["W"].T, case.step

        def step(h: Any, ends: Any) -> Any:
            left, right = ends
            slope = (right - left) / 3
            k1 = jnp.tanh(h @ W + left)
            k2 = jnp.tanh((h + D / 3 * k1) @ W + left + slope)
            k3 = jnp.tanh((h + D * (k2 - k1 / 3)) @ W + left + 2 * slope)
            k4 = jnp.tanh((h + D * (k1 - k2 + k3)) @ W + right)
            h = h + D / 8 * (k1 + 3 * (k2 + k3) + k4)
            return h, h

        h0 = jnp.zeros(drive.shape[1:], drive.dtype)
        _, h = jax.lax.scan(step, h0, (drive[:-1], drive[1:]))
        return jnp.concatenate([h0[None], h])

    return _jax_trial(case, states)


def diffrax_states(case: Case, weights: Mapping[str, Any], x: Any, rtol: float | None, atol: float | None) -> Any:
    """h, (time, batch, m), by diffrax's Tsit5 with its default adjoint: one step a sample without tolerances, else steps that end
    at every sample."""
    import diffrax
    import jax.numpy as jnp

    t = case.step * jnp.arange(case.times, dtype=x.dtype)
    path = diffrax.LinearInterpolation(t, jnp.swapaxes(x, 0, 1))

    def rate(s: Any, h: Any, weights: Mapping[str, Any]) -> Any:
        return jnp.tanh(h @ weights["W"].T + path.evaluate(s) @ weights["U"].T + weights["b"])

    h0 = jnp.zeros((x.shape[0], case.m), x.dtype)
    given = diffrax.ODETerm(rate), diffrax.Tsit5(), t[0], t[-1], None, h0
    if rtol is None:
        steps, most = diffrax.StepTo(t), case.times - 1
        h = diffrax.diffeqsolve(
            *given, args=weights, saveat=diffrax.SaveAt(steps=True), stepsize_controller=steps, max_steps=most
        ).ys  # fmt: skip
        return jnp.concatenate([h0[None], h])
    if hasattr(diffrax, "ClipStepSizeController"):
        steps = diffrax.ClipStepSizeController(diffrax.PIDController(rtol=rtol, atol=atol), step_ts=t)
    else:  # before 0.7
        steps = diffrax.PIDController(rtol=rtol, atol=atol, step_ts=t)
    most = _MOST_STEPS * case.times
    return diffrax.diffeqsolve(
        *given, args=weights, saveat=diffrax.SaveAt(ts=t), stepsize_controller=steps, max_steps=most
    ).ys  # fmt: skip


# Steps in an interval, on average, that an adaptive peer may take.
_MOST_STEPS = 64


def diffrax_tsit5(rtol: float | None = None, atol: float | None = None) -> Callable[[Case], Trial]:
    return lambda case: _jax_trial(case, lambda jax, jnp, weights, x: diffrax_states(case, weights, x, rtol, atol))


# --- torchode ---------------------------------------------------------------------------------------------------------


def torchode_states(
    case: Case, model: SequenceModel, t: Tensor, x: Tensor, rtol: float | None = None, atol: float | None = None
) -> Tensor:
    """h, (batch, time, m), by torchode's Tsit5, with backpropagation through the solver: one step a sample without tolerances."""
    import torchode

    field, rows = model.field(), torch.arange(x.shape[0])

    def rate(s: Tensor, h: Tensor) -> Tensor:
        k = (s / case.step).long().clamp(0, t.numel() - 2)
        fraction = ((s - t[k]) / case.step).unsqueeze(-1).to(x.dtype)
        return field(h, torch.lerp(x[rows, k], x[rows, k + 1], fraction))

    term = torchode.ODETerm(rate)
    if rtol is None:
        control, first = torchode.FixedStepController(), torch.full_like(t[:1], case.step).expand(x.shape[0])
    else:
        control, first = torchode.IntegralController(atol=atol, rtol=rtol, term=term), None
    solver = torchode.AutoDiffAdjoint(torchode.Tsit5(term=term), control)
    problem = torchode.InitialValueProblem(y0=x.new_zeros(x.shape[0], case.m), t_eval=t.expand(x.shape[0], -1))
    return solver.solve(problem, dt0=first).ys


def torchode_tsit5(rtol: float | None = None, atol: float | None = None) -> Callable[[Case], Trial]:
    return lambda case: torch_trial(case, lambda model, t, x: torchode_states(case, model, t, x, rtol, atol) @ model.c.mT)


# --- PyTorch's own recurrent network -----------------------------------------------------------------------------------


def torch_rnn(case: Case) -> Trial:
    """torch.nn.RNN, h_{k+1} = tanh(W h_k + U x_{k+1} + b), with a linear readout. It solves another equation: no error."""
    torch.manual_seed(0)
    network = torch.nn.RNN(1, case.m, batch_first=True).to(case.device)
    readout = torch.nn.Linear(case.m, 1, bias=False).to(case.device)
    _, x, y = data(case)

    def run() -> None:
        network.zero_grad()
        readout.zero_grad()
        ((readout(network(x)[0]) - y) ** 2).mean().backward()

    return Trial(run)
