"""The closed-form solution of linear state equations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from targets import arguments

from ..fields import Layer, VectorField
from ..norms import column
from ..paths import Path
from ..state_matrices import DenseMatrix, DiagonalMatrix, from_modes
from .affine import affine_recurrence
from .backends import obstacle
from .base import Solution, Solver, check_arguments, empty_solution, solve_grid
from .standard_form import inputs_of, standard_weights

Backend = Literal["auto", "numba", "torch"]

# Below this |z| the quotients of phi_1 and phi_2 lose digits to cancellation and a Taylor series takes over.
_SERIES_RADIUS = 0.5
# Terms of that series: 0.5^16 / 18! is far below double precision.
_SERIES_TERMS = 16
# Interval lengths of an even grid differ by a few roundings of its times.
_GRID_ROUNDING = 16


@dataclass(frozen=True)
class Exact(Solver):
    """h_{k+1} = e^z h_k + D (phi_1(z) v_k + phi_2(z) (v_{k+1} - v_k)),  z = W D,

    for dh/dt = W h + v(t) with a drive v = U x + b that is linear on each interval of length D; exact up to rounding. Here
    phi_1(z) = (e^z - 1) / z and phi_2(z) = (e^z - 1 - z) / z^2. Elementwise for diagonal W, one matrix exponential per distinct
    interval length for dense W.

    Supports one layer that is linear in its state: `StateSpaceModel`, and `ContinuousRNN` with activation 'linear'.

    Args:
        backend: 'numba' runs the recurrence as one compiled operation (CPU), 'torch' step by step in tensor operations, 'auto'
            compiled where that is possible.

    Example:
        >>> import torch
        >>> from odernn import Exact, StateSpaceModel
        >>> model = StateSpaceModel(1, 8, 1, "tanh", seed=0)
        >>> model(torch.zeros(2, 11, 1), torch.linspace(0, 1, 11), solver=Exact()).shape
        torch.Size([2, 11, 1])
    """

    lean = True

    backend: Backend = "auto"

    def __post_init__(self) -> None:
        arguments.choice("backend", self.backend, get_args(Backend))

    @property
    def order(self) -> float:
        return math.inf

    @property
    def transformable(self) -> bool:
        return self.backend == "torch"

    def supports(self, field: VectorField) -> bool:
        return field.linear and len(field.layers) == 1

    def takes_own_times(self, field: VectorField) -> bool:
        return not isinstance(field.layers[0].W, DenseMatrix)

    def solve(self, field: VectorField, path: Path, t: Tensor, h0: Tensor) -> Solution:
        if not self.supports(field):
            raise ValueError(
                "solver 'exact' needs one layer that is linear in its state (StateSpaceModel, or ContinuousRNN with "
                f"activation 'linear'), got {len(field.layers)} {field.form} layer(s) with {field.activation.name!r}: "
                "choose 'dopri5' or 'rk4'"
            )
        check_arguments(field, path, t, h0)
        if h0.shape[-2] == 0:
            return empty_solution(field, t, h0)
        grid = solve_grid(path, t)
        compiled = self.backend == "numba" or (self.backend == "auto" and obstacle("numba", h0) is None)
        precision = max(torch.finfo(times.dtype).eps for times in (t, path.times, grid.times) if times.is_floating_point())
        steps = grid.times.diff() if t.ndim == 2 else _distinct_steps(grid.times, precision)
        steps = steps.to(h0.dtype)
        h = (_compiled if compiled else _plain)(field.layers[0], grid.path, steps, h0)
        return Solution(t, grid.outputs(h), evaluations=0)


def _compiled(layer: Layer, path: Path, steps: Tensor, h0: Tensor) -> Tensor:
    """The recurrence as h_{k+1} = E h_k + G [x_k, x_{k+1}, 1]: what multiplies x_k is D (phi_1 - phi_2) U, and so on."""
    weights = standard_weights([layer], h0)
    inputs = inputs_of(path, weights.ensemble)
    sequences = len(steps) if steps.ndim == 2 else 1
    if steps.ndim == 2:  # every sequence is a member with matrices of its own
        members = len(weights.V)
        weights = replace(
            weights, V=weights.V.repeat_interleave(sequences, 0), h0=weights.h0.reshape(-1, 1, weights.h0.shape[-1])
        )
        left, right = (x.expand(members, *x.shape[1:]).flatten(0, 1).unsqueeze(1) for x in (inputs.left, inputs.right))
        inputs, steps = replace(inputs, left=left, right=right), steps.repeat(members, 1)
    W, U, b = layer.W, weights.V[..., :-1], weights.V[..., -1:]
    if isinstance(W, DenseMatrix):
        decay, phi1, phi2 = (matrix.movedim(0, 1) for matrix in _dense_phi(weights.W, steps))  # (E, S, m, m)
        scale = column(steps, decay[0])
        U, b = U.unsqueeze(1), b.unsqueeze(1)
        E, of_left, of_right, of_one = decay, scale * ((phi1 - phi2) @ U), scale * (phi2 @ U), scale * (phi1 @ b)
    else:
        eigenvalue = W.eigenvalue.expand(*weights.ensemble, -1).reshape(-1, 1, W.eigenvalue.shape[-1])
        eigenvalue = eigenvalue.repeat_interleave(sequences, 0)
        z = eigenvalue * steps.unsqueeze(-1)  # (E, S, modes)
        decay, (phi1, phi2) = z.exp(), _phi(z)

        def through(factor: Tensor, columns: Tensor) -> Tensor:
            """D factor columns, (E, S, m, columns), for columns (E, m, columns)."""
            rows = W.to_modes(columns.mT).unsqueeze(1)
            return from_modes((steps.unsqueeze(-1) * factor).unsqueeze(-2) * rows).mT

        E = (DiagonalMatrix(decay) if W.imag is None else DiagonalMatrix(decay.real, decay.imag)).entries
        of_left, of_right, of_one = through(phi1 - phi2, U), through(phi2, U), through(phi1, b)
    G = torch.cat([of_left, of_right, of_one], -1)
    if steps.numel() == 1 and steps.ndim == 1:
        E, G = E.squeeze(1), G.squeeze(1)
    h = affine_recurrence(weights.structure, inputs, E, G, weights.h0)
    return h.reshape(*weights.ensemble, *h0.shape[-2:-1], *h.shape[2:])


def _plain(layer: Layer, path: Path, steps: Tensor, h0: Tensor) -> Tensor:
    """The recurrence in plain tensor operations, step by step."""
    left, right = layer.drive_along(path.start), layer.drive_along(path.end)  # (..., batch, K, m)
    intervals = left.shape[-2]
    W = layer.W
    if isinstance(W, DenseMatrix):
        decay, phi1, phi2 = (matrix.mT for matrix in _dense_phi(W.W, steps))  # (S, ..., m, m)
        from_left, slope = phi1 * column(steps, phi1), phi2 * column(steps, phi2)
        each = decay.shape[0] > 1

        def advance(h: Tensor, k: int) -> Tensor:
            s = k if each else 0
            v, dv = left[..., k, :], right[..., k, :] - left[..., k, :]
            return h @ decay[s] + v @ from_left[s] + dv @ slope[s]

        return _step_by_step(advance, h0, intervals)
    z = W.eigenvalue.unsqueeze(-2).unsqueeze(-2) * steps.unsqueeze(-1)  # (..., batch or 1, S, modes): S = K, or 1 on an even grid
    decay, (phi1, phi2) = z.exp(), _phi(z)
    left, right = W.to_modes(left), W.to_modes(right)
    kick = steps.unsqueeze(-1) * (phi1 * left + phi2 * (right - left))
    decay = decay.expand(*decay.shape[:-2], intervals, decay.shape[-1])
    return from_modes(_step_by_step(lambda h, k: decay[..., k, :] * h + kick[..., k, :], W.to_modes(h0), intervals))


def _step_by_step(advance: Callable[[Tensor, int], Tensor], h: Tensor, count: int) -> Tensor:
    """h_0, ..., h_count along a new axis before the last, h_{k+1} = advance(h_k, k)."""
    states = [h]
    for k in range(count):
        states.append(advance(states[-1], k))
    return torch.stack(torch.broadcast_tensors(*states), -2)


def _distinct_steps(grid: Tensor, precision: float) -> Tensor:
    """Interval lengths, (K,), or (1,) when they differ by no more than the rounding, in the precision they came in, of times
    that start at 0. (Of a clock that reads 1.7e9 the steps are what its readings say.)"""
    steps = grid.diff()
    mean = (grid[-1] - grid[0]) / steps.numel()
    rounding = _GRID_ROUNDING * precision * grid.abs().max()
    return mean.reshape(1) if (steps - mean).abs().max() <= rounding else steps


def _phi(z: Tensor) -> tuple[Tensor, Tensor]:
    """phi_1(z), phi_2(z) elementwise, real or complex, accurate for every z, with accurate derivatives."""
    small = z.abs() < _SERIES_RADIUS
    far = torch.where(small, torch.ones_like(z), z)
    near = torch.where(small, z, torch.zeros_like(z))
    phi1, phi2 = torch.zeros_like(z), torch.zeros_like(z)
    for k in reversed(range(_SERIES_TERMS)):
        phi1 = phi1 * near + 1 / math.factorial(k + 1)
        phi2 = phi2 * near + 1 / math.factorial(k + 2)
    growth = far.exp() - 1
    return torch.where(small, phi1, growth / far), torch.where(small, phi2, (growth - far) / far**2)


def _dense_phi(W: Tensor, steps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """e^z, phi_1(z), phi_2(z) of z = W D for each D, (S, ..., m, m), as blocks of one matrix exponential.

    exp [[z, I, 0], [0, 0, I], [0, 0, 0]] has the first row [e^z, phi_1(z), phi_2(z)].
    Source: Al-Mohy and Higham, SIAM J. Sci. Comput. 33 (2011), Theorem 2.1 [AlMohy2011].
    """
    m = W.shape[-1]
    z = W * column(steps, W.unsqueeze(0))
    eye = torch.eye(m, dtype=W.dtype, device=W.device).expand_as(z)
    zero = torch.zeros_like(z)
    rows = [torch.cat(row, -1) for row in ((z, eye, zero), (zero, zero, eye), (zero, zero, zero))]
    top = torch.linalg.matrix_exp(torch.cat(rows, -2))[..., :m, :]
    return top[..., :m], top[..., m : 2 * m], top[..., 2 * m :]
