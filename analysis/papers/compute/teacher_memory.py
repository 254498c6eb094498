"""The memory of the random teachers of [IA] Fig 3 and 12, and what else their answers are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from odernn.models import SequenceModel
from odernn.solvers import Adaptive
from targets import TeacherFunctional

from ...decay import fit_decay
from ...families import Family
from ...memory import memory_function
from ..engine.figure import job
from .trained_families import load_target

# Of models of the library the rate of the answer is known without differences, and solved until little is left of fast memories.
_SOLVER = Adaptive(rtol=1e-11, atol=1e-14)
# Of a long curve so many points are kept, half of them evenly and half of them in equal ratios.
_KEPT = 300


@job("teacher-memory")
def teacher_memory(
    target: dict[str, Any],
    horizon: float,
    points: int,
    warmup: float = 0.0,
    amplitude: float | None = None,
    floor: float | None = None,
) -> dict[str, Any]:
    """The memory function of a target, with the law it decays by: {"times", "values", "floor", "law", "rate", "exponent",
    "scale"}.

    Args:
        target: of `trained_families.load_target`.
        horizon, points: of the times.
        warmup: time without input before the probe: attention over a constant input alone would not see it step.
        amplitude: |x|; None for those of `memory_function`.
        floor: value below which M is rounding, where more is rounded than can be seen from outside; None for that of M.
    """
    t = torch.linspace(0, horizon, points, dtype=torch.float64)
    system: Any = load_target(**target)
    solver = None
    if isinstance(system, TeacherFunctional) and isinstance(system.module, SequenceModel):
        system, solver = system.module, _SOLVER
    M = memory_function(system, t, warmup=warmup, amplitudes=None if amplitude is None else [amplitude], solver=solver)
    fit = fit_decay(M, floor=floor)
    even, log = np.linspace(0, points - 1, _KEPT // 2), np.geomspace(1, points - 1, _KEPT // 2)
    kept = np.unique(np.concatenate([even, log]).round().astype(int))
    found = {"law": fit.law, "rate": fit.rate, "exponent": fit.exponent, "scale": fit.scale}
    least = float(M.floor.max()) if floor is None else floor
    return {"times": M.times[kept], "values": M.values[kept], "floor": least, **found}


@job("teacher-parts")
def teacher_parts(target: dict[str, Any], horizon: float, points: int, seed: int) -> dict[str, float]:
    """Norms of parts of a target's answer y to the test inputs of a family, in parts of that of y: {"past", "even"}.

    past: what depends on the past, y_n less the answer to x_n after zeros; even: (H(x) + H(-x)) / 2.
    """
    family = Family(horizon=horizon, points=points, seed=seed)
    H, x, t = load_target(**target), family.test_inputs(), family.t
    y = H(x, t)
    alone = torch.diag_embed(x[..., 0]).reshape(-1, points, 1)
    present = H(alone, t).reshape(len(x), points, points).diagonal(dim1=1, dim2=2).unsqueeze(-1)
    return {"past": float((y - present).norm() / y.norm()), "even": float(((y + H(-x, t)) / 2).norm() / y.norm())}
