"""Adaptive solves in plain tensor operations: the oracle of the compiled ones, differentiated by autograd through the accepted
steps. Each member of an ensemble takes its own steps, its sequences the same ones.

Shapes are those of `odernn.solvers.standard_form.Problem`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .numba.step_control import (
    DONE,
    LEAST_ERROR,
    MAX_STEPS,
    TOO_MANY,
    UNDERFLOW,
    Control,
    count_steps,
    error_to_remember,
    exploring_step,
    first_step,
    step_after,
    step_again,
    step_within,
)
from .standard_form import EmbeddedPair, Problem, StepCount
from .torch_reference import drive, rate


def solve(
    problem: Problem, control: Control, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h0: Tensor
) -> tuple[Tensor, StepCount, list[list[float]]]:
    """h, the count of steps, and the accepted steps of each member."""
    v_left, v_right = drive(problem, V, left, right)
    members = [_Member(problem, control, W[e : e + 1], v_left[e : e + 1], v_right[e : e + 1]) for e in range(h0.shape[0])]
    h = torch.cat([member.solve(h0[e : e + 1]) for e, member in enumerate(members)])
    most = max(members, key=lambda member: member.tries)
    count = count_steps(len(most.steps), most.tries, max(member.end for member in members))
    return h, count, [member.steps for member in members]


class _Member:
    def __init__(self, problem: Problem, control: Control, W: Tensor, v_left: Tensor, v_right: Tensor) -> None:
        assert isinstance(problem.tableau, EmbeddedPair)
        self.problem, self.control, self.pair = problem, control, problem.tableau
        self.W, self.v_left, self.v_right = W, v_left, v_right
        self.steps: list[float] = []
        self.tries, self.end = 0, DONE

    def solve(self, h: Tensor) -> Tensor:
        """h (1, batch, K + 1, m) from h0 (1, batch, m)."""
        states, order = [h], self.control.order
        proposal, before = 0.0, LEAST_ERROR
        for interval, length in enumerate(self.problem.steps.tolist()):
            k = self._rate(h, interval, 0.0)
            if interval == 0:
                proposal = self._first_proposal(h, k, length)
            done, attempts, again = 0.0, 0, False
            while done < length and self.end == DONE:
                rest = length - done
                dt = step_within(rest, proposal)
                if not done + dt > done:
                    self.end = UNDERFLOW
                    break
                if attempts == MAX_STEPS:
                    self.end = TOO_MANY
                    break
                attempts += 1
                y, rates = self._step(h, k, interval, done, dt, length)
                with torch.no_grad():
                    estimate = sum((dt * e * k_i for e, k_i in zip(self.pair.error, rates)), torch.zeros_like(h))
                    error = self._size(estimate, torch.maximum(h.abs(), y.abs()))
                if error <= 1.0:
                    self.steps.append(dt)
                    h, k, done = y, rates[-1], length if dt == rest else done + dt
                    following = step_after(order, dt, error, before, proposal, again)
                    before = error_to_remember(dt, error, before, proposal)
                    proposal, again = following, False
                else:
                    proposal, again = step_again(order, dt, error), True
            self.tries += attempts
            if self.end != DONE:
                return torch.stack([*states, *[_Lost.apply(h)] * (len(self.problem.steps) + 1 - len(states))], -2)
            states.append(h)
        return torch.stack(states, -2)

    def _rate(self, y: Tensor, interval: int, fraction: float) -> Tensor:
        drive = torch.lerp(self.v_left[..., interval, :], self.v_right[..., interval, :], fraction)
        return rate(self.problem, self.W, y, drive)[1]

    def _step(self, h: Tensor, k: Tensor, interval: int, done: float, dt: float, length: float) -> tuple[Tensor, list[Tensor]]:
        """The state at the end of a step, and the rates of its stages and there."""
        rates = [k]
        for row in (*self.pair.A[1:], self.pair.b):
            y = h + dt * sum(a * k_i for a, k_i in zip(row, rates))
            rates.append(self._rate(y, interval, min(1.0, (done + sum(row) * dt) / length)))
        return y, rates

    @torch.no_grad()
    def _first_proposal(self, h: Tensor, k: Tensor, length: float) -> float:
        slope = self._size(k, h.abs())
        exploring = exploring_step(length, self._size(h, h.abs()), slope)
        change = self._rate(h + exploring * k, 0, exploring / length) - k
        return first_step(self.control.order, length, exploring, slope, self._size(change, h.abs()) / exploring)

    def _size(self, value: Tensor, state: Tensor) -> float:
        """The largest RMS over the states of a sequence in units of the tolerance; inf where it is not finite."""
        ratio = value.double() / (self.control.atol + self.control.rtol * state.double())
        size = float(ratio.square().mean(-1).max().sqrt())
        return size if math.isfinite(size) else math.inf


class _Lost(torch.autograd.Function):
    """The states of a solve that failed. A loss that looks at them has the gradient nan."""

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        return torch.full_like(h, torch.nan)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return torch.where(gradients[0] == 0, gradients[0], torch.nan)
