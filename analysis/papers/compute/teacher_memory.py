"""The memory of the random teachers of [IA] Fig 3 and 12."""

from __future__ import annotations

from typing import Any

import torch

from ...decay import fit_decay
from ...memory import memory_function
from ..engine.figure import job
from .trained_families import load_target


@job("teacher-memory")
def teacher_memory(target: dict[str, Any], horizon: float, points: int, warmup: float = 0.0) -> dict[str, Any]:
    """The memory function of a target, with the law it decays by: {"times", "values", "law", "rate", "exponent"}.

    Args:
        target: of `trained_families.load_target`.
        horizon, points: of the times.
        warmup: time without input before the probe: attention over a constant input alone would not see it step.
    """
    t = torch.linspace(0, horizon, points, dtype=torch.float64)
    M = memory_function(load_target(**target), t, warmup=warmup)
    fit = fit_decay(M)
    return {"times": M.times, "values": M.values, "law": fit.law, "rate": fit.rate, "exponent": fit.exponent}
