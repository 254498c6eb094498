"""Linear students of linear teachers with long memory, on the expected loss: no inputs are drawn ([VEG] Fig 3)."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from odernn.linear_recurrent_unit import LinearRecurrentUnit
from odernn.models import DiscreteSSM
from odernn.state_matrices import DenseMatrix, DiagonalMatrix, StateMatrix

from ...sensitivity.expected import expected_loss
from ..engine.figure import job

# The loss is averaged over this part of the steps, the last ones, as published.
_LAST = 0.01
# Seeds of students, apart from those of teachers.
_STUDENTS = 1000


@job("teacher-student")
def teacher_student(
    slowest: list[float],
    recurrence: str,
    parameterization: str,
    teacher_size: int,
    student_size: int,
    horizon: int,
    learning_rate: float,
    steps: int,
    seeds: list[int],
) -> dict[str, Any]:
    """Adam on the exact expected loss of linear maps on white noise, L = E (y - y*)^2 / 2, mean over the first T samples.

    Teachers are dense, with the eigenvalues of a gaussian matrix / sqrt(m) moved to (n0 + (1 - n0) tanh |z|) e^{i arg z}. Dense
    students start alike with n0 = 0; those of pairs with moduli uniform on the area of the ring from n0 to 1, at uniform angles.
    U is gaussian, c gaussian / sqrt(m).

    Args:
        slowest: n0 of the teachers.
        recurrence, parameterization: of the students, 'dense', or one of conjugate pairs.
        teacher_size, student_size: states.
        horizon: T.
        learning_rate: at the start; it falls to 0 like a cosine.
        steps: of Adam.
        seeds: of teacher and student.

    Returns:
        "losses": mean L of the last steps, (n0, seeds), inf where it is not finite; "power": E y*^2 / 2, alike.

    Source: [VEG] 4 and its public code, which draws inputs for every step.
    """
    members = [(n0, seed) for n0 in slowest for seed in seeds]
    teacher, student = _teacher(teacher_size, members), _student(recurrence, parameterization, student_size, members)
    optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = expected_loss(student, teacher, horizon=horizon) / 2
        # A member that diverged has no gradient, and must not spoil those of the others.
        torch.where(torch.isfinite(loss), loss, 0.0).sum().backward()
        for weight in student.parameters():
            if weight.grad is not None:
                weight.grad.nan_to_num_(0.0, 0.0, 0.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    mean = torch.stack(losses[-max(1, round(_LAST * steps)) :]).mean(0)
    shape = len(slowest), len(seeds)
    return {
        "losses": torch.where(torch.isfinite(mean), mean, math.inf).reshape(shape),
        "power": _power(teacher, horizon).reshape(shape),
    }


@torch.no_grad()
def _power(teacher: DiscreteSSM, horizon: int) -> Tensor:
    silent = copy.deepcopy(teacher)
    silent.c.zero_()
    return expected_loss(silent, teacher, horizon=horizon) / 2


def _teacher(m: int, members: list[tuple[float, int]]) -> DiscreteSSM:
    drawn = []
    for n0, seed in members:
        generator = torch.Generator().manual_seed(seed)
        drawn.append((_dense(generator, m, n0), *_weights(generator, m)))
    W, U, c = (torch.stack(part) for part in zip(*drawn))
    return _model("dense", "direct", DenseMatrix(W), U, c)


def _student(recurrence: str, parameterization: str, m: int, members: list[tuple[float, int]]) -> DiscreteSSM:
    dense, pairs = [], []
    for n0, seed in members:
        generator = torch.Generator().manual_seed(_STUDENTS + seed)
        dense.append((_dense(generator, m, 0.0), *_weights(generator, m)))
        area, turn = torch.rand(2, m // 2, generator=generator, dtype=torch.float64)
        pairs.append(torch.polar((n0**2 + (1 - n0**2) * area).sqrt(), math.pi * turn))
    W, U, c = (torch.stack(part) for part in zip(*dense))
    z = torch.stack(pairs)
    matrix: StateMatrix = DenseMatrix(W) if recurrence == "dense" else DiagonalMatrix(z.real, z.imag)
    return _model(recurrence, parameterization, matrix, U, c)


def _dense(generator: torch.Generator, m: int, n0: float) -> Tensor:
    z, V = torch.linalg.eig(_gaussian(generator, m, m) / math.sqrt(m))
    moved = torch.polar(n0 + (1 - n0) * z.abs().tanh(), z.angle())
    return (V * moved @ torch.linalg.inv(V)).real


def _weights(generator: torch.Generator, m: int) -> tuple[Tensor, Tensor]:
    return _gaussian(generator, m, 1), _gaussian(generator, 1, m) / math.sqrt(m)


def _gaussian(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@torch.no_grad()
def _model(recurrence: str, parameterization: str, W: StateMatrix, U: Tensor, c: Tensor) -> DiscreteSSM:
    kind = (1, U.shape[-2], 1, "linear", recurrence, parameterization)
    model = DiscreteSSM(*kind, bias=False, ensemble=U.shape[:1], seed=0, dtype=torch.float64)
    model.set_matrix(W.to_dense())
    (layer,) = model.layer_weights
    layer.U.copy_(U)
    model.c.copy_(c)
    if isinstance(layer.recurrence, LinearRecurrentUnit):
        layer.recurrence.normalize()
    return model
