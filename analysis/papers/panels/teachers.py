"""Students of random teachers, and the memory of the teachers themselves (IA 3 and IA 12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from targets import kernels

from ...perturbation import PerturbationCurve
from ...target_memory import of_samples
from ...verdict import LONGER, Verdict, judge_stable_approximation
from ..compute.teacher_memory import teacher_memory
from ..compute.trained_families import trained_curves
from ..engine.figure import Data, Job, Options, Result, results_of
from .trained_case import assemble

WIDTHS, _QUICK_WIDTHS = (2, 4, 8, 16), (2, 4)
# From far below 1/T to where the samples no longer resolve perturbed rates.
_ASCENT = {"betas": [0.0, *np.geomspace(1e-5, 0.5, 11).tolist()], "draws": 8, "restarts": 1, "steps": 6}
_QUICK_ASCENT = {"betas": [0.0, *np.geomspace(1e-4, 0.5, 6).tolist()], "draws": 4, "restarts": 0, "steps": 2}


def student_job(target: Mapping[str, Any], family: Mapping[str, Any], seed: int, options: Options, cost: float) -> Job:
    """The family of students of one target, with `analysis.families.Family` settings beside horizon and points."""
    own = {"steps": 150, "starts": 2, **family, "widths": _QUICK_WIDTHS if options.quick else WIDTHS, "seed": seed}
    if options.quick:
        own |= {"sequences": 8, "steps": 50}
    ascent = _QUICK_ASCENT if options.quick else _ASCENT
    return Job(trained_curves, {"target": dict(target), "family": own, "widths": own["widths"], "ascent": ascent}, cost=cost)


def memory_job(target: Mapping[str, Any], horizon: float, cost: float = 2.0, **probe: float) -> Job:
    """The memory of a target on four times the horizon, a sample for each unit of time."""
    times = {"horizon": LONGER * horizon, "points": round(LONGER * horizon) + 1}
    return Job(teacher_memory, {"target": dict(target), **times, **probe}, cost=cost)


def assemble_teachers(results: Sequence[tuple[Job, Result]]) -> Data:
    """{"families": as `trained_case.assemble`, "memories": those of `teacher_memory` with their "target" and "warmup"}."""
    students = [(job, result) for job, result in results if job.compute is trained_curves]
    warmups = [job.settings.get("warmup", 0.0) for job, _ in results if job.compute is teacher_memory]
    memories = results_of(teacher_memory, results, "target")
    return {**assemble(students), "memories": [{**one, "warmup": warmup} for one, warmup in zip(memories, warmups)]}


def memory_of(data: Data, target: Mapping[str, Any], warmup: float = 0.0) -> dict[str, Any] | None:
    """The memory of that target, if it was computed."""
    found: list[dict[str, Any]] = data["memories"]
    return next((one for one in found if one["target"] == target and one["warmup"] == warmup), None)


def verdict_on(data: Data, entry: Mapping[str, Any]) -> Verdict:
    """The verdict on one family of students, by the memory of its teacher as it was computed, or by that of its kernel."""
    curves = [PerturbationCurve.from_dict(curve) for curve in entry["curves"]]
    memory = memory_of(data, entry["target"])
    if memory is not None:
        known: Any = of_samples(np.array(memory["times"]), np.array(memory["values"]), memory["floor"])
    else:
        kernel = entry["target"].get("kernel")
        known = None if kernel is None else kernels.load(kernel)
    return judge_stable_approximation(curves, known)


def recurrent(entry: Mapping[str, Any]) -> list[PerturbationCurve]:
    """The curves of the recurrent block."""
    return [PerturbationCurve.from_dict(curve) for curve in entry["curves"] if curve["block_choice"] == "recurrent"]


def of_target(data: Data, **target: Any) -> list[dict[str, Any]]:
    """Families whose target has these settings, in the order of seeds."""
    return [entry for entry in data["families"] if target.items() <= entry["target"].items()]


def law_of(memory: Mapping[str, Any]) -> str:
    """'exponential, rate 0.3', 'power, exponent 1.5'."""
    number = next((f", {name} {memory[name]:.2g}" for name in ("rate", "exponent") if memory[name] is not None), "")
    return f"{memory['law']}{number}"
