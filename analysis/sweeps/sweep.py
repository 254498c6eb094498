"""Sweeps over the settings of an experiment, on the job engine of the papers' figures."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odernn import json_values
from odernn.experiment import ExperimentConfig
from odernn.run_lock import LOCK, RunLock
from odernn.runs import SUMMARY, replace_file
from odernn.tables import csv_text
from targets import kernels

from ..papers.engine import records
from ..papers.engine.figure import Job
from . import picture
from .axes import check_axes, combinations, config_with, directory_name
from .results import Sweep
from .trained import train_run

if TYPE_CHECKING:
    from ..papers.engine.jobs import Engine, Finished

RECORD, TABLE, PICTURE, JOBS = "sweep.json", "sweep.csv", "sweep.png", ".jobs"
# Settings in which runs of one sweep may differ without being other runs.
_FREE = ("device",)
_EMPTY = ("validation_error", "initial_error", "linear_error", "stability_margin", "slowest_rate", "seconds", "epochs")


def sweep(
    config: ExperimentConfig | None = None,
    over: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] = "sweep",
    *,
    workers: int | None = None,
    engine: Engine = "local",
    address: str | None = None,
    linear: bool = True,
    verdict: bool = False,
) -> Sweep:
    """Trains one model for each combination of settings, each in a run directory of its own, and writes sweep.csv, sweep.json
    and sweep.png.

    What has finished is kept: after an interruption the same call goes on, a run that was stopped half way from its checkpoint.
    With other values of the same axes the sweep in `out` is extended.

    Args:
        config: the settings that do not vary; None for the defaults.
        over: setting of `ExperimentConfig` or `TrainingConfig` -> values, a sequence or text as in `analysis.sweeps.axes`.
        out: the directory.
        workers: runs at a time, one core each; None for as many as there are cores.
        engine: 'local', processes of this machine, or 'ray', of a Ray cluster that sees `out`.
        address: of a running Ray cluster.
        linear: whether the best linear model of each width and structure is computed for comparison.
        verdict: whether perturbation curves are computed and the widths judged, see `analysis.sweeps.verdicts`.

    Returns:
        The table of all runs that `out` holds of this sweep; a run that diverges is a row with its reason.

    Raises:
        ValueError: unknown settings, values that do not fit, or a directory that holds another sweep.

    Example:
        >>> from analysis import sweep
        >>> over = {"hidden_size": [4, 8, 16], "parameterization": ["direct", "softplus"], "seed": range(3)}
        >>> print(sweep(over=over, out="sweep"))  # doctest: +SKIP
    """
    config = ExperimentConfig() if config is None else config
    if not isinstance(config, ExperimentConfig):
        raise ValueError(f"config is a {type(config).__name__}, expected ExperimentConfig(...), or leave it out for the defaults")
    axes = check_axes(over or {})
    directory = Path(out)
    if verdict and "hidden_size" not in axes:
        raise ValueError("a verdict is over widths: sweep over hidden_size, too, or leave it out")
    points = combinations(axes)
    configs = [config_with(config, point) for point in points]
    # Results belong to what files hold, not to their names; a file is read once for all runs.
    of_data = {path: path and _checksum(path) for path in {one.data for one in configs}}
    of_code = {name: _checksum(name.rpartition(":")[0]) for name in {name for one in configs for name in one.code()}}
    configs = [replace(one, data_checksum=of_data[one.data] or one.data_checksum) for one in configs]
    for kernel in {one.kernel for one in configs if one.data is None and not kernels.names_code(one.kernel)}:
        kernels.load(kernel)  # a wrong name must not become the reason of every run
    jobs = [
        Job(
            train_run,
            {
                "settings": one.to_dict(),
                "linear": linear,
                "code": {name: of_code[name] for name in one.code()},
            },
            cost=_cost(one),
            places={"path": str(directory.resolve() / directory_name(point))},
            title=directory_name(point),
        )
        for point, one in zip(points, configs)
    ]
    from ..papers.engine.jobs import Cache, run_jobs  # joblib, which most do not need

    cache = Cache(directory / JOBS)
    settled = run_jobs(jobs, cache, workers=workers, engine=engine, address=address)
    _require_ours(directory)
    directory.mkdir(parents=True, exist_ok=True)
    lock = RunLock(directory)
    lock.acquire()
    try:
        fixed = {name: value for name, value in config.to_dict().items() if name not in (*axes, *_FREE)}
        fixed["training"] = {k: v for k, v in fixed["training"].items() if k not in axes and not (k == "seed" and "seed" in axes)}
        rows = _rows_of_before(directory, tuple(axes), {**fixed, "linear": linear})
        record = {"over": {name: list(values) for name, values in axes.items()}, "fixed": {**fixed, "linear": linear}}
        names = {job.key: (point, directory_name(point)) for point, job in zip(points, jobs)}
        for job in jobs:  # a result whose run directory is gone is none
            kept = directory / JOBS / f"{job.key}.json"
            if kept.exists() and not (directory / names[job.key][1]).exists():
                kept.unlink()
        with closing(settled):
            _write_record(directory, record, rows)
            for finished in settled:
                point, name = names[finished.job.key]
                rows[name] = {**_result(finished), **point, "path": name}
                _write_record(directory, record, rows)
        order = {directory_name(point): index for index, point in enumerate(points)}
        ordered = sorted(rows.values(), key=lambda row: order.get(row["path"], -1))
        found = Sweep(tuple(axes), tuple(ordered), str(directory))
        if verdict:
            from .verdicts import judged

            found = judged(found, cache, sorted(of_code), workers=workers, engine=engine, address=address)
        replace_file(directory / TABLE, csv_text(found.rows))
        _write_record(directory, record, {row["path"]: row for row in ordered}, found.verdicts)
        picture.write(found, directory / PICTURE)
        return found
    finally:
        lock.release()


def _checksum(path: str) -> str | None:
    """Of a file; None where there is none, which the run itself says, and for a module."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else None


def _result(finished: Finished) -> dict[str, Any]:
    if finished.result is not None:
        return dict(finished.result)
    return dict.fromkeys(_EMPTY) | {"stopped": "failed", "reason": finished.error}


def _cost(config: ExperimentConfig) -> float:
    """Grows with what a run takes; the longest start first."""
    size = config.train_size + config.validation_size
    return config.training.epochs * config.points * size * config.num_layers * (1 + config.hidden_size / 16) ** 2 * 1e-6 + 1e-3


def _require_ours(directory: Path) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise ValueError(f"--out {directory} is a file, expected a directory: choose another")
    known = (directory / RECORD).exists() or (directory / JOBS).is_dir()
    if any(file.name != LOCK for file in directory.iterdir()) and not known:
        raise ValueError(f"{directory} exists and holds no sweep (no {RECORD}): choose another --out (nothing was touched)")


def _rows_of_before(directory: Path, axes: tuple[str, ...], fixed: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of a sweep that this one goes on with or extends, by their paths.

    Raises:
        ValueError: it is another sweep, or its record is damaged.
    """
    path = directory / RECORD
    if not path.exists():
        return {}
    try:
        record = records.read(path)
        theirs, there = json_values.decode(record["fixed"]), tuple(record["over"])
        rows = {row["path"]: dict(row) for row in record["rows"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged or of another version: remove it and give the command again, which keeps the runs in {directory}"
        ) from error
    if there != axes and set(there) == set(axes):  # the names of run directories follow the order
        raise ValueError(f"{directory} holds a sweep over {', '.join(there)}: give the axes in that order")
    if set(there) != set(axes):
        raise ValueError(f"{directory} holds a sweep over {', '.join(there)}, not over {', '.join(axes)}: choose another --out")
    ours = json_values.decode(json_values.encode(fixed))
    flat = [{**{k: v for k, v in one.items() if k != "training"}, **one["training"]} for one in (theirs, ours)]
    changed = [name for name in dict.fromkeys((*flat[0], *flat[1])) if flat[0].get(name) != flat[1].get(name)]
    if changed:
        was = "; ".join(f"{name} is {flat[0].get(name)!r} there, {flat[1].get(name)!r} here" for name in changed)
        raise ValueError(f"{directory} holds a sweep of other settings ({was}): give the same, or choose another --out")
    return {name: row for name, row in rows.items() if (directory / name).exists() or (directory / name / SUMMARY).exists()}


def _write_record(directory: Path, record: dict[str, Any], rows: Mapping[str, Any], verdicts: tuple[Any, ...] = ()) -> None:
    records.write(directory / RECORD, {**record, "rows": list(rows.values()), "verdicts": list(verdicts)}, indent=1)
