"""The fused solve as few large products: the backend where no compiled kernel runs, such as a W too wide for the GPU's.

The backward pass has the states at all samples. So it computes the stages of many intervals at once, and sums the gradient of W
in one product; only the adjoint itself goes from interval to interval. Shapes are those of
`odernn.solvers.standard_form.Problem`; within, time comes before the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import activations
from . import torch_reference
from .standard_form import Problem
from .torch_reference import adjoint_product, input_gradients, lengths, product, product_gradient

# Bytes of the stages held at once; a longer solve goes through its intervals in segments.
SEGMENT_BYTES = 2**28
# Buffers of the size of all stages: their states, slopes and adjoints.
_BUFFERS = 3

forward = torch_reference.forward


def backward(
    problem: Problem, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h_all: Tensor, g_all: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    tableau, substeps = problem.tableau, problem.substeps
    v_left, v_right = torch_reference.drive(problem, V, left, right)
    g_left, g_right = (h_all.new_empty(*h_all.shape[:2], problem.steps.shape[-1], h_all.shape[-1]) for _ in range(2))
    g_W = torch.zeros_like(W)
    fractions = [(step + c) / substeps for step in range(substeps) for c in tableau.c]
    g = torch.zeros_like(h_all[:, :, 0])
    intervals = problem.steps.shape[-1]
    bytes_each = _BUFFERS * len(fractions) * g.numel() * g.element_size()
    segment = max(1, SEGMENT_BYTES // max(bytes_each, 1))
    for end in range(intervals, 0, -segment):
        span = slice(max(0, end - segment), end)
        h, left_end, right_end = (along[:, :, span].transpose(1, 2) for along in (h_all, v_left, v_right))
        states, slopes = _stages(problem, W, h, left_end, right_end, problem.steps[..., span], fractions)
        incoming = g_all[:, :, span.start + 1 : end + 1]
        adjoints, g = _adjoints(problem, W, g, incoming, states, slopes, lengths(problem.steps[..., span], h_all))
        g_W += product_gradient(problem, adjoints.flatten(1, 3), states.flatten(1, 3))
        weights = adjoints.new_tensor(fractions)
        g_left[:, :, span] = torch.einsum("esktm,s->etkm", adjoints, 1 - weights)
        g_right[:, :, span] = torch.einsum("esktm,s->etkm", adjoints, weights)
    of_inputs = input_gradients(problem, V, left, right, g_left, g_right, wanted[2] or wanted[3])
    return (g_W, *of_inputs, g + g_all[:, :, 0])


def _stages(
    problem: Problem, W: Tensor, h: Tensor, v_left: Tensor, v_right: Tensor, steps: Tensor, fractions: list[float]
) -> tuple[Tensor, Tensor]:
    """Stage states y and sigma' at them, (E, substeps * stages, intervals, batch, m), of intervals that start from h."""
    sigma = activations.get(problem.activation)
    assert sigma.derivative_of_value is not None  # of all that have kernels
    dt = (steps / problem.substeps).to(h)
    dt = dt.reshape(-1, 1, 1) if dt.ndim == 1 else dt.mT.unsqueeze(-1)  # (intervals, batch or 1, 1)
    states, slopes = (h.new_empty(h.shape[0], len(fractions), *h.shape[1:]) for _ in range(2))
    A, b = problem.tableau.A, problem.tableau.b
    k: list[Tensor] = []
    for index, fraction in enumerate(fractions):
        stage = index % len(b)
        if stage == 0 and index > 0:
            h, k = h + dt * sum(b_i * k_i for b_i, k_i in zip(b, k)), []
        y = h + dt * sum(a * k_j for a, k_j in zip(A[stage], k)) if k else h
        states[:, index] = y
        z = product(problem, W, states[:, index].flatten(1, 2)).unflatten(1, y.shape[1:3])
        value = sigma(z + torch.lerp(v_left, v_right, fraction))
        k.append(value - y if problem.leaks else value)
        slopes[:, index] = sigma.derivative_of_value(value)
    return states, slopes


def _adjoints(
    problem: Problem, W: Tensor, g: Tensor, incoming: Tensor, states: Tensor, slopes: Tensor, steps: Sequence[Any]
) -> tuple[Tensor, Tensor]:
    """The adjoints of the arguments of sigma, in place of the slopes, and that of the first state."""
    A, b = problem.tableau.A, problem.tableau.b
    for interval in reversed(range(len(steps))):
        g, dt = g + incoming[:, :, interval], steps[interval] / problem.substeps
        for step in reversed(range(problem.substeps)):
            g_y: dict[int, Tensor] = {}
            for i in reversed(range(len(b))):
                # The adjoint of k_i is dt (b_i g + sum_{j > i} A_ji g_y_j), that of z_i is sigma' times it.
                g_k = (dt * b[i]) * g
                for j, adjoint in g_y.items():
                    if A[j][i]:
                        weight = dt * A[j][i]
                        g_k = g_k + weight * adjoint if isinstance(weight, Tensor) else g_k.add(adjoint, alpha=weight)
                index = step * len(b) + i
                g_z = slopes[:, index, interval].mul_(g_k)
                g_y[i] = adjoint_product(problem, W, g_z, states[:, index, interval])
                if problem.leaks:
                    g_y[i] = g_y[i] - g_k
            g = g + sum(g_y.values())
    return slopes, g
