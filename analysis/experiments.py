"""An experiment in one call: what `odernn train` does."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from odernn.experiment import Experiment, ExperimentConfig, LoadedRun, load_run
from odernn.runs import CHECKPOINT, RunDirectory

from .memory import memory_function
from .plotting import plot_memory, plot_training


def run_experiment(
    config: ExperimentConfig,
    path: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    trust_code: bool = False,
    progress: bool = True,
) -> LoadedRun:
    """Trains the model of a config and leaves a run directory, as `odernn train` does; everything is checked before anything is
    written.

    Args:
        config: what to train on what, and how.
        path: the run directory to make; runs/DATE-TIME-MODEL-ACTIVATION by default.
        overwrite: whether a run that `path` holds is replaced.
        resume: whether a run of this config that `path` holds goes on from its checkpoint; without one, a new run begins.
        trust_code: whether code that the run of a warm start names may be run.
        progress: whether a bar shows the epochs, where there is a terminal.

    Returns:
        The run with its best weights, as `load_run(path)` gives it.

    Raises:
        ValueError: settings that do not fit together, or a directory that is taken.
        DivergedSolve: a solve that diverged; the last good checkpoint is kept.

    Example:
        >>> from analysis import run_experiment
        >>> from odernn import ExperimentConfig, TrainingConfig
        >>> training = TrainingConfig(epochs=1)
        >>> config = ExperimentConfig(hidden_size=2, train_size=8, validation_size=8, device="cpu", training=training)
        >>> run_experiment(config, "runs/tanh-2", progress=False).model.hidden_size
        2
    """
    if not isinstance(config, ExperimentConfig):
        raise ValueError(f"config is a {type(config).__name__}, expected ExperimentConfig(hidden_size=8, ...)")
    if overwrite and resume:
        raise ValueError("overwrite and resume contradict each other: leave one out")
    with ExitStack() as held:
        if resume and path is not None and (Path(path) / CHECKPOINT).exists():
            run = RunDirectory.open(Path(path))
            held.enter_context(run.writing())
            experiment = Experiment(replace(config, warm_start=_absolute(config.warm_start)), warm=False)
            experiment.resume(run)
        else:
            experiment = Experiment(config, trust_code=trust_code)
            run = new_run(experiment, path, overwrite=overwrite)
            held.callback(run.unlock)
        experiment.train(run, progress=progress)
        draw_run(experiment, run.path)
    return load_run(run.path, trust_code=True)  # the code is that of this config, and has run


def _absolute(warm_start: str | None) -> str | None:
    return None if warm_start is None else str(Path(warm_start).resolve())


def new_run(experiment: Experiment, path: str | os.PathLike[str] | None, *, overwrite: bool) -> RunDirectory:
    """The directory of a new run, locked; runs/DATE-TIME-MODEL-ACTIVATION where no path is given.

    Raises:
        ValueError: it is taken.
        DivergedSolve: with `overwrite`, of the first solve: the old run stays.
    """
    config = experiment.config
    if overwrite:
        experiment.trainer.validation_error()
    if path is not None:
        return RunDirectory.create(Path(path), experiment.record(), overwrite=overwrite, hold=True)
    model, activation = (setting.rpartition(":")[2] for setting in (config.model, config.activation))
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{model}-{activation}"
    return RunDirectory.create_beside(Path("runs") / name, experiment.record(), hold=True)


def draw_run(experiment: Experiment, path: Path) -> None:
    """training.png and memory.png of a run that has been trained.

    Raises:
        OSError: they cannot be written; the run itself is complete.
    """
    M = memory_function(experiment.model, experiment.t, amplitudes=(1.0,))
    rho = None if experiment.target is None else memory_function(experiment.target, experiment.t, amplitudes=(1.0,))
    try:
        if experiment.trainer.history:
            plot_training(experiment.trainer.history, path / "training.png")
        plot_memory(M, path / "memory.png", target=None if rho is None else (rho.times, rho.values))
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot draw in {path} ({reason}): the run is complete; --resume {path} draws it again") from error
