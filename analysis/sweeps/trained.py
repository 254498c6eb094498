"""One run of a sweep, as a job."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from odernn import json_values
from odernn.experiment import Experiment, ExperimentConfig, load_run, read_config
from odernn.runs import CHECKPOINT, SUMMARY, RunDirectory

from ..experiments import draw_run
from ..linear.starts import linear_fits
from ..papers.engine.figure import job
from ..perturbation.errors import unperturbed_error

_FROM_SUMMARY = ("stability_margin", "slowest_rate", "seconds", "epochs", "stopped")
# An error that ends a run, in a table.
_LONGEST_REASON = 200


@job("sweep-run")
def train_run(settings: dict[str, Any], linear: bool, code: dict[str, Any], path: str) -> dict[str, Any]:
    """Trains a run in its directory, or goes on with it, or reads what it came to; a row of the table.

    A run that diverges, or whose settings do not fit together, is a row with the reason.

    Args:
        settings: of `ExperimentConfig.from_dict`.
        code: checksums of the files of code that they name, which the result is kept under.
        linear: whether the error of the best linear model of its width and structure is computed.
        path: of the run directory.
    """
    config, directory = ExperimentConfig.from_dict(settings), Path(path)
    # What a training prints would stand between the lines of progress, without a name.
    with warnings.catch_warnings(record=True) as said, redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        try:
            begun = _going_on(config, directory)
            experiment = Experiment(begun or config, warm=begun is None)
        except ValueError as error:
            return _row(stopped="refused", reason=str(error))
        if not _is_done(directory):
            try:
                _train(experiment, directory)
            except ArithmeticError as error:
                return _row(stopped="diverged", reason=str(error), epochs=experiment.trainer.epoch)
        loaded = load_run(directory, trusted=config.code())
        summary = json_values.loads((directory / SUMMARY).read_bytes())
        row = {name: summary[name] for name in _FROM_SUMMARY} | {"validation_error": summary["validation_relative_l2"]}
        data, model = experiment.data.to("cpu"), loaded.model
        held = data.validation
        measured = held.y, held.x, held.t, "relative_l2", config.interpolation
        row["initial_error"] = unperturbed_error(model, *measured, mask=held.mask)
        # What linear models are fitted to is the target on linear paths.
        comparable = linear and experiment.target is not None and config.interpolation == "linear"
        if fits := linear_fits(model, experiment.target, data) if comparable and experiment.target is not None else []:
            row["linear_error"] = unperturbed_error(fits[0], *measured)
    kinds = dict.fromkeys(" ".join(str(one.message).split()) for one in said)
    return _row(**row, reason="; ".join(kinds))


def _train(experiment: Experiment, directory: Path) -> None:
    going = (directory / CHECKPOINT).exists()
    run = (
        RunDirectory.open(directory) if going else RunDirectory.create(directory, experiment.record(), overwrite=True, hold=True)
    )
    try:
        with run.writing():
            if going:
                experiment.resume(run)
            experiment.train(run, progress=False)
            draw_run(experiment, directory)
    finally:
        run.unlock()


def _going_on(config: ExperimentConfig, directory: Path) -> ExperimentConfig | None:
    """The config that a run stopped half way has come to ('auto' has made its choices); None where there is none of this one."""
    if not (directory / CHECKPOINT).exists():
        return None
    there = read_config(RunDirectory.open(directory), trusted=config.code())
    training = replace(there.training, epochs=config.training.epochs, patience=config.training.patience)
    begun = replace(there, training=training, device=config.device)
    ours, theirs = config.identity(), begun.identity()
    for settings in (ours, theirs):  # which the experiment chose where the config says 'auto'
        settings["training"].pop("optimizer")
    if ours != theirs:
        raise ValueError(f"{directory} holds a run of other settings: remove it, or choose another --out")
    return begun


def _is_done(directory: Path) -> bool:
    return (directory / SUMMARY).exists()


def _row(**values: Any) -> dict[str, Any]:
    names = ("validation_error", "initial_error", "linear_error", *_FROM_SUMMARY, "reason")
    row = {name: values.get(name) for name in names}
    return row | {"reason": " ".join((row["reason"] or "").split())[:_LONGEST_REASON]}


def is_good(row: Mapping[str, Any]) -> bool:
    """Whether a row has a result."""
    error = row["validation_error"]
    return error is not None and math.isfinite(error)
