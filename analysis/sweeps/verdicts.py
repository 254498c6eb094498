"""Whether the widths of a sweep approximate their target stably."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from odernn.experiment import load_run
from odernn.runs import BEST

from ..beta_grids import enclose_radius, spanning
from ..papers.engine.figure import Job, job
from ..papers.engine.jobs import Cache, run_jobs
from ..perturbation import PUBLISHED_BETAS, PerturbationCurve, perturbation_error
from ..target_memory import TargetMemory, target_memory
from ..verdict import judge_stable_approximation
from .results import Sweep
from .trained import is_good

_BLOCKS = ("recurrent", "all")
# As perturbation_error.py.
_SEQUENCES = 32


@job("sweep-curves")
def curves(weights: str, trusted: list[str], path: str) -> dict[str, Any]:
    """Perturbation curves of a run, of the recurrent weights and of all.

    Args:
        weights: their checksum, which the result is kept under.
        trusted: code that its config may name.
        path: of the run directory.
    """
    run = load_run(path, trusted=trusted)
    if run.target is None:
        raise ValueError("it was trained on data of a file, whose memory is not known")
    target, horizon = run.target, float(run.t[-1] - run.t[0])
    memory = target_memory(target, horizon, horizon / (len(run.t) - 1))
    x = run.validation_inputs[:_SEQUENCES]

    def of(block: str) -> PerturbationCurve:
        def on(betas: Any) -> PerturbationCurve:
            return perturbation_error(run.model, target, x, run.t, betas, blocks=block, interpolation=run.interpolation)

        return enclose_radius(on, spanning(PUBLISHED_BETAS, horizon))

    return {"curves": [of(block).to_dict() for block in _BLOCKS], "memory": memory.to_dict()}


def judged(sweep: Sweep, cache: Cache, trusted: Sequence[str] = (), **options: Any) -> Sweep:
    """The sweep with a verdict for each combination of its settings but hidden_size, horizon and seed; of several seeds the best
    counts.

    Args:
        sweep: hidden_size is among its axes.
        trusted: code that the runs may name.
        options: of `run_jobs`.
    """
    others = [name for name in sweep.axes if name not in ("hidden_size", "horizon", "seed")]
    groups: dict[tuple[Any, ...], dict[tuple[Any, Any], Any]] = {}
    for row in sorted(filter(is_good, sweep.rows), key=lambda row: row["validation_error"]):
        group = groups.setdefault(tuple(row[name] for name in others), {})
        group.setdefault((row["hidden_size"], row.get("horizon")), row)
    jobs = {}
    for group in groups.values():
        for row in group.values():
            path = (Path(sweep.out) / row["path"]).resolve()
            digest = hashlib.sha256((path / BEST).read_bytes()).hexdigest()
            jobs[row["path"]] = Job(
                curves,
                {"weights": digest, "trusted": list(trusted)},
                100.0,
                {"path": str(path)},
                f"perturbation of {row['path']}",
            )
    finished = {one.job.key: one for one in run_jobs(jobs.values(), cache, **options)}
    verdicts = [
        {"settings": dict(zip(others, values)), **_verdict([finished[jobs[row["path"]].key] for row in group.values()])}
        for values, group in groups.items()
    ]
    return replace(sweep, verdicts=tuple(verdicts))


def _verdict(parts: list[Any]) -> dict[str, Any]:
    failed = [one.error for one in parts if one.error]
    if failed:
        return {"judgement": "undecided", "text": f"undecided: {len(failed)} of {len(parts)} curves failed ({failed[0]})"}
    try:
        # A file of a curve does not have it.
        memory = TargetMemory.from_dict(parts[0].result["memory"])
        every = [PerturbationCurve.from_dict(curve) for one in parts for curve in one.result["curves"]]
        found = judge_stable_approximation(every, memory)
    except ValueError as error:
        return {"judgement": "undecided", "text": f"undecided: {error}"}
    return {"judgement": found.definition or found.judgement, "text": str(found)}
