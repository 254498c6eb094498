"""Linear students of linear teachers with long memory, on the expected loss: no inputs are drawn ([VEG] Fig 3)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from odernn.models import DiscreteSSM

from ...sensitivity.expected import expected_loss
from ..engine.figure import job

# Adam's defaults.
_BETAS, _EPS = (0.9, 0.999), 1e-8
# Steps over which a loss is averaged at the end: 1 % of them.
_LAST = 0.01


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
    """Adam on the exact expected loss of a linear map on white noise, L = 1/2 E (y - y*)^2, mean over the samples of [0, T).

    Args:
        slowest: n0; the teacher's eigenvalues have moduli n0 to 1.
        recurrence, parameterization: of the student, 'dense' or conjugate pairs.
        teacher_size, student_size: states.
        horizon: T, samples.
        learning_rate: at the start; it falls to 0 by a cosine.
        steps: of Adam.
        seeds: of teacher and student, which are trained as one ensemble.

    Returns:
        "losses": mean L of the last steps, by seed, inf where it is not finite; "power": E y*^2 / 2 by seed.

    Source: [VEG] 4 and its public code; there inputs are drawn anew for every step.
    """
    members = [(n0, seed) for n0 in slowest for seed in seeds]
    teacher = _teacher(teacher_size, members)
    student = _student(recurrence, parameterization, student_size, members)
    with torch.no_grad():
        nothing = _copy_of(teacher)
        nothing.c.zero_()
        power = expected_loss(nothing, teacher, horizon=horizon) / 2
    optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate, betas=_BETAS, eps=_EPS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    last = []
    for step in range(steps):
        optimizer.zero_grad()
        losses = expected_loss(student, teacher, horizon=horizon) / 2
        finite = torch.isfinite(losses)
        # a member that diverged has no gradient, and must not spoil the others'
        torch.where(finite, losses, 0.0).sum().backward()
        for weight in student.parameters():
            weight.grad.nan_to_num_(0.0, 0.0, 0.0)
        optimizer.step()
        schedule.step()
        if step >= steps - max(1, round(_LAST * steps)):
            last.append(losses.detach())
    mean = torch.stack(last).mean(0)
    losses = torch.where(torch.isfinite(mean), mean, math.inf)
    return {"losses": losses.reshape(len(slowest), -1), "power": power.reshape(len(slowest), -1)}


def _gaussian(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _matrix(generator: torch.Generator, m: int, slowest: float) -> Tensor:
    """A gaussian matrix whose eigenvalues l are moved to (n0 + (1 - n0) tanh |l|) e^{i arg l}."""
    l, V = torch.linalg.eig(_gaussian(generator, m, m) / math.sqrt(m))
    moved = torch.polar(slowest + (1 - slowest) * l.abs().tanh(), l.angle())
    return (V * moved @ torch.linalg.inv(V)).real


def _teacher(m: int, members: list[tuple[float, int]]) -> DiscreteSSM:
    model = DiscreteSSM(1, m, 1, "linear", "dense", bias=False, ensemble=(len(members),), seed=0, dtype=torch.float64)
    parts = []
    for slowest, seed in members:
        generator = torch.Generator().manual_seed(seed)
        parts.append((_matrix(generator, m, slowest), _gaussian(generator, m, 1), _gaussian(generator, 1, m) / math.sqrt(m)))
    return _with_weights(model, parts)


def _student(recurrence: str, parameterization: str, m: int, members: list[tuple[float, int]]) -> DiscreteSSM:
    kind = (1, m, 1, "linear", recurrence, parameterization)
    model = DiscreteSSM(*kind, bias=False, ensemble=(len(members),), seed=0, dtype=torch.float64)
    parts, w, angles = [], [], []
    for slowest, seed in members:
        generator = torch.Generator().manual_seed(1000 + seed)
        W = _matrix(generator, m, 0.0)
        parts.append((W, _gaussian(generator, m, 1), _gaussian(generator, 1, m) / math.sqrt(m)))
        uniform = torch.rand(2, m // 2, generator=generator, dtype=torch.float64)
        w.append((slowest**2 + (1 - slowest**2) * uniform[0]).sqrt())
        angles.append(math.pi * uniform[1])
    if recurrence == "dense":
        return _with_weights(model, parts)
    own = model.layer_weights[0].recurrence
    modulus, angle = torch.stack(w), torch.stack(angles)
    with torch.no_grad():
        own.w.copy_(model.parameterization.inverse(modulus))
        own._set_frequencies(angle)
        if recurrence == "lru":
            own.gamma_log.copy_(own._normalization().log())
        model.layer_weights[0].U.copy_(torch.stack([U for _, U, _ in parts]))
        model.c.copy_(torch.stack([c for _, _, c in parts]))
    return model


def _with_weights(model: DiscreteSSM, parts: list[tuple[Tensor, Tensor, Tensor]]) -> DiscreteSSM:
    W, U, c = (torch.stack(part) for part in zip(*parts))
    model.set_matrix(W)
    with torch.no_grad():
        model.layer_weights[0].U.copy_(U)
        model.c.copy_(c)
    return model


def _copy_of(model: DiscreteSSM) -> DiscreteSSM:
    import copy

    return copy.deepcopy(model)
