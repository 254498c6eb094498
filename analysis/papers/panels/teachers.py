"""Students of random teachers, and the memory of the teachers themselves (IA 3 and IA 12)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..compute.teacher_memory import teacher_memory
from ..engine.figure import Data, Job, Options, Result, results_of
from .trained_case import Case, assemble, seeds


def teacher_jobs(
    teacher: str, family: dict[str, Any], widths: tuple[int, ...], memory: dict[str, float], options: Options
) -> list[Job]:
    """For each seed the students of a teacher, and its own memory with these settings of `teacher_memory`."""
    jobs = []
    for seed in seeds(options):
        target = {"teacher": teacher, "seed": seed}
        jobs += [Case(target, family, widths).job(seed, options), Job(teacher_memory, {"target": target, **memory}, cost=2.0)]
    return jobs


def assemble_teachers(results: Sequence[tuple[Job, Result]]) -> Data:
    """{"families": as `trained_case.assemble`, "memories": those of `teacher_memory` with their "target"}."""
    students = [(job, result) for job, result in results if job.compute is not teacher_memory]
    return {**assemble(students), "memories": results_of(teacher_memory, results, "target")}
